import pytest
import torch
from torch import nn

from xinc_captum.hooks.forward import Forward, UnsupportedError


def test_it_is_the_forward_derivative():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)).double()
    a = torch.rand(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    forward, parts = Forward(a, net(a)), torch.rand(4, 2, 2, 6, 7, dtype=torch.float64)
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


def test_what_cannot_be_differentiated_twice_says_so():
    a = torch.rand(2, 3, requires_grad=True)
    with pytest.raises(UnsupportedError, match="a custom autograd Function"):
        Forward(a, Once.apply(a) + a)
