"""The secant carried through single operations, with answers worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.canvas.rules import CarryError
from xinc_captum.attributions.canvas.rules.carried import Carried, finish, start
from xinc_captum.attributions.canvas.rules.grad_modes import GradModes


def carry(function, z):
    """Value, slot, and the units' parts through a function of one row of units."""
    leaf = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    value, slot = finish(function(start(leaf)))
    parts = []
    for o in range(value.shape[1]):
        (slope,) = torch.autograd.grad(value[:, o].sum(), leaf, retain_graph=True)
        parts.append((leaf * slope).detach()[0])
    return value.detach()[0], slot[0], torch.stack(parts, 1)


def test_a_hand_worked_relu_layer():
    # z = 2a - 3b + 1 = 2*4 - 3*1 + 1 = 6; ReLU keeps it: parts 8 and -3, slot 1
    linear = nn.Linear(2, 1).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[2.0, -3.0]]))
        linear.bias.copy_(torch.tensor([1.0]))
    value, slot, parts = carry(lambda x: F.relu(linear(x)), [4.0, 1.0])
    assert value.tolist() == [6.0]
    assert slot.tolist() == [1.0]
    assert parts.flatten().tolist() == [8.0, -3.0]


def test_a_hand_worked_square():
    # z = a + b + 1 = 1 + 2 + 1 = 4, sigma = z^2 = 16, secant slope 4: parts 4 and 8, slot 4
    value, slot, parts = carry(lambda x: (x.sum(1, keepdim=True) + 1) ** 2, [1.0, 2.0])
    assert (value.tolist(), slot.tolist(), parts.flatten().tolist()) == ([16.0], [4.0], [4.0, 8.0])


def test_a_cosine_keeps_its_value_at_zero_in_the_slot():
    value, slot, parts = carry(torch.cos, [0.0])
    assert (value.tolist(), slot.tolist(), parts.flatten().tolist()) == ([1.0], [1.0], [0.0])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.sin(3 * x),
        lambda x: nn.ReLU(inplace=True)(x - 1),
        lambda x: nn.PReLU(3).double()(x),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: torch.cat([x, x * 2, torch.ones(1, 2, dtype=x.dtype)], 1),
        lambda x: x + torch.tanh(x[:, [2, 1, 0]]),
        lambda x: 1 - x / 3,
        lambda x: F.softplus(x.view(1, 3, 1).permute(0, 2, 1).reshape(1, 3)),
        lambda x: torch.einsum("ij,kj->ik", x, torch.ones(2, 3, dtype=x.dtype)),
        lambda x: x @ torch.ones(3, 2, dtype=x.dtype),
        lambda x: torch.stack(x.chunk(3, 1), 1).flatten(1),
        lambda x: nn.BatchNorm1d(3).double().eval()(x + 1),
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: F.pad(x, (1, 1), value=2.0),
        lambda x: F.avg_pool1d(x[:, None], 3).flatten(1),
        lambda x: F.max_pool1d(x[:, None] + 1, 2, 1).flatten(1),
        lambda x: nn.MaxPool2d(2)(x[:, None, :2, None].expand(1, 2, 2, 2)).flatten(1),
        lambda x: F.adaptive_max_pool1d(x[:, None], 2).flatten(1),
        lambda x: F.interpolate(x[:, None], scale_factor=2).flatten(1),
        lambda x: torch.where(torch.tensor([True, False, True]), x, torch.zeros((), dtype=x.dtype)),
        lambda x: x.T.T.clamp(-0.5, 0.5).mul_(2),
        lambda x: torch.relu(input=x).sqrt(),
        lambda x: F.linear(input=x, weight=torch.ones(2, 3, dtype=x.dtype)),
        lambda x: (x + 2) ** 0.5,
        lambda x: F.relu(x + 0, True) + torch.sub(x, x, alpha=3),
        lambda x: torch.where(x > 0, x, -x),
        lambda x: x * (x.abs() >= 0.5) + (x < 0).double(),
        lambda x: x.masked_fill(x < 0, 3.0).tril() + torch.isfinite(x),
        lambda x: x + torch.zeros_like(x) * 2 + torch.ones_like(x) + torch.full_like(x, 0.5),
        lambda x: torch.cat([x.new_zeros(1, 2), x.new_ones(1, 1), x.new_full((1, 1), 2.0), 2 * x], 1),
        lambda x: x * torch.arange(x.shape[1], dtype=x.dtype) + torch.empty_like(x).fill_(2),
        lambda x: x * x.new_tensor([1.0, 2.0, 3.0]) + x.detach().exp(),
        lambda x: F.conv1d(x[:, None], torch.ones(2, 1, 2, dtype=x.dtype), torch.ones(2, dtype=x.dtype)).flatten(1),
        lambda x: x * torch.ones(3).to(x) + torch.ones(3).type_as(x) + torch.ones(()).to(x).expand_as(x),
        lambda x: x @ torch.arange(9).to(x).view(3, 3) - torch.arange(3).to(x.device).view_as(x),
        lambda x: x.reshape_as(x.T).T.ravel()[None] * torch.arange(3).reshape_as(x).to(x.dtype),
        lambda x: torch.subtract(torch.negative(x), 2).moveaxis(0, 1).swapdims(0, 1).to(x),
    ],
)
def test_parts_and_slot_add_up(function):
    z = [0.7, -1.2, 0.4]
    value, slot, parts = carry(function, z)
    assert torch.allclose(value, function(torch.tensor([z], dtype=torch.float64))[0], atol=1e-15)
    assert torch.allclose(parts.sum(0) + slot, value, atol=1e-14)


def test_an_in_place_edit_is_seen_by_whoever_holds_the_tensor():
    def function(x):
        y = x * 1
        y.add_(1)
        F.relu(y, inplace=True)
        return y

    value, slot, parts = carry(function, [2.0, -5.0])
    assert value.tolist() == [3.0, 0.0]
    assert torch.allclose(parts.sum(0) + slot, value)


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


class Checkpointed(torch.autograd.Function):
    """As ``torch.utils.checkpoint`` runs a module: in a no_grad block inside of its forward pass."""

    @staticmethod
    def forward(ctx, x):
        with torch.no_grad():
            return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def checkpointed(x):
    with GradModes():
        return Checkpointed.apply(x)


def written_under_no_grad(x):
    with GradModes(), torch.no_grad():
        return x.mul_(2)


def written_into_a_view(x):
    y = x * 1
    y[:, :1].add_(1)
    return y


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: torch.softmax(x, 1), "through 'softmax': it is neither linear nor applied to each element alone"),
        (lambda x: F.layer_norm(x, (2,)), "through 'layer_norm'"),
        (lambda x: x * x, "through 'mul': both factors depend on the layer"),
        (lambda x: x @ x.T, "through 'matmul': both factors"),
        (lambda x: 1 / (1 + x), "cannot carry contributions through"),
        (lambda x: torch.ones(1, 2) / x, "through '(true_)?div': the divisor depends on the layer"),
        (lambda x: torch.pow(x, x), "through 'pow': more than its first argument depends"),
        (lambda x: F.linear(x, torch.cat([x, x])), "its weight or bias depends on the layer"),
        (lambda x: torch.where(x - 1, x, -x), "through 'where': its condition depends on the layer"),
        (lambda x: x.cumprod(1), r"through 'cumprod': its factors.*Secant\(products=\"halves\"\) shares it equally"),
        (lambda x: torch.zeros_like(x).copy_(x), "in-place copy.*writes into a tensor that does not come"),
        (lambda x: torch.zeros_like(x).index_put_((torch.tensor([0]),), x), "in-place index_put"),
        (lambda x: x.argmax(1), "through 'argmax'"),
        (lambda x: x.item(), "through 'item'"),
        (lambda x: x.sign(), "through 'sign'"),
        (checkpointed, "through 'mul': it runs under no_grad in a custom autograd Function"),
        (written_under_no_grad, "through 'mul': it runs under no_grad in.* or in place"),
        (lambda x: F.dropout(x, 0.5, training=True), "through 'dropout': it is in training mode; call model.eval"),
        (lambda x: F.max_pool1d(x[:, None], 2, return_indices=True), "max_pool1d"),
        (lambda x: torch.ops.aten.softmax.int(x, 1), "softmax"),
        (Own.apply, "through 'mul': it runs under no_grad"),
        (written_into_a_view, "in-place add.*edits a view"),
        (lambda x: torch.ones(1, 2).add_(x), "in-place add.*writes into a tensor that does not come from the layer"),
        (lambda x: torch.add(x, 1, out=torch.zeros(1, 2)), "writes into a tensor"),
        (lambda x: (y := x.float()).add_(1) + y, "in-place add.*edits a view"),
        (lambda x: F.dropout(x, 0.5, False).mul_(2), "in-place mul.*edits a view"),
        (lambda x: (+x).mul_(2), "in-place mul.*edits a view"),
        (lambda x: torch.div(x, 0.5, rounding_mode="floor"), "through 'div': it rounds"),
        (lambda x: x - x.to(torch.int32), "through 'to': its result holds no floating-point numbers"),
        (lambda x: F.batch_norm(x, torch.zeros(2), torch.ones(2), x[0]), "through 'batch_norm': more than its first"),
        (lambda x: x**-1, "through 'pow': only fixed positive exponents"),
        (lambda x: 2**x, "cannot carry contributions through"),
        (lambda x: x.detach(), "detach"),
    ],
)
def test_what_cannot_be_carried_is_named(function, text):
    with pytest.raises(CarryError, match=text):
        finish(function(start(torch.tensor([[0.5, 2.0]], requires_grad=True))))


def test_an_output_that_lost_the_layer_is_refused():
    with pytest.raises(CarryError, match="nothing of the layer arrives at the output"):
        finish(torch.zeros(2))


def test_it_looks_like_its_value():
    carried = start(torch.zeros(2, 3, dtype=torch.float64))
    assert isinstance(carried, Carried)
    assert (carried.shape, carried.dtype, carried.dim(), len(carried)) == ((2, 3), torch.float64, 2, 2)
    assert repr(carried) == "Carried(shape=(2, 3))"


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.02), (torch.float16, 0.004)])
def test_the_slope_keeps_its_digits_in_half_precision(dtype, bound):
    z = torch.linspace(-0.02, 0.02, 41, dtype=torch.float64)[None].to(dtype)
    slopes = []
    for kind in (dtype, torch.float64):
        leaf = z.detach().to(kind).requires_grad_()
        value, _ = finish(torch.sigmoid(start(leaf)))
        slopes.append(torch.autograd.grad(value.sum(), leaf)[0].double())
    assert ((slopes[0] - slopes[1]).abs() / slopes[1]).max() < bound


def test_a_mask_keeps_the_choice_that_was_made():
    # where(z > 0, z, -z) is |z|: slopes 1 and -1, as for abs
    _, slot, parts = carry(lambda x: torch.where(x > 0, x, -x), [0.5, -2.0])
    assert slot.tolist() == [0.0, 0.0]
    assert parts.tolist() == [[0.5, 0.0], [0.0, 2.0]]


def test_constants_go_to_the_slot():
    # 3 z + 1: the one belongs to no unit
    value, slot, parts = carry(lambda x: 3 * x + torch.ones_like(x), [2.0])
    assert (value.tolist(), slot.tolist(), parts.tolist()) == ([7.0], [1.0], [[6.0]])


def test_a_factor_computed_under_no_grad_is_a_constant():
    def function(x):
        with GradModes():
            with torch.no_grad():
                gate = x.sigmoid() * 2
                assert not isinstance(gate, Carried)
            return gate * x

    value, slot, parts = carry(function, [0.0, 3.0])  # 2 sigmoid(0) = 1
    gate = 2 * torch.sigmoid(torch.tensor([0.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(value, gate * torch.tensor([0.0, 3.0], dtype=torch.float64))
    assert slot.tolist() == [0.0, 0.0]
    torch.testing.assert_close(parts.sum(0), value)


def test_what_was_made_without_gradients_shares_no_memory_with_the_layer():
    leaf = torch.ones(1, 2, requires_grad=True)
    carried = start(leaf.clone())
    with GradModes(), torch.no_grad():
        carried.view(2).add_(5)
    assert carried.value.tolist() == [[1.0, 1.0]]


def test_a_cumulative_product_by_hand():
    # factors 2 and 3 of units a and b: 2 belongs to a; 6 = 2 * 3 is shared equally, 3 each
    value, slot, parts = carry(lambda x: finished(x).cumprod(1), [2.0, 3.0])
    assert (value.tolist(), slot.tolist()) == ([2.0, 6.0], [0.0, 0.0])
    assert parts.tolist() == [[2.0, 3.0], [0.0, 3.0]]


@pytest.mark.parametrize("z", [[0.7, -1.2, 0.4], [0.7, 0.0, 0.4], [0.0, 0.0, 1.0]])
def test_a_cumulative_product_adds_up(z):
    function = lambda x: (finished(x) + 0.5).relu().mul_(2).cumprod(dim=-1) * x
    value, slot, parts = carry(function, z)
    x = torch.tensor([z], dtype=torch.float64)
    torch.testing.assert_close(value, (((x + 0.5).relu() * 2).cumprod(1) * x)[0])
    torch.testing.assert_close(parts.sum(0) + slot, value)


def finished(carried):
    """The same with products shared among their factors."""
    carried.halves = True
    return carried
