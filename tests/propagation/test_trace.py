"""Chains are found by running; everything else is left to autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.trace import trace
from xinc_captum.batch import Batch


class Net(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.first, self.second, self.body = nn.Conv2d(2, 4, 1), nn.Conv2d(1, 1, 1), body

    def forward(self, x):
        return self.body(self, self.first(x))


def steps(body, target=None):
    net = Net(body)
    seen = trace(Tail(net, net.first), Batch.of(torch.rand(2, 2, 4, 5), None, target))
    return None if seen is None else [step.name for step in seen.steps]


def test_a_chain_of_modules_and_functions():
    body = lambda n, x: torch.sigmoid(n.second(F.gelu(F.pixel_shuffle(x, 2)))).mul_(2)
    assert steps(body) == ["pixel_shuffle", "gelu", "conv2d", "sigmoid", "mul"]
    assert steps(body, target=(0, slice(1, 3))) == ["pixel_shuffle", "gelu", "conv2d", "sigmoid", "mul", "getitem"]


def test_what_entered_survives_an_in_place_step():
    net = Net(lambda n, x: F.relu(x - 5, inplace=True))
    seen = trace(Tail(net, net.first), Batch.of(torch.rand(1, 2, 3, 3)))
    assert (seen.steps[1].entered < 0).all()
    assert torch.equal(seen.steps[1].again(seen.steps[1].entered), seen.output)


def without_gradients(n, x):
    with torch.no_grad():
        return x * 2


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, g):
        return g


@pytest.mark.parametrize(
    "body",
    [
        lambda n, x: F.relu(x) + x,
        lambda n, x: torch.cat(x.chunk(2, 1)[::-1], 1),
        without_gradients,
        lambda n, x: Own.apply(x),
        lambda n, x: torch.autograd.grad(x.sum(), n.first.weight, create_graph=True)[0].sum() + x,
        lambda n, x: (2.0 * F.relu(x), x)[1].detach(),
    ],
    ids=["skip", "branches", "no_grad", "custom", "gradients inside", "thrown away"],
)
def test_no_chain(body):
    seen = steps(body)
    assert seen is None or seen == ["detach"], "a step that nobody can linearise ends the chain later"
