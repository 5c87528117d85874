import pytest
import torch
from torch import nn

from xinc_captum.hooks import (
    GradientError,
    JacobianVectorProduct,
    UnsupportedError,
    gradient_errors,
    leads_to,
    no_gradient,
)


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
