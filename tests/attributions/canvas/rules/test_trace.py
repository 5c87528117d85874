"""Chains of operations are recorded by running the model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.trace import (
    AFFINE,
    BILINEAR,
    EVALUATION_ONLY,
    POINTWISE,
    plain_name,
    trace,
)
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


def test_step_input_survives_an_in_place_operation():
    net = Net(lambda n, x: F.relu(x - 5, inplace=True))
    seen = trace(Tail(net, net.first), Batch.of(torch.rand(1, 2, 3, 3)))
    assert (seen.steps[1].input < 0).all()
    assert torch.equal(seen.steps[1].apply(seen.steps[1].input), seen.output)


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
def test_other_models_are_not_chains(body):
    seen = steps(body)
    assert seen is None or seen == ["detach"], "a step that nobody can linearise ends the chain later"


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (torch.Tensor.add_, ("add", True)),
        (torch.Tensor.__iadd__, ("add", True)),
        (torch.Tensor.__radd__, ("add", False)),
        (torch.Tensor.__mul__, ("mul", False)),
        (torch.Tensor.__truediv__, ("div", False)),
        (torch.Tensor.__getitem__, ("getitem", False)),
        (torch.Tensor.shape.__get__, ("shape", False)),
        (F.relu, ("relu", False)),
        (F.relu_, ("relu", True)),
        (torch.sin, ("sin", False)),
    ],
)
def test_plain_name(func, name):
    assert plain_name(func) == name


def test_no_operation_is_in_two_tables():
    tables = [AFFINE, BILINEAR, POINTWISE, EVALUATION_ONLY]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))


@pytest.mark.parametrize(
    "name", sorted(POINTWISE - {"prelu", "threshold", "pow", "clamp", "clip", "clamp_min", "clamp_max"})
)
def test_pointwise_operations_are_pointwise_and_finite_at_zero(name):
    func = getattr(torch, name, None) or getattr(F, name)
    z = torch.tensor([0.3, -0.2, 0.0])
    z = z.abs() if name in {"sqrt"} else z
    full = func(z)
    assert torch.allclose(full, torch.stack([func(one) for one in z])), "each element alone"
    assert torch.isfinite(func(torch.zeros(1))).all() or name in {"acosh"}


def test_function_names_match_torch_dispatch():
    seen = []

    class Names(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(plain_name(func)[0])
            return func(*args, **(kwargs or {}))

    x = torch.rand(2, 2)
    with Names():
        F.logsigmoid(x), F.threshold(x, 0.1, 0.0)
    assert seen == ["logsigmoid", "threshold"]
