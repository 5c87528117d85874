"""Every way of pushing gives torch's own forward derivative."""

import pytest
import torch
from torch import nn

from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.derivative import run
from xinc_captum.attributions.canvas.rules.push import NoForwardError, Push
from xinc_captum.attributions.canvas.rules.tangent import TANGENT
from xinc_captum.batch import Batch


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 3 * ctx.saved_tensors[0] ** 2


class CubeForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return g * 3 * ctx.saved_tensors[0] ** 2

    @staticmethod
    def jvp(ctx, t):
        return t * 3 * ctx.saved_tensors[0] ** 2


class Net(nn.Module):
    def __init__(self, cube):
        super().__init__()
        self.first, self.second, self.cube = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 3), cube

    def forward(self, x):
        return self.second(self.cube(self.first(x)))


@pytest.mark.parametrize(
    ("cube", "quick"),
    [(lambda x: x**3, True), (CubeForward.apply, True), (Cube.apply, False)],
    ids=["plain", "with jvp", "without jvp"],
)
def test_every_way(cube, quick):
    net, x = Net(cube).double(), torch.rand(2, 1, 4, 5, dtype=torch.float64)
    tail, batch = Tail(net, net.first), Batch.of(x)
    push, a = Push(tail, batch, TANGENT, run(tail, batch, TANGENT)), net.first(x).detach()
    parts = torch.rand(3, *a.shape, dtype=torch.float64)
    expected = torch.stack([torch.func.jvp(lambda z: net.second(z**3), (a,), (part,))[1] for part in parts])
    torch.testing.assert_close(push(parts), expected.detach())
    if not quick:
        with pytest.raises(NoForwardError):
            push.quick(parts)
