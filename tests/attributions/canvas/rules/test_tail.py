"""The model after a layer, rendered fields, gradient modes, and chunk sizes for a memory budget."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import Ablation, CarryError, LayerContribution, LayerError, NeuronCanvas, Secant
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.tail import GradModes, compose_renderer, in_no_grad_block, measure
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP, ray_samples, ray_weights


def test_activation_and_output_of_one_run(net):
    x = torch.rand(3, 2)
    activation, output = Tail(net, net[1]).run(Batch.of(x))
    assert torch.equal(activation, net[:2](x))
    assert torch.equal(output, net(x))


def test_an_edit_changes_the_output(net):
    x = torch.rand(3, 2)
    edited = Tail(net, net[4], at_input=True).output_with(Batch.of(x), torch.zeros_like)
    torch.testing.assert_close(edited, net[4].bias.expand(3, -1))


def test_a_tuple_of_tensors_is_no_single_activation():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    model = nn.Sequential(Two())
    with pytest.raises(LayerError, match="layer '0' returns 2 floating-point tensors; expected one"):
        Tail(model, model[0], output_fn=lambda pair: pair[0]).run(Batch.of(torch.rand(3, 2)))


class Attention(nn.Module):
    """Hands over a tuple of one, as transformer blocks do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return (self.linear(x),)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = Attention(), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(x + self.attention(x)[0])


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_layer_that_returns_a_tuple_of_one(rule):
    model, x = Block(), torch.rand(5, 4)
    ours = NeuronCanvas(model, "attention", rule=rule).attribute(x, target=0)[:, :4]
    theirs = LayerContribution(model, "attention").attribute(x, target=0)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("outputs", [3, 20])
def test_folded_rows_raise(outputs):
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.out = nn.Linear(4, 6), nn.Linear(6, outputs)

        def forward(self, x):
            b, t, d = x.shape
            return self.out(self.linear(x.reshape(b * t, d)).reshape(b, t, -1).mean(1))

    with pytest.raises(
        LayerError, match=r"layer 'linear' returns shape \((28|35), 6\) for (4|5) input rows; expected rows first"
    ):
        NeuronCanvas(Folded(), "linear").attribute(torch.rand(5, 7, 4))


SPACING = 0.4
LAYERS = ("0", "1", "2", "3")


def radiance(outputs, points):
    """Density and colour to a picture."""
    return (ray_weights(F.softplus(outputs[..., :1]), SPACING) * torch.sigmoid(outputs[..., 1:])).sum(1)


def with_fixed_weights(outputs, points):
    """The same with the weights held fast: colour alone is linear in what the samples say."""
    return (ray_weights(F.softplus(outputs[..., :1]).detach(), SPACING) * torch.sigmoid(outputs[..., 1:])).sum(1)


def surface(outputs, points):
    """A signed distance to the depth at which a ray meets the surface, and how much of it does."""
    weights = ray_weights(10 * torch.sigmoid(-8 * outputs), SPACING)
    return torch.cat([(weights * points[..., 2:]).sum(1), weights.sum(1)], -1)


def alpha_compositing(outputs, points):
    """Alpha compositing as most renderers write it: a cumulative product of what each sample lets through."""
    density, colour = torch.relu(outputs[..., 0] + 1), torch.sigmoid(outputs[..., 1:])
    gaps = torch.cat([points[:, 1:, 2] - points[:, :-1, 2], torch.full_like(points[:, :1, 2], 1e10)], -1)
    alpha = 1.0 - torch.exp(-density * gaps)
    through = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1.0 - alpha + 1e-10], -1), -1)[:, :-1]
    weights = alpha * through
    seen = torch.zeros_like(colour[:, 0]) + torch.sum(weights[..., None] * colour, -2)
    return seen + (1.0 - weights.sum(-1, keepdim=True))  # on white


def weights_without_gradients(outputs, points):
    """Colour alone is explained: where the samples count is computed without gradients."""
    with torch.no_grad():
        weights = ray_weights(F.softplus(outputs[..., :1]), SPACING)
        weights = torch.where(weights > 1e-4, weights, torch.zeros_like(weights))
    return (weights * torch.sigmoid(outputs[..., 1:])).sum(1)


def field(channels):
    torch.manual_seed(1)
    layers = nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, channels)
    return nn.Sequential(*layers).double(), ray_samples((3, 4), 5, dtype=torch.float64)


CASES = [(radiance, 4), (surface, 1), (alpha_compositing, 4), (weights_without_gradients, 4)]


@pytest.mark.parametrize(("render", "channels"), CASES)
@pytest.mark.parametrize("layer", LAYERS)
def test_tangent_sums_over_the_samples_of_a_ray(render, channels, layer):
    model, points = field(channels)
    contributions = NeuronCanvas(model, layer, render=render).attribute(points)
    at = int(layer) + 1
    activation = model[:at](points).detach().requires_grad_()  # every sample by hand, without this library's folding
    pixels = render(model[at:](activation.clone()), points)
    assert contributions.shape == (12, activation.shape[2], pixels.shape[1])
    for c in range(pixels.shape[1]):
        (gradient,) = torch.autograd.grad(pixels[:, c].sum(), activation, retain_graph=True)
        torch.testing.assert_close(
            contributions[..., c], (gradient * activation).sum(1).detach(), atol=1e-12, rtol=1e-9
        )


@pytest.mark.parametrize(("render", "channels"), CASES)
@pytest.mark.parametrize("layer", LAYERS)
def test_halved_products_sum_to_the_pixels(render, channels, layer):
    model, points = field(channels)
    contributions = NeuronCanvas(model, layer, rule=Secant(products="halves"), render=render).attribute(points)
    pixels = render(model(points), points).detach()
    assert (contributions.sum(1) - pixels).abs().max() <= 1e-12 * pixels.abs().max()
    assert contributions[:, :-1].abs().max() > 1e-3, "not all in the slot"


def test_detached_factor_is_fixed():
    model, points = field(4)
    contributions = NeuronCanvas(model, "3", rule="secant", render=with_fixed_weights).attribute(points)
    outputs = model(points).detach()
    weights = ray_weights(F.softplus(outputs[..., :1]), SPACING)
    logits = outputs[..., 1:]
    slope = weights * (torch.sigmoid(logits) - 0.5) / logits
    parts = model[:4](points)[..., :, None] * model[4].weight.T[:, 1:]  # (rays, samples, units, channels)
    by_hand = (parts * slope[:, :, None]).sum(1).detach()
    torch.testing.assert_close(contributions[:, :-1], by_hand, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(contributions.sum(1), with_fixed_weights(outputs, points), atol=1e-12, rtol=1e-9)


def test_linear_renderer():
    model, points = field(1)
    mean = lambda outputs, _points: outputs.mean(1)
    samples = NeuronCanvas(model, "3").attribute(points.flatten(0, 1))
    pixels = NeuronCanvas(model, "3", render=mean).attribute(points)
    torch.testing.assert_close(pixels, samples.unflatten(0, (12, 5)).mean(1))


def test_ablation_of_rendered_pixels():
    model, points = field(4)
    contributions = NeuronCanvas(model, "1", rule="ablation", render=radiance).attribute(points)
    hidden = model[:2](points).detach()
    for u in range(6):
        without = hidden.clone()
        without[..., u] = 0
        lost = radiance(model(points), points) - radiance(model[2:](without), points)
        torch.testing.assert_close(contributions[:, u], lost.detach(), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("rule", ["tangent", Secant(products="halves"), Ablation("mean")])
def test_rendered_result_does_not_depend_on_budget_or_selection(rule):
    model, points = field(4)
    method = NeuronCanvas(model, "1", rule=rule, render=radiance)
    full = method.attribute(points)
    torch.testing.assert_close(method.attribute(points, memory_budget=20_000), full, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(method.attribute(points, [4, 0]), full[:, [4, 0]], atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(method.attribute(points, 2, target=1), full[:, [2], 1], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("rule", ["tangent", Secant(products="halves"), "ablation"])
def test_canvas_of_a_rendered_image(rule, found):
    model, points = field(4)
    method, state = NeuronCanvas(model, "1", rule=rule, render=radiance), found(model)
    canvas = method.canvas(points, (3, 4))
    assert (canvas.units, canvas.channels) == (6, 3)
    torch.testing.assert_close(canvas.map(2), method.attribute(points, 2)[:, 0].T.reshape(3, 3, 4))
    assert canvas.totals().shape == (6 + canvas.slots, 3)
    assert state.differences(model) == []


def test_dict_outputs_further_inputs_and_output_fn():
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.density, self.colour = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(5, 3)

        def forward(self, points, time, gain):
            h = torch.relu(self.hidden(points))
            colour = self.colour(torch.cat([h, time], 1))
            return {"density": F.softplus(self.density(h)) * gain, "colour": colour}

    def render(outputs, points, time, gain):
        assert (points.shape[1:], time.shape[1:], gain) == ((5, 3), (5, 1), 2.0)
        weights = ray_weights(outputs["density"], SPACING)
        return {"rgb": (weights * outputs["colour"]).sum(1), "opacity": weights.sum(1)}

    model, points = Field().double(), ray_samples((2, 2), 5, dtype=torch.float64)
    time = torch.rand(4, 5, 1, dtype=torch.float64)
    picked = {"rule": Secant(products="halves"), "render": render, "output_fn": lambda seen: seen["rgb"]}
    method = NeuronCanvas(model, "hidden", **picked)
    contributions, delta = method.attribute((points, time), additional_forward_args=2.0, return_convergence_delta=True)
    assert contributions.shape == (4, 5, 3)
    assert delta.abs().max() < 1e-12


def test_renderer_module_is_restored(found):
    class Renderer(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(3, 3)

        def forward(self, outputs, points):
            return self.mix(radiance(outputs, points))

    model, points = field(4)
    renderer = Renderer().double()
    state = found(renderer)
    canvas = NeuronCanvas(model, "1", render=renderer).canvas(points, (3, 4))
    before = canvas.map(1)
    assert state.differences(renderer) == []
    with torch.no_grad():
        renderer.mix.weight.mul_(2)
    state = found(renderer)
    torch.testing.assert_close(canvas.map(1), before)
    assert state.differences(renderer) == []


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m, p: NeuronCanvas(m, "1", render="mean"), TypeError, "render is 'mean'; expected a function render"),
        (lambda m, p: NeuronCanvas(m, "2", render=radiance, unit="pair"), ValueError, "render= goes with unit=\"neu"),
        (lambda m, p: NeuronCanvas(m, "2", render=radiance, rule="xinc"), ValueError, "tangent, secant and ablation"),
        (
            lambda m, p: NeuronCanvas(m, "1", render=radiance).attribute(p[:, 0, 0]),
            ValueError,
            r"an input has shape \(4,\); with render= expected \(rays, samples, ...\)",
        ),
        (
            lambda m, p: NeuronCanvas(lambda x: m(x)[1:], m[1], render=radiance).attribute(p),
            ValueError,
            r"the field returned shape \(.*\) for 4 rays of 5 samples; expected 20 rows",
        ),
        (
            lambda m, p: NeuronCanvas(lambda x: m(x[:7]).sum() + x.new_zeros(len(x), 4), m[1], render=radiance).attribute(p),
            LayerError,
            "in front of the renderer",
        ),
        (
            lambda m, p: NeuronCanvas(m, "1", render=lambda a, x: radiance(a, x).sum(0)).attribute(p),
            ValueError,
            "expected one output row per input row",
        ),
        (
            lambda m, p: NeuronCanvas(m, "1", rule="secant", render=radiance).attribute(p),
            CarryError,
            r"both factors depend on the layer.*Secant\(products=\"halves\"\)",
        ),
    ],
)  # fmt: skip
def test_invalid_arguments_raise(call, error, text):
    model, points = field(4)
    with pytest.raises(error, match=text):
        call(model, points)


def test_compose_renderer_keeps_other_arguments():
    seen = []
    double = compose_renderer(lambda x, word: seen.append((x.shape, word)) or 2 * x, lambda a, x, word: a.sum((1, 2)))
    assert double(torch.ones(3, 4, 5), "word").tolist() == [40.0] * 3
    assert seen == [((12, 5), "word")]


def test_renderer_that_keeps_the_samples_raises():
    model, points = field(4)
    with pytest.raises(
        ValueError, match=r"render returned shape \(12, 5, 4\) for 12 rays of 5 samples; expected \(rays,\)"
    ):
        compose_renderer(model, lambda outputs, points: outputs)(points)


def rows(budget, hidden=16, units=16, count=1000):
    model = FourierMLP(hidden=hidden)
    return measure(Tail(model, model.activation1), Batch.of(torch.rand(count, 2))).max_rows(units, budget)


def test_max_rows_is_proportional_to_the_budget():
    small, large = rows(1 << 20), rows(1 << 23)
    assert 1 < small < large
    assert large / small == pytest.approx(8, rel=0.01)


def test_wider_networks_and_results_allow_fewer_rows():
    assert rows(1 << 20, hidden=64) < rows(1 << 20)
    assert rows(1 << 20, units=1600) < rows(1 << 20)


def test_max_rows_does_not_depend_on_the_number_of_rows():
    assert rows(1 << 20, count=1) == rows(1 << 20)
    assert rows(1) == 1
    with pytest.raises(ValueError, match="memory_budget is -1; expected a positive number of bytes"):
        rows(-1)


def test_large_budget_needs_one_measurement():
    model = FourierMLP(hidden=16)
    ran = []
    model.register_forward_hook(lambda *_: ran.append(1))
    look = measure(Tail(model, model.activation1), Batch.of(torch.rand(3, 2)))
    assert look.max_rows(16, None, enough=3) >= 3
    assert look.max_units(16, 3, None) == 16
    assert len(ran) == 1
    assert look.max_rows(16, 1 << 20) == rows(1 << 20)  # asked how many there could be, it looks again, once
    look.max_rows(16, 1 << 20)
    assert len(ran) == 2


@given(budget=st.integers(1 << 10, 1 << 24), count=st.integers(1, 64))
def test_enough_does_not_change_max_rows(budget, count):
    model = FourierMLP(hidden=16)
    look = measure(Tail(model, model.activation1), Batch.of(torch.rand(count, 2)))
    assert min(count, look.max_rows(16, budget, enough=count)) == min(count, look.max_rows(16, budget))


def test_chunk_fits_its_budget():
    model, budget = FourierMLP(hidden=32), 4 << 20
    tail = Tail(model, model.activation1)
    n = measure(tail, Batch.of(torch.rand(100, 2))).max_rows(32, budget)
    held = 0

    def note(t):
        nonlocal held
        held += t.nbytes
        return t.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        tail.run(Batch.of(torch.rand(n, 2)))
    weights = sum(p.nbytes for p in model.parameters()) * 2
    assert held - weights + 3 * n * 96 * 4 <= budget * 1.1


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.ELU, lambda: nn.Softmax(1)])
def test_measurement_frees_activations(activation):
    # These operations save their own output; a graph that holds the tensor itself would never be freed.
    model, seen = nn.Sequential(nn.Linear(2, 4), activation(), nn.Linear(4, 3)), []
    model[1].register_forward_hook(lambda _m, _a, output: seen.append(weakref.ref(output)))
    measure(Tail(model, model[0]), Batch.of(torch.rand(3, 2))).max_rows(4, 1000)
    gc.collect()
    assert len(seen) == 2 and not any(ref() is not None for ref in seen)


def test_measure_model_that_computes_gradients():
    field = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1))

    def slope(x):
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(field(x).sum(), x, create_graph=True)[0]

    points = torch.rand(3, 2)
    expected = slope(points)
    torch.testing.assert_close(measure(Tail(slope, field[1]), Batch.of(points)).output, expected.detach())


class Looks(torch.autograd.Function):
    seen = ()

    @staticmethod
    def forward(ctx, x):
        with torch.no_grad():
            inner = in_no_grad_block()
        Looks.seen = (torch.is_grad_enabled(), in_no_grad_block(), inner)
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def test_in_no_grad_block_follows_blocks():
    with GradModes() as modes:
        assert not in_no_grad_block() and not modes.toggled
        with torch.no_grad():
            assert in_no_grad_block() and modes.toggled
            with torch.enable_grad():
                assert not in_no_grad_block()
            with torch.no_grad():
                assert in_no_grad_block()
            assert in_no_grad_block()
        assert not in_no_grad_block()
        with torch.no_grad():
            pass
    assert not in_no_grad_block()


def test_custom_function_is_not_a_block():
    x = torch.ones(1, requires_grad=True)
    with GradModes():
        Looks.apply(x)
        assert Looks.seen == (False, False, False)
        with torch.no_grad():
            Looks.apply(x)
        assert Looks.seen == (False, True, True)


def test_exception_in_a_block_resets_the_state():
    try:
        with GradModes(), torch.no_grad():
            raise KeyError
    except KeyError:
        pass
    assert not in_no_grad_block()
    with torch.no_grad():
        assert not in_no_grad_block()  # known only inside of GradModes
