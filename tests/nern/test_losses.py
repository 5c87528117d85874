import pytest
import torch

from xinc_captum.attributions.nern import feature_loss, logit_loss, reconstruction_loss


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-5)


def test_reconstruction_as_recorded(arrays):
    found = [arrays[f"loss/rec_weights/layer{i}"] for i in range(4)]
    wanted = [arrays[f"net/state/conv{i}.weight"] for i in (1, 2, 3, 4)]
    close(reconstruction_loss(found, wanted), arrays["loss/recon/L2"])
    close(reconstruction_loss(found, wanted, "mean_mse"), arrays["loss/recon/MSE"])


@pytest.mark.parametrize(("ours", "theirs"), [("each", "L2Batched"), ("whole", "L2"), ("similarity", "SP")])
def test_features_as_recorded(arrays, ours, theirs):
    found, wanted = ([arrays[f"loss/fmap_{side}{i}"] for i in (0, 1)] for side in ("rec", "orig"))
    close(feature_loss(found, wanted, ours), arrays[f"loss/fmd/{theirs}"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("plain", "KLDiv"),
        ("stable", "StableKLDiv"),
        ("both_stable", "MultiStableKLDiv"),
        ("temperature", "TempStableKLDiv_T2"),
    ],
)
def test_logits_as_recorded(arrays, ours, theirs):
    close(logit_loss(arrays["loss/logits_rec"], arrays["loss/logits_orig"], ours), arrays[f"loss/kd/{theirs}"])


def test_by_hand():
    one, two = torch.tensor([3.0]), torch.tensor([0.0, 4.0])
    assert reconstruction_loss([one, two], [one * 0, two * 0]).item() == pytest.approx((25 / 3) ** 0.5)
    assert reconstruction_loss([one, two], [one * 0, two * 0], "mean_mse").item() == pytest.approx((9 + 8) / 2)
    opposite = feature_loss([torch.tensor([[1e6, 0.0]])], [torch.tensor([[-1e6, 0.0]])])
    assert opposite.item() == pytest.approx(4, rel=1e-5)
    assert logit_loss(torch.zeros(2, 4), torch.zeros(2, 4)).item() == pytest.approx(-4e-4, rel=1e-2), (
        "slightly negative"
    )


def test_unknown_kinds():
    t = torch.zeros(1, 2)
    for loss, name in ((reconstruction_loss, "reconstruction"), (feature_loss, "features")):
        with pytest.raises(ValueError, match=f"{name} is 'l1'; wanted"):
            loss([t], [t], "l1")
    with pytest.raises(ValueError, match="logits is 'l1'; wanted one of 'plain', 'stable'"):
        logit_loss(t, t, "l1")


@pytest.mark.parametrize("kind", ["plain", "stable", "both_stable", "temperature"])
def test_a_single_logit_is_compared_by_its_sigmoid(kind):
    """Two logits of which one is 0 say the same; the softmax of one column alone would always agree."""
    found, wanted = torch.randn(2, 5, 1)
    two = [torch.cat([torch.zeros_like(side), side], 1) for side in (found, wanted)]
    assert logit_loss(found, wanted, kind) == logit_loss(*two, kind) > 0.01
    p, q = wanted.sigmoid(), found.sigmoid()
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(logit_loss(found, wanted, "plain"), divergence)
