import pytest
import torch
from torch import nn

from xinc_captum.attributions.nern import feature_loss, logit_loss, reconstruction_loss, smoothness_loss
from xinc_captum.attributions.nern.kernels import convolutions
from xinc_captum.attributions.nern.losses import Distillation, layer_roughness
from xinc_captum.hooks import LayerError


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-5)


def test_reconstruction_loss_equals_the_recorded_one(arrays):
    found = [arrays[f"loss/rec_weights/layer{i}"] for i in range(4)]
    expected = [arrays[f"net/state/conv{i}.weight"] for i in (1, 2, 3, 4)]
    close(reconstruction_loss(found, expected), arrays["loss/recon/L2"])


def test_feature_loss_equals_the_recorded_one(arrays):
    found, expected = ([arrays[f"loss/fmap_{side}{i}"] for i in (0, 1)] for side in ("rec", "orig"))
    close(feature_loss(found, expected), arrays["loss/fmd/L2Batched"])


@pytest.mark.parametrize(("ours", "theirs"), [("plain", "KLDiv"), ("stable", "StableKLDiv")])
def test_logit_loss_equals_the_recorded_one(arrays, ours, theirs):
    close(logit_loss(arrays["loss/logits_rec"], arrays["loss/logits_orig"], ours), arrays[f"loss/kd/{theirs}"])


def test_losses_equal_hand_computed_ones():
    one, two = torch.tensor([3.0]), torch.tensor([0.0, 4.0])
    assert reconstruction_loss([one, two], [one * 0, two * 0]).item() == pytest.approx((25 / 3) ** 0.5)
    opposite = feature_loss([torch.tensor([[1e6, 0.0]])], [torch.tensor([[-1e6, 0.0]])])
    assert opposite.item() == pytest.approx(4, rel=1e-5)
    assert logit_loss(torch.zeros(2, 4), torch.zeros(2, 4)).item() == pytest.approx(-4e-4, rel=1e-2), (
        "slightly negative"
    )


def test_unknown_kinds_are_refused():
    t = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="kind is 'l1'; expected 'plain' or 'stable'"):
        logit_loss(t, t, "l1")


@pytest.mark.parametrize("kind", ["plain", "stable"])
def test_a_single_logit_is_compared_by_its_sigmoid(kind):
    """Two logits of which one is 0 say the same; the softmax of one column alone would always agree."""
    found, expected = torch.randn(2, 5, 1)
    two = [torch.cat([torch.zeros_like(side), side], 1) for side in (found, expected)]
    assert logit_loss(found, expected, kind) == logit_loss(*two, kind) > 0.01
    p, q = expected.sigmoid(), found.sigmoid()
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(logit_loss(found, expected, "plain"), divergence)


@pytest.fixture
def target():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()


@pytest.fixture
def images():
    return torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_target_agrees_with_itself(target, images):
    compared = Distillation(target, target, convolutions(target, None))
    features, logits = compared.losses({"0": target[0].weight.detach()}, images)
    assert features == 0 and abs(float(logits.detach())) < 1e-3, "the stable form lies a little off 0"
    share, divergence = compared.agreement({"0": target[0].weight.detach()}, images, batch_size=3)
    assert share == 1 and abs(divergence) < 1e-6


def test_losses_are_differentiable_and_the_target_is_restored(target, images):
    before = {name: value.clone() for name, value in target.state_dict().items()}
    weight = torch.zeros_like(target[0].weight).requires_grad_()
    features, logits = Distillation(target, target, convolutions(target, None)).losses({"0": weight}, images)
    (slope,) = torch.autograd.grad(features + logits, weight)
    assert features > 0 and slope.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert all(p.grad is None for p in target.parameters()) and not target[1]._forward_hooks


def test_default_feature_layers(target):
    layers = convolutions(target, None)
    assert Distillation(target, target, layers).hooked == [target[1]]
    bare = nn.Sequential(target[0], target[3], target[4])
    assert Distillation(bare, bare, convolutions(bare, None)).hooked == [target[0]]
    assert Distillation(target, target, layers, ["2"]).hooked == [target[2]]


def test_batch_size_does_not_change_the_agreement(target, images):
    compared = Distillation(target, target, convolutions(target, None))
    other = {"0": torch.randn(3, 1, 3, 3, generator=torch.Generator().manual_seed(2))}
    whole, pieces = (compared.agreement(other, images, batch_size=n) for n in (100, 2))
    assert whole[0] == pieces[0] and whole[1] == pytest.approx(pieces[1], rel=1e-5)
    assert whole[1] > 0


def test_outputs_must_be_logits(target, images):
    compared = Distillation(lambda x: {"logits": target(x)}, target, convolutions(target, None))
    with pytest.raises(LayerError, match=r"the target returns dict; expected logits \(rows, classes\)"):
        compared.losses({}, images)


def test_a_single_logit_agrees_by_its_sign(images):
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(48, 1, bias=False)).eval()
    nn.init.zeros_(one[0].bias)
    compared = Distillation(one, one, convolutions(one, None))
    assert compared.agreement({"0": one[0].weight.detach()}, images)[0] == 1
    share, divergence = compared.agreement({"0": -one[0].weight.detach()}, images)
    assert share == 0 and divergence > 0


def test_cosine_terms_equal_the_recorded_ones(arrays, recorded):
    found = smoothness_loss(recorded, ["conv1", "conv2", "conv4"])
    torch.testing.assert_close(-found[None], arrays["smooth/cosine_term"], atol=0, rtol=1e-5)


def test_recorded_distances_have_a_mistake_that_ours_do_not(arrays, recorded):
    w = recorded.conv3.weight.detach()[:, :, 0, 0]
    unit = w / w.norm()
    slip = (w[:, 1:] - unit[:, :-1]).abs().sum() + (w[1:] - unit[:-1]).abs().sum()
    torch.testing.assert_close(-slip[None], arrays["smooth/cosine_l2_term_1x1"], atol=0, rtol=1e-5)
    by_hand = sum(abs(w[f, c] - w[f, c + 1]) for f in range(8) for c in range(7))
    by_hand += sum(abs(w[f, c] - w[f + 1, c]) for f in range(7) for c in range(8))
    torch.testing.assert_close(smoothness_loss(recorded, ["conv3"]), by_hand, atol=1e-4, rtol=0)


def test_training_with_the_smoothness_loss_makes_neighbours_similar():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 1))
    before = [layer_roughness(model[i].weight).item() for i in (0, 1)]
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        smoothness_loss(model).backward()
        optimizer.step()
    after = [layer_roughness(model[i].weight).item() for i in (0, 1)]
    assert all(a < b - 1 for a, b in zip(after, before, strict=True))


def test_one_kernel_has_no_neighbours():
    assert layer_roughness(torch.randn(1, 1, 3, 3)).item() == 0


def test_networks_without_convolutions_are_refused():
    with pytest.raises(ValueError, match=r"has no nn\.Conv1d"):
        smoothness_loss(nn.Linear(1, 1))
