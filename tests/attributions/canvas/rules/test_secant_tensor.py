"""The secant of single operations against results by hand, and its precision near zero."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum import NeuronCanvas
from xinc_captum.attributions.canvas.rules import CarryError, secant_tensor
from xinc_captum.attributions.canvas.rules.secant_tensor import (
    AFFINE,
    BILINEAR,
    EVALUATION_ONLY,
    POINTWISE,
    SecantTensor,
    cumulative_product,
    difference,
    finish,
    max_pool,
    plain_name,
    product,
    secant_slope,
    start,
    tangent_slope,
)
from xinc_captum.attributions.canvas.rules.tail import GradModes


def carry(function, z):
    """Value, slot, and the units' parts through a function of one row of units."""
    leaf = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    value, remainder = finish(function(start(leaf)))
    contributions = []
    for o in range(value.shape[1]):
        (slope,) = torch.autograd.grad(value[:, o].sum(), leaf, retain_graph=True)
        contributions.append((leaf * slope).detach()[0])
    return value.detach()[0], remainder[0], torch.stack(contributions, 1)


def test_relu_layer_by_hand():
    # z = 2a - 3b + 1 = 2*4 - 3*1 + 1 = 6; ReLU keeps it: parts 8 and -3, slot 1
    linear = nn.Linear(2, 1).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[2.0, -3.0]]))
        linear.bias.copy_(torch.tensor([1.0]))
    value, remainder, contributions = carry(lambda x: F.relu(linear(x)), [4.0, 1.0])
    assert value.tolist() == [6.0]
    assert remainder.tolist() == [1.0]
    assert contributions.flatten().tolist() == [8.0, -3.0]


def test_square_by_hand():
    # z = a + b + 1 = 1 + 2 + 1 = 4, sigma = z^2 = 16, secant slope 4: parts 4 and 8, slot 4
    value, remainder, contributions = carry(lambda x: (x.sum(1, keepdim=True) + 1) ** 2, [1.0, 2.0])
    assert (value.tolist(), remainder.tolist(), contributions.flatten().tolist()) == ([16.0], [4.0], [4.0, 8.0])


def test_value_at_zero_goes_to_the_remainder():
    value, remainder, contributions = carry(torch.cos, [0.0])
    assert (value.tolist(), remainder.tolist(), contributions.flatten().tolist()) == ([1.0], [1.0], [0.0])


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
def test_contributions_and_remainder_sum_to_the_value(function):
    z = [0.7, -1.2, 0.4]
    value, remainder, contributions = carry(function, z)
    assert torch.allclose(value, function(torch.tensor([z], dtype=torch.float64))[0], atol=1e-15)
    assert torch.allclose(contributions.sum(0) + remainder, value, atol=1e-14)


def test_in_place_edits_change_the_tensor():
    def function(x):
        y = x * 1
        y.add_(1)
        F.relu(y, inplace=True)
        return y

    value, remainder, contributions = carry(function, [2.0, -5.0])
    assert value.tolist() == [3.0, 0.0]
    assert torch.allclose(contributions.sum(0) + remainder, value)


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
        (lambda x: x.cumprod(1), r"through 'cumprod': its factors.*Secant\(products=\"halves\"\) splits it equally"),
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
        (lambda x: x - x.to(torch.int32), "through 'to': its result has no floating-point numbers"),
        (lambda x: F.batch_norm(x, torch.zeros(2), torch.ones(2), x[0]), "through 'batch_norm': more than its first"),
        (lambda x: x**-1, "through 'pow': only fixed positive exponents"),
        (lambda x: 2**x, "cannot carry contributions through"),
        (lambda x: x.detach(), "detach"),
    ],
)
def test_unsupported_operations_raise(function, text):
    with pytest.raises(CarryError, match=text):
        finish(function(start(torch.tensor([[0.5, 2.0]], requires_grad=True))))


def test_output_without_contributions_raises():
    with pytest.raises(CarryError, match="the output has no secant contributions"):
        finish(torch.zeros(2))


def test_shape_and_dtype_are_those_of_the_value():
    carried = start(torch.zeros(2, 3, dtype=torch.float64))
    assert isinstance(carried, SecantTensor)
    assert (carried.shape, carried.dtype, carried.dim(), len(carried)) == (
        (2, 3),
        torch.float64,
        2,
        2,
    )
    assert repr(carried) == "SecantTensor(shape=(2, 3))"


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.02), (torch.float16, 0.004)])
def test_the_slope_keeps_its_digits_in_half_precision(dtype, bound):
    z = torch.linspace(-0.02, 0.02, 41, dtype=torch.float64)[None].to(dtype)
    slopes = []
    for kind in (dtype, torch.float64):
        leaf = z.detach().to(kind).requires_grad_()
        value, _ = finish(torch.sigmoid(start(leaf)))
        slopes.append(torch.autograd.grad(value.sum(), leaf)[0].double())
    assert ((slopes[0] - slopes[1]).abs() / slopes[1]).max() < bound


def test_mask_is_fixed():
    # where(z > 0, z, -z) is |z|: slopes 1 and -1, as for abs
    _, remainder, contributions = carry(lambda x: torch.where(x > 0, x, -x), [0.5, -2.0])
    assert remainder.tolist() == [0.0, 0.0]
    assert contributions.tolist() == [[0.5, 0.0], [0.0, 2.0]]


def test_constants_go_to_the_remainder():
    # 3 z + 1: the one belongs to no unit
    value, remainder, contributions = carry(lambda x: 3 * x + torch.ones_like(x), [2.0])
    assert (value.tolist(), remainder.tolist(), contributions.tolist()) == ([7.0], [1.0], [[6.0]])


def test_a_factor_computed_under_no_grad_is_a_constant():
    def function(x):
        with GradModes():
            with torch.no_grad():
                gate = x.sigmoid() * 2
                assert not isinstance(gate, SecantTensor)
            return gate * x

    value, remainder, contributions = carry(function, [0.0, 3.0])  # 2 sigmoid(0) = 1
    gate = 2 * torch.sigmoid(torch.tensor([0.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(value, gate * torch.tensor([0.0, 3.0], dtype=torch.float64))
    assert remainder.tolist() == [0.0, 0.0]
    torch.testing.assert_close(contributions.sum(0), value)


def test_no_grad_results_share_no_memory_with_the_layer():
    leaf = torch.ones(1, 2, requires_grad=True)
    carried = start(leaf.clone())
    with GradModes(), torch.no_grad():
        carried.view(2).add_(5)
    assert carried.value.tolist() == [[1.0, 1.0]]


def test_a_cumulative_product_by_hand():
    # factors 2 and 3 of units a and b: 2 belongs to a; 6 = 2 * 3 is shared equally, 3 each
    value, remainder, contributions = carry(lambda x: with_halves(x).cumprod(1), [2.0, 3.0])
    assert (value.tolist(), remainder.tolist()) == ([2.0, 6.0], [0.0, 0.0])
    assert contributions.tolist() == [[2.0, 3.0], [0.0, 3.0]]


@pytest.mark.parametrize("z", [[0.7, -1.2, 0.4], [0.7, 0.0, 0.4], [0.0, 0.0, 1.0]])
def test_cumulative_product_sums_to_the_value(z):
    function = lambda x: (with_halves(x) + 0.5).relu().mul_(2).cumprod(dim=-1) * x
    value, remainder, contributions = carry(function, z)
    x = torch.tensor([z], dtype=torch.float64)
    torch.testing.assert_close(value, (((x + 0.5).relu() * 2).cumprod(1) * x)[0])
    torch.testing.assert_close(contributions.sum(0) + remainder, value)


def with_halves(carried):
    """The same with products shared among their factors."""
    carried.halves = True
    return carried


def test_max_pool_selects_the_remainder_of_the_maximum():
    value = torch.tensor([[[[1.0, 9.0], [3.0, 4.0]]]])
    remainder = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]]])
    pooled, picked = max_pool("max_pool2d", value, remainder, (2,), {"return_indices": False})
    assert (pooled.item(), picked.item()) == (9.0, 20.0)


@pytest.mark.parametrize("name", ["max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"])
def test_max_pool_equals_torch(name):
    dims = int(name[-2])
    value = torch.rand(2, 3, *[5, 4, 6][:dims])
    pooled, picked = max_pool(name, value, value * 2, (2,), {})
    assert torch.equal(pooled, getattr(F, name)(value, 2))
    assert torch.equal(picked, pooled * 2)


def test_slopes_by_hand():
    z = torch.tensor([3.0, 0.0, -2.0])
    assert tangent_slope(torch.square, z).tolist() == [6.0, 0.0, -4.0]
    at_z, slope, at_zero = secant_slope(lambda x: (x + 1) ** 2, z)  # (16 - 1) / 3, the limit 2, (1 - 1) / -2
    assert (at_z.tolist(), slope.tolist(), at_zero.tolist()) == ([16.0, 1.0, 1.0], [5.0, 2.0, 0.0], [1.0])


def test_in_place_functions_do_not_change_z():
    z = torch.tensor([-1.0, 2.0])
    for call in (tangent_slope, secant_slope):
        call(torch.relu_, z)
    assert z.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype(dtype):
    assert all(t.dtype == dtype for t in secant_slope(torch.sigmoid, torch.tensor([0.5, 0.0], dtype=dtype)))


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
    made = function(name)(secant_tensor.start(leaf), *cast(options, z.dtype))
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
def test_slopes_in_float32_equal_float64(name, options):
    magnitudes = torch.logspace(-44, 1, 400)  # from denormal numbers on
    z = torch.cat([-magnitudes, magnitudes])
    sigma = lambda x: function(name)(x, *cast(options, x.dtype))
    expected = by_float64(name, sigma, z)
    z, expected = (t[torch.isfinite(expected)] for t in (z, expected))
    largest = expected[z.abs() > 1e-3].abs().max()
    wrong = (slope(name, options, z) - expected).abs() - 1e-4 * expected.abs() - 1e-6 * largest
    assert bool((wrong <= 0).all()), f"at z = {float(z[wrong.argmax()])}"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_slope_at_zero_is_the_derivative(name, options):
    leaf = torch.zeros(1, requires_grad=True)
    (expected,) = torch.autograd.grad(function(name)(leaf.clone(), *options).sum(), leaf)
    assert float(slope(name, options, torch.zeros(1))) == pytest.approx(float(expected) if expected.isfinite() else 0.0)


@pytest.mark.parametrize("name", ["sigmoid", "logsigmoid", "softplus", "exp", "exp2", "cosh", "erfc", "hardsigmoid"])
def test_difference_of_monotonic_functions(name):
    z = torch.linspace(-30, 30, 241, dtype=torch.float64)
    expected = function(name)(z) - function(name)(torch.zeros_like(z))
    torch.testing.assert_close(difference(name, (), {})(z), expected, atol=1e-12, rtol=1e-12)


def test_difference_of_other_functions():
    z = torch.linspace(-1, 1, 241, dtype=torch.float64)
    for name in ("cos", "acos", "sinc"):
        expected = function(name)(z) - function(name)(torch.zeros_like(z))
        torch.testing.assert_close(difference(name, (), {})(z), expected, atol=1e-9, rtol=1e-9)


def test_differences_by_hand():
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
    result = NeuronCanvas(net.float(), "0", rule="secant").attribute(inputs)
    # z itself is rounded to 6e-8 of 1, so that slopes of a z beside it are as right
    assert float((result - exact).abs().max() / exact.abs().max()) < 1e-4
    torch.testing.assert_close(result.sum(1), net(inputs).detach(), atol=1e-5, rtol=1e-5)


def test_product_by_hand():
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)
    value, remainder = product([a, b], [torch.tensor([1.0]), torch.tensor([0.5])])
    assert value.item() == 10.0
    assert remainder.item() == (1.0 * 5 + 2 * 0.5) / 2
    assert [g.item() for g in torch.autograd.grad(value, [a, b])] == [2.5, 1.0]


@pytest.mark.parametrize("dim", [1, -1, 0])
@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_factors_of_a_cumulative_product_get_equal_parts(dim, zeros):
    z = torch.rand(4, 5, dtype=torch.float64) + 0.1
    z.view(-1)[[3, 11][:zeros]] = 0.0
    remainder = torch.rand(4, 5, dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    value, moved = cumulative_product(leaf, remainder, dim)
    torch.testing.assert_close(value, z.cumprod(dim))
    n = z.shape[dim]
    lines, rest = z.movedim(dim, -1), remainder.movedim(dim, -1)
    result, found_remainder = value.movedim(dim, -1), moved.movedim(dim, -1)
    for i in range(n):
        expected = torch.zeros_like(lines)
        for j in range(i + 1):
            others = [k for k in range(i + 1) if k != j]
            expected[..., j] = lines[..., others].prod(-1) / (i + 1)
        (slope,) = torch.autograd.grad(result[..., i].sum(), leaf, retain_graph=True)
        torch.testing.assert_close(slope.movedim(dim, -1), expected)
        torch.testing.assert_close(found_remainder[..., i], (expected * rest).sum(-1))


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
