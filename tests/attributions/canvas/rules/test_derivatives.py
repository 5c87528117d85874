"""Contributions by backward passes, by every kind of JVP, and by passes shared between layers."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradientXActivation
from torch import nn

from xinc_captum import LayerError, NeuronCanvas
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.chain import trace
from xinc_captum.attributions.canvas.rules.derivatives import (
    JVP,
    LinearizedTail,
    NoForwardModeError,
    SharedPass,
    backward_contributions,
    gradients,
    layer_activation,
    no_gradient_error,
    run,
)
from xinc_captum.attributions.canvas.rules.rules import SECANT, TANGENT
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP


def test_run_by_hand(hand_net):
    """x=(2,1) → a=(3,4) → y=(18, 7); ∂y/∂a = ((5, −1), (0, 2)), so c = ((15, −4), (0, 8)) and the biases are left."""
    net, x = hand_net
    tail, batch = Tail(net, net[1]), Batch.of(x)
    assert layer_activation(tail, batch).tolist() == [[3.0, 4.0]]
    tail_run = run(tail, batch, TANGENT)
    assert tail_run.activation.is_leaf and tail_run.activation.tolist() == [[3.0, 4.0]]
    assert tail_run.output.tolist() == [[18.0, 7.0]] and tail_run.remainder is None and not tail_run.switches_gradients
    contributions = backward_contributions(tail, tail_run.activation, tail_run.output, None)
    assert contributions.tolist() == [[[15.0, 0.0], [-4.0, 8.0]]], "(rows, units, outputs)"
    secant = run(tail, batch, SECANT)
    assert secant.output.tolist() == [[18.0, 7.0]] and secant.remainder.tolist() == [[7.0, -1.0]]


def test_backward_contributions_select_units_and_keep_the_output_shape(hand_net):
    net, x = hand_net
    tail = Tail(net, net[1], output_fn=lambda y: y.view(-1, 2, 1))
    tail_run = run(tail, Batch.of(x), TANGENT)
    assert backward_contributions(tail, tail_run.activation, tail_run.output, [1]).tolist() == [[[[-4.0], [8.0]]]]
    one = Tail(net, net[1])
    tail_run = run(one, Batch.of(x, target=1), TANGENT)
    assert backward_contributions(one, tail_run.activation, tail_run.output, None).tolist() == [[0.0, 8.0]], (
        "one output has no dim"
    )


def test_gradients_free_the_graph_unless_keep_is_set(hand_net):
    net, x = hand_net
    tail = Tail(net, net[1])
    for keep in (True, False):
        tail_run = run(tail, Batch.of(x * 1.5), TANGENT)
        flat = tail_run.output.square()
        assert len(list(gradients(tail, tail_run.activation, flat, keep=keep))) == 2
        if keep:
            assert len(list(gradients(tail, tail_run.activation, flat))) == 2
        else:
            with pytest.raises(RuntimeError, match="second time"):
                list(gradients(tail, tail_run.activation, flat))


def test_run_reports_switched_gradients():
    class Switching(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            with torch.no_grad():
                gate = torch.sigmoid(self.first(x))
            return self.second(x) * gate

    model = Switching()
    assert run(Tail(model, model.second), Batch.of(torch.rand(3, 2)), TANGENT).switches_gradients


def test_layer_without_effect_raises():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aside = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            self.aside(x)
            return self.used(x)

    model = Aside().requires_grad_(False)
    tail = Tail(model, model.aside)
    text = r"the output does not depend on layer 'aside' \(no gradient flows between them\); choose a layer that leads"
    with pytest.raises(LayerError, match=text):
        run(tail, Batch.of(torch.rand(3, 2)), TANGENT)
    assert "'aside'" in str(no_gradient_error(tail))


def test_forward_mode_equals_backward_mode():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3), nn.Sigmoid())
    x = torch.rand(2, 2, 6, 7)
    for rule in ("tangent", "secant"):
        canvas = NeuronCanvas(model, "1", rule=rule)
        full = canvas.attribute(x)  # (2, 3 or 4, 2, 4, 5): many outputs, few units
        for pixel in ((0, 1, 2), (1, 3, 4)):
            one = canvas.attribute(x, target=pixel)  # one output: backward
            assert torch.allclose(full[(slice(None), slice(None), *pixel)], one, atol=1e-6)


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
def test_no_grad_block_stops_both_modes(outputs):
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
def test_frames_by_every_method(operation):
    model, x = Residual(operation), torch.rand(2, 1, 4, 5)
    contributions = NeuronCanvas(model, "first").attribute(x)
    for pixel in ((0, 1, 2), (1, 3, 4)):
        (gradient,) = torch.autograd.grad(
            operation((h := model.first(x).detach().requires_grad_()) + model.second(torch.tanh(h)))[:, *pixel].sum(), h
        )
        expected = (gradient * h.detach()).sum((2, 3))
        torch.testing.assert_close(contributions[:, :, *pixel], expected, atol=1e-6, rtol=1e-5)


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
def test_jvp_by_every_method(cube, quick):
    net, x = Net(cube).double(), torch.rand(2, 1, 4, 5, dtype=torch.float64)
    tail, batch = Tail(net, net.first), Batch.of(x)
    jvp, a = JVP(tail, batch, TANGENT, run(tail, batch, TANGENT)), net.first(x).detach()
    parts = torch.rand(3, *a.shape, dtype=torch.float64)
    expected = torch.stack([torch.func.jvp(lambda z: net.second(z**3), (a,), (part,))[1] for part in parts])
    torch.testing.assert_close(jvp(parts), expected.detach())
    if not quick:
        with pytest.raises(NoForwardModeError):
            jvp.forward_only(parts)


@pytest.mark.parametrize("derivative", [TANGENT, SECANT], ids=["tangent", "secant"])
def test_shared_pass_has_the_gradients_of_a_single_pass(derivative):
    model, x = FourierMLP(hidden=5, activation="gelu", seed=0).double(), torch.rand(4, 2, dtype=torch.float64)
    tails, batch = [Tail(model, model.activation2), Tail(model, model.linear1, True)], Batch.of(x)
    together = SharedPass(tails)
    for tail in tails:
        shared, alone = together.run(tail, batch, derivative), run(tail, batch, derivative)
        torch.testing.assert_close(shared.activation, alone.activation)
        gradients = [
            torch.autograd.grad(r.output[:, 1].sum(), r.activation, retain_graph=True)[0] for r in (shared, alone)
        ]
        torch.testing.assert_close(*gradients, atol=1e-14, rtol=1e-12)


def test_shared_pass_keeps_the_last_rows_only():
    calls, model = [], FourierMLP(hidden=5, seed=0)
    model.register_forward_hook(lambda *_: calls.append(1))
    tails, batch = [Tail(model, model.activation1), Tail(model, model.activation2)], Batch.of(torch.rand(6, 2))
    together = SharedPass(tails)
    for first, last, runs in ((0, 3, 1), (3, 6, 2), (0, 3, 3)):
        for tail in tails:
            together.run(tail, batch.cut(first, last), TANGENT)
        assert len(calls) == runs
    together.run(tails[0], batch.cut(0, 3), SECANT)
    assert len(calls) == 4, "another slope is another run"


def test_shared_chains_equal_single_chains(decoder):
    model, t = decoder
    tails, batch = [Tail(model, model.blocks[1][0]), Tail(model, model.blocks[0])], Batch.of(t)
    together = SharedPass(tails)
    for tail in tails:
        shared, alone = together.trace(tail, batch), trace(tail, batch)
        assert [s.name for s in shared.steps] == [s.name for s in alone.steps]
        torch.testing.assert_close(shared.activation, alone.activation)
        torch.testing.assert_close(shared.output, alone.output)


def test_layer_off_the_chain_has_no_shared_trace():
    class Beside(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)

        def forward(self, x):
            return torch.tanh(self.main(x)) + self.side(x)

    model, batch = Beside(), Batch.of(torch.rand(4, 2))
    tails = [Tail(model, model.main), Tail(model, model.side)]
    together = SharedPass(tails)
    assert together.trace(tails[1], batch) is None
    assert together.trace(tails[0], batch) is not None
    shared, alone = together.run(tails[1], batch, TANGENT), run(tails[1], batch, TANGENT)
    torch.testing.assert_close(shared.output, alone.output)


def test_output_without_gradients_raises():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    cut = lambda x: model(x).detach()
    tail = Tail(cut, model[0])
    with pytest.raises(LayerError, match="the output does not depend on layer '0'"):
        SharedPass([tail]).run(tail, Batch.of(torch.rand(4, 2)), TANGENT)


class Skip(nn.Module):
    """No chain: the layer's output is used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        h = self.first(x)
        return self.last(F.gelu(h) + h)


def linearize(decoder, kind, derivative):
    if kind == "chain":
        model, x = decoder
        layer = model.blocks[0][0]
    else:
        torch.manual_seed(2)
        model, x = Skip().double(), torch.rand(3, 2, 4, 5, dtype=torch.float64)
        layer = model.first
    one = LinearizedTail(Tail(model, layer), Batch.of(x), derivative, per_eval=2)
    assert (one._chain is None) is (kind == "skip")
    return one, model(x).detach()


@pytest.mark.parametrize("kind", ["chain", "skip"])
@pytest.mark.parametrize("derivative", [TANGENT, SECANT], ids=["tangent", "secant"])
def test_vjp_is_the_transpose_of_jvp(decoder, kind, derivative):
    one, output = linearize(decoder, kind, derivative)
    torch.testing.assert_close(one.output, output)
    weights = torch.rand(2, *output.shape, dtype=torch.float64)
    pulled = one.vjp(weights)
    assert pulled.shape == (2, *one.activation.shape)
    parts = torch.rand(3, 5, *one.activation.shape[2:], dtype=torch.float64)
    pushed = one.jvp(parts, 1)
    assert pushed.shape == (3, 5, *one.output_shape)
    left = torch.einsum("nrchw,rkchw->nrk", weights, pushed)
    torch.testing.assert_close(left, torch.einsum("nrhw,rkhw->nrk", pulled[:, :, 1], parts))


@pytest.mark.parametrize("kind", ["chain", "skip"])
@pytest.mark.parametrize("derivative", [TANGENT, SECANT], ids=["tangent", "secant"])
def test_jvp_of_all_channels_is_the_sum_over_channels(decoder, kind, derivative):
    one, output = linearize(decoder, kind, derivative)
    a = one.activation
    alone = torch.stack([one.jvp(a[:, u : u + 1], u)[:, 0] for u in range(a.shape[1])])
    torch.testing.assert_close(one.jvp_all(a), alone.sum(0))
    if derivative is SECANT:
        torch.testing.assert_close(alone.sum(0) + one.remainder, output)
    else:
        assert one.remainder is None
