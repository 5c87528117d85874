"""In float32 a secant has the digits that float64 has, at every z: also next to 0, where values agree."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum import NeuronCanvas
from xinc_captum.attributions.canvas.rules import carried
from xinc_captum.attributions.canvas.rules.differences import difference
from xinc_captum.attributions.canvas.rules.operations import POINTWISE

OPTIONS = {
    "prelu": [(torch.tensor([0.3]),)],
    "threshold": [(0.1, 5.0), (-0.1, 5.0)],
    "pow": [(2,), (0.5,), (1.5,)],
    "clamp": [(-0.5, 0.5), (0.01, 0.5)],
    "clip": [(0.01, 0.5)],
    "clamp_min": [(0.01,), (-1.0,)],
    "clamp_max": [(0.3,)],
    "softplus": [(), (100.0,), (0.5, 3.0), (2.0, 1.0)],
    "celu": [(), (0.01,)],
    "hardtanh": [(), (0.2, 0.9)],
}
CASES = [(name, options) for name in sorted(POINTWISE) for options in OPTIONS.get(name, [()])]


def function(name):
    return getattr(F, name, None) or getattr(torch, name)


def cast(options, dtype):
    return tuple(x.to(dtype) if isinstance(x, torch.Tensor) else x for x in options)


def slope(name, options, z):
    """What a contribution is multiplied with: the derivative of the carried value."""
    leaf = z.clone().requires_grad_()
    made = function(name)(carried.start(leaf), *cast(options, z.dtype))
    return torch.autograd.grad(made.value.sum(), leaf)[0]


def by_float64(name, sigma, z):
    """(σ(z) − σ(0))/z, with a z of 1e-7 in place of smaller ones where σ(0) is not 0: it differs by about 1e-7.

    So too for exponential linear units, of which torch 2.6 computes exp(z) − 1.
    """
    z = z.double()
    at_zero = sigma(torch.zeros(1, dtype=z.dtype))
    if bool(at_zero != 0) or name.endswith("elu"):
        z = torch.where(z.abs() < 1e-7, 1e-7 * z.sign(), z)
    return (sigma(z) - at_zero) / z


@pytest.mark.parametrize(("name", "options"), CASES)
def test_slopes_in_float32_are_those_of_float64(name, options):
    magnitudes = torch.logspace(-44, 1, 400)  # from denormal numbers on
    z = torch.cat([-magnitudes, magnitudes])
    sigma = lambda x: function(name)(x, *cast(options, x.dtype))
    wanted = by_float64(name, sigma, z)
    z, wanted = (t[torch.isfinite(wanted)] for t in (z, wanted))
    largest = wanted[z.abs() > 1e-3].abs().max()
    wrong = (slope(name, options, z) - wanted).abs() - 1e-4 * wanted.abs() - 1e-6 * largest
    assert bool((wrong <= 0).all()), f"at z = {float(z[wrong.argmax()])}"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_slope_at_zero_is_the_derivative_there(name, options):
    leaf = torch.zeros(1, requires_grad=True)
    (wanted,) = torch.autograd.grad(function(name)(leaf.clone(), *options).sum(), leaf)
    assert float(slope(name, options, torch.zeros(1))) == pytest.approx(float(wanted) if wanted.isfinite() else 0.0)


@pytest.mark.parametrize("name", ["sigmoid", "logsigmoid", "softplus", "exp", "exp2", "cosh", "erfc", "hardsigmoid"])
def test_identities(name):
    z = torch.linspace(-30, 30, 241, dtype=torch.float64)
    wanted = function(name)(z) - function(name)(torch.zeros_like(z))
    torch.testing.assert_close(difference(name, (), {})(z), wanted, atol=1e-12, rtol=1e-12)


def test_identities_of_functions_that_turn():
    z = torch.linspace(-1, 1, 241, dtype=torch.float64)
    for name in ("cos", "acos", "sinc"):
        wanted = function(name)(z) - function(name)(torch.zeros_like(z))
        torch.testing.assert_close(difference(name, (), {})(z), wanted, atol=1e-9, rtol=1e-9)


def test_by_hand():
    beta = difference("softplus", (2.0,), {"threshold": 1.0})
    # above z = 1/2 it is z; there softplus(z) - softplus(0) = z - ln 2 / 2
    assert beta(torch.tensor([3.0])).item() == pytest.approx(3 - math.log(2) / 2)
    assert difference("relu", (), {}) is None


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.Softplus, nn.LogSigmoid])
@pytest.mark.parametrize("shape", ["pixels", "frames"])
def test_contributions_next_to_zero(activation, shape):
    # Units that nearly cancel: z is about 1e-6 at every pixel, from activations of about 1.
    torch.manual_seed(0)
    if shape == "pixels":
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1), activation(), nn.Linear(1, 1))
        inputs = torch.rand(50, 2)
    else:
        net = nn.Sequential(
            nn.ConvTranspose2d(2, 2, 4), nn.Conv2d(2, 1, 1), activation(), nn.Conv2d(1, 1, 3, padding=1)
        )
        inputs = torch.rand(3, 2, 1, 1)
    with torch.no_grad():
        net[0].weight.fill_(0.0)
        net[0].bias.copy_(torch.tensor([1.0, 1.0]))
        net[0].weight[..., 0].fill_(1e-6)
        net[1].weight.copy_(torch.tensor([1.0, -1.0]).reshape(net[1].weight.shape))
        net[1].weight[0, 1] *= 1 - 2e-6
        net[1].bias.zero_()
    exact = NeuronCanvas(net.double(), "0", rule="secant").attribute(inputs.double())
    found = NeuronCanvas(net.float(), "0", rule="secant").attribute(inputs)
    # z itself is rounded to 6e-8 of 1, so that slopes of a z beside it are as right
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-4
    torch.testing.assert_close(found.sum(1), net(inputs).detach(), atol=1e-5, rtol=1e-5)
