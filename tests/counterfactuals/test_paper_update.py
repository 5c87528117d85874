from pathlib import Path

import numpy as np
import pytest
import torch

from xinc_captum.attributions.linking.counterfactuals import LinearHead, LinkingInStyle, shift_losses

DATA = np.load(Path(__file__).parents[1] / "data" / "linking.npz")


def recorded(name):
    return torch.tensor(DATA[name])


@pytest.fixture
def parts():
    weight, bias = recorded("D_B"), recorded("D_b")
    link = lambda r, classes=None: r @ weight.T.to(r) + bias.to(r)
    head = LinearHead(recorded("D_fc_w"), recorded("D_fc_b"))
    return link, head, recorded("D_r")[None], recorded("D_origin")[None], recorded("D_target")[None]


def test_twenty_steps_of_the_papers_code(parts):
    link, head, r, origin, target = parts
    shift, losses, kept = recorded("D_shift0")[None], [], {}
    for step in range(1, 21):
        leaf = shift.clone().requires_grad_()
        loss = shift_losses(link, head, r, leaf, origin, target, tuple(DATA["D_hparams"].tolist()))
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        shift = shift - float(DATA["D_lr"]) * slope
        losses.append(float(loss.detach()))
        kept[step] = shift
    np.testing.assert_allclose(losses, DATA["D_losses"], rtol=1e-5)
    for i, step in enumerate((1, 5, 20)):
        np.testing.assert_allclose(kept[step][0], DATA["D_shift_after_1_5_20"][i], atol=2e-5)
        moved = (r - kept[step]).clamp_min(0)
        np.testing.assert_allclose(link(moved)[0], DATA["D_w_after"][i], atol=1e-4)
        np.testing.assert_allclose(head(moved)[0], DATA["D_logits_relu_after"][i], atol=1e-4)


def test_the_defaults_are_the_papers():
    assert tuple(DATA["D_hparams"].tolist()) == LinkingInStyle().weights
    assert float(DATA["D_lr"]) == LinkingInStyle().lr


def test_the_gradient_worked_out_by_hand(parts):
    link, head, r, origin, target = (
        p.double() if isinstance(p, torch.Tensor) and p.is_floating_point() else p for p in parts
    )
    shift = recorded("D_shift0")[None].double().requires_grad_()
    (slope,) = torch.autograd.grad(shift_losses(link, head, r, shift, origin, target).sum(), shift)
    b, w, s = recorded("D_B").double(), recorded("D_fc_w").double(), shift.detach()
    first, second = link(r)[0], link(r - s)[0]
    lengths = first.norm() * second.norm()
    cosine = first @ second / lengths
    of_cosine = -(first / lengths - cosine * second / second.square().sum()) @ b
    expected = w[target[0]] - 0.6 * w[origin[0]] - 10 * of_cosine
    torch.testing.assert_close(slope[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{"steps": 0}, {"lr": 0.0}, {"lr": float("nan")}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="wanted at least 1 and above 0"):
        LinkingInStyle(**options)
