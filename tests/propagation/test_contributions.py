"""Both directions of differentiation share an output out alike."""

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import nn

from xinc_captum import NeuronCanvas


def test_forward_mode_equals_backward_mode():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3), nn.Sigmoid())
    x = torch.rand(2, 2, 6, 7)
    for rule in ("tangent", "secant"):
        canvas = NeuronCanvas(model, "1", rule=rule)
        whole = canvas.attribute(x)  # (2, 3 or 4, 2, 4, 5): many outputs, few units
        for pixel in ((0, 1, 2), (1, 3, 4)):
            one = canvas.attribute(x, target=pixel)  # one output: backward
            assert torch.allclose(whole[(slice(None), slice(None), *pixel)], one, atol=1e-6)


class Gate(nn.Module):
    """A gate that gradients do not pass: forward-mode derivatives would."""

    def __init__(self, outputs):
        super().__init__()
        self.a, self.w = nn.Linear(3, 4), nn.Linear(4, outputs)

    def forward(self, x):
        h = self.a(x)
        with torch.no_grad():
            gate = torch.sigmoid(h)
        return self.w(h * gate)


@pytest.mark.parametrize("outputs", [3, 20])
def test_a_models_own_no_grad_block_stops_either_mode(outputs):
    model, x = Gate(outputs), torch.rand(5, 3)
    ours = NeuronCanvas(model, "a").attribute(x)
    theirs = LayerGradientXActivation(model, model.a).attribute(x, target=1)
    torch.testing.assert_close(ours[..., 1], theirs.detach(), atol=1e-6, rtol=1e-5)


class Triple(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 3


class TripleWithForward(Triple):
    @staticmethod
    def jvp(ctx, t):
        return t * 3


class Residual(nn.Module):
    """An in-place residual add, and an operation of the caller's choice."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.second, self.operation = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, padding=1), operation

    def forward(self, x):
        h = self.first(x)
        y = self.second(torch.tanh(h))
        y += h
        return self.operation(y)


@pytest.mark.parametrize(
    "operation",
    [torch.sigmoid, Triple.apply, TripleWithForward.apply],
    ids=["plain", "no forward mode", "forward mode"],
)
def test_every_way_to_the_same_frames(operation):
    model, x = Residual(operation), torch.rand(2, 1, 4, 5)
    shares = NeuronCanvas(model, "first").attribute(x)
    for pixel in ((0, 1, 2), (1, 3, 4)):
        (gradient,) = torch.autograd.grad(
            operation((h := model.first(x).detach().requires_grad_()) + model.second(torch.tanh(h)))[:, *pixel].sum(), h
        )
        expected = (gradient * h.detach()).sum((2, 3))
        torch.testing.assert_close(shares[:, :, *pixel], expected, atol=1e-6, rtol=1e-5)
