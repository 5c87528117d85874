import pytest
import torch
from torch import nn

from xinc_captum.attributions.nern.convolutions import convolutions
from xinc_captum.attributions.nern.distillation import Distillation
from xinc_captum.hooks import LayerError


@pytest.fixture
def target():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()


@pytest.fixture
def images():
    return torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def test_with_its_own_weights_the_target_agrees_with_itself(target, images):
    compared = Distillation(target, target, convolutions(target, None))
    features, logits = compared.losses({"0": target[0].weight.detach()}, images)
    assert features == 0 and abs(float(logits.detach())) < 1e-3, "the stable form lies a little off 0"
    share, divergence = compared.agreement({"0": target[0].weight.detach()}, images, rows_at_once=3)
    assert share == 1 and abs(divergence) < 1e-6


def test_losses_lead_to_the_weights_and_the_target_is_left(target, images):
    before = {name: value.clone() for name, value in target.state_dict().items()}
    weight = torch.zeros_like(target[0].weight).requires_grad_()
    features, logits = Distillation(target, target, convolutions(target, None)).losses({"0": weight}, images)
    (slope,) = torch.autograd.grad(features + logits, weight)
    assert features > 0 and slope.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert all(p.grad is None for p in target.parameters()) and not target[1]._forward_hooks


def test_maps_are_those_of_norms_or_else_of_the_layers_or_as_told(target):
    layers = convolutions(target, None)
    assert Distillation(target, target, layers).hooked == [target[1]]
    bare = nn.Sequential(target[0], target[3], target[4])
    assert Distillation(bare, bare, convolutions(bare, None)).hooked == [target[0]]
    assert Distillation(target, target, layers, ["2"]).hooked == [target[2]]


def test_chunks_make_no_difference(target, images):
    compared = Distillation(target, target, convolutions(target, None))
    other = {"0": torch.randn(3, 1, 3, 3, generator=torch.Generator().manual_seed(2))}
    whole, pieces = (compared.agreement(other, images, rows_at_once=n) for n in (100, 2))
    assert whole.share == pieces.share and whole.divergence == pytest.approx(pieces.divergence, rel=1e-5)
    assert whole.divergence > 0


def test_an_answer_that_is_no_logits_is_named(target, images):
    compared = Distillation(lambda x: {"logits": target(x)}, target, convolutions(target, None))
    with pytest.raises(LayerError, match=r"the target answers dict; wanted logits \(rows, classes\)"):
        compared.losses({}, images)


def test_a_single_logit_agrees_by_its_sign(images):
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(48, 1, bias=False)).eval()
    nn.init.zeros_(one[0].bias)
    compared = Distillation(one, one, convolutions(one, None))
    assert compared.agreement({"0": one[0].weight.detach()}, images).share == 1
    found = compared.agreement({"0": -one[0].weight.detach()}, images)
    assert found.share == 0 and found.divergence > 0
