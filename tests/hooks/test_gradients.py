import warnings

import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, NeuronFeatureAccentuation
from xinc_captum.attributions.linking import Encoder
from xinc_captum.hooks import (
    GradientError,
    check_preprocess,
    crop_of,
    gradient_errors,
    leads_to,
    no_gradient,
    preprocesses,
)
from xinc_captum.hooks.gradients import JacobianVectorProduct, UnsupportedError
from xinc_captum.zoo import Classifier, Normalise


@pytest.mark.parametrize(
    "fault",
    [
        lambda: torch.autograd.grad(torch.ones(()), torch.ones(2)),
        lambda: torch.autograd.grad(torch.ones(2, requires_grad=True).sum(), torch.ones(2, requires_grad=True)),
        lambda: nn.Linear(2, 2)(_inference_tensor()),
    ],
)
def test_missing_gradients_are_one_error(fault):
    text = "no gradient flows from the score to what is explained"
    with pytest.raises(GradientError, match=text) as found, gradient_errors(nn.Identity()):
        fault()
    assert isinstance(found.value.__cause__, RuntimeError)


def test_other_errors_pass():
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyError("grad"),
        torch.OutOfMemoryError(),
    ):
        with pytest.raises(type(error)), gradient_errors(nn.Identity()):
            raise error


def test_the_error_contains_the_remedy():
    text = no_gradient("from a to b", nn.Linear(1, 1))
    assert text.startswith(
        "no gradient flows from a to b: part of the forward pass records none. Remove torch.no_grad()"
    )
    assert "quantized Linear" not in text


def test_ways_through_a_graph():
    x = torch.rand(3, requires_grad=True) * 2
    weight = torch.rand(3, requires_grad=True)
    assert leads_to((x * weight).exp().sum(), x)
    assert not leads_to((x.detach() * weight).sum(), x)
    assert not leads_to(torch.ones(3), x)
    assert leads_to(x, x)


def _inference_tensor():
    with torch.inference_mode():
        return torch.ones(1, 2)


def test_the_product_equals_the_forward_derivative():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)).double()
    a = torch.rand(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    forward, parts = JacobianVectorProduct(a, net(a)), torch.rand(4, 2, 2, 6, 7, dtype=torch.float64)
    expected = torch.stack([torch.func.jvp(net, (a.detach(),), (part,))[1] for part in parts])
    torch.testing.assert_close(forward(parts), expected.detach())
    torch.testing.assert_close(forward(parts[:1]), expected[:1].detach())


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 3


def test_operations_without_second_derivatives_raise_errors():
    a = torch.rand(2, 3, requires_grad=True)
    with pytest.raises(UnsupportedError, match="a custom autograd Function"):
        JacobianVectorProduct(a, Once.apply(a) + a)


NORMALISE = Normalise((0.5,), (0.5,))
NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2))
CLASSIFIER = Classifier("small", NET, NORMALISE, 6, ("a", "b"))


def test_classifiers_preprocess_and_modules_do_not():
    assert preprocesses(CLASSIFIER)
    assert not any(map(preprocesses, (NET, NET.forward, lambda x: NET(x), None)))
    check_preprocess(CLASSIFIER, None)
    check_preprocess(NET, NORMALISE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureAccentuation(CLASSIFIER, preprocess=NORMALISE),
        lambda: NeuronFeatureAccentuation(CLASSIFIER, "0", preprocess=NORMALISE),
        lambda: Encoder(CLASSIFIER, "2", preprocess=NORMALISE),
    ],
)
def test_normalising_twice_is_refused(make):
    with pytest.raises(ValueError, match="preprocess is given, and small has its own preprocess, so images would"):
        make()


def test_a_sequential_alone_follows_its_modules():
    x = torch.rand(1, 1, 6, 6)
    options = {"n_steps": 1, "transforms": ()}
    alone = FeatureAccentuation(CLASSIFIER).perturb(x, 1, **options)
    assert torch.equal(alone, FeatureAccentuation(NET, preprocess=NORMALISE).perturb(x, 1, **options))


def test_crop_of_returns_the_used_rows_and_columns():
    x = torch.rand(2, 3, 40, 20)
    assert crop_of(lambda y: y[..., 6:-3, 5:], x) == ((6, 36), (5, 19))
    assert crop_of(lambda y: y[..., 6:-3, 5:].mul_(2), x) == ((6, 36), (5, 19))
    for whole in (
        lambda y: (y - 0.5) / 0.2,
        lambda y: nn.functional.avg_pool2d(y, 2),
        lambda y: y.detach(),
        lambda y: 3,
    ):
        assert crop_of(whole, x) is None


def test_a_cropping_preprocess_warns_and_its_mask_is_correct():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    x, options = torch.rand(1, 3, 20, 20), {"n_steps": 2, "transforms": ()}
    crop = lambda y: y[..., 4:16, 4:16]
    text = "preprocess uses only rows 4 to 15 and columns 4 to 15 of images of 20 x 20 pixels"
    with pytest.warns(UserWarning, match=text):
        found = FeatureAccentuation(net, preprocess=crop).accentuate(x, 1, **options)
    assert torch.equal(found.masks[..., 4:16, 4:16] > 0, torch.ones(1, 3, 12, 12, dtype=torch.bool))
    assert float(found.masks.sum()) == pytest.approx(float(found.masks[..., 4:16, 4:16].sum()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureAccentuation(net, preprocess=lambda y: y * 2, size=12).accentuate(x, 1, **options)
