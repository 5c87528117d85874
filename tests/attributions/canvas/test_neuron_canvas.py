"""NeuronCanvas, and canvases() of several layers against those of one layer at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import Ablation, LayerError, NeuronCanvas, Secant
from xinc_captum.attributions import FrameCanvas, canvases
from xinc_captum.inr import FourierMLP, Siren, coordinates, ray_samples, ray_weights

RULES = ["tangent", "secant", "ablation", Ablation("mean"), Ablation("resample")]


@given(
    rule=st.sampled_from(RULES),
    rows=st.integers(2, 40),
    budget=st.integers(1, 60_000),
    per_eval=st.integers(1, 7),
    layers=st.integers(2, 4),
)
def test_result_does_not_depend_on_the_budget(rule, rows, budget, per_eval, layers):
    model = FourierMLP(hidden=5, layers=layers, seed=0)
    x = torch.rand(rows, 2, generator=torch.Generator().manual_seed(rows))
    canvas = NeuronCanvas(model, "activation1", rule=rule)
    small = canvas.attribute(x, memory_budget=budget, perturbations_per_eval=per_eval)
    torch.testing.assert_close(small, canvas.attribute(x), atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_inputs_of_any_dimension_and_channels(dims, channels):
    size = (4, 3, 2)[:dims]
    for model in (
        FourierMLP(dims, channels, hidden=6, layers=4, encoding="nerf", features=3, activation="tanh"),
        Siren(dims, channels, hidden=6, layers=3),
    ):
        x = coordinates(size)
        contributions = NeuronCanvas(model, "activation2", rule="secant").attribute(x)
        assert contributions.shape == (len(x), 7, channels)
        torch.testing.assert_close(contributions.sum(1), model(x).detach(), atol=1e-5, rtol=1e-4)


def test_coordinates_off_the_training_grid():
    model = FourierMLP(hidden=5)
    canvas = NeuronCanvas(model, "activation1")
    coarse = canvas.canvas(coordinates((5, 5)), (5, 5)).to_tensor()
    fine = canvas.canvas(coordinates((9, 9)), (9, 9)).to_tensor()
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, atol=1e-6, rtol=1e-4)


def test_targets_select_output_dimensions():
    model, x = FourierMLP(hidden=5), torch.rand(4, 2)
    canvas = NeuronCanvas(model, "activation1")
    full = canvas.attribute(x)
    assert torch.allclose(canvas.attribute(x, target=1), full[..., 1], atol=1e-6)
    per_row = canvas.attribute(x, target=[0, 1, 2, 0])
    assert torch.allclose(per_row, torch.stack([full[i, :, c] for i, c in enumerate([0, 1, 2, 0])]), atol=1e-6)


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_pairs_sum_to_neurons(rule):
    model, x = FourierMLP(hidden=5, layers=4, activation="gelu"), torch.rand(4, 2)
    pairs = NeuronCanvas(model, "linear2", rule=rule, unit="pair").attribute(x, memory_budget=20_000)
    neurons = NeuronCanvas(model, "linear2", rule=rule).attribute(x, attribute_to_layer_input=True)
    if rule == "secant":
        assert pairs.shape == (4, 6, 5, 3)
        torch.testing.assert_close(pairs.sum((1, 2)), model(x).detach(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(pairs.sum(2), neurons, atol=1e-5, rtol=1e-3)
    elif rule == "tangent":
        torch.testing.assert_close(pairs.sum(2), neurons, atol=1e-5, rtol=1e-3)
    else:
        z = model[:4](x)
        changed = z.clone()
        changed[:, 2] -= model.linear2.weight[2, 1] * model[:3](x)[:, 1]
        by_hand = model[4:](z) - model[4:](changed)
        torch.testing.assert_close(pairs[:, 1, 2], by_hand.detach(), atol=1e-6, rtol=1e-4)


def test_convergence_delta_of_every_rule():
    model, x = FourierMLP(hidden=5), torch.rand(4, 2)
    for rule in RULES[:4]:
        answer, delta = NeuronCanvas(model, "activation2", rule=rule).attribute(x, return_convergence_delta=True)
        assert delta.shape == (4,)
        assert delta.abs().max() < 1e-5, "the tail of the last layer is linear: every rule is complete there"
        assert answer.shape[0] == 4


def test_progress_prints_nothing_without_a_terminal(capsys):
    NeuronCanvas(FourierMLP(hidden=4), "activation1").attribute(torch.rand(4, 2), show_progress=True)
    assert capsys.readouterr().err == ""


def test_invalid_arguments_raise():
    model, x = FourierMLP(hidden=5), torch.rand(6, 2)
    canvas = NeuronCanvas(model, "activation1")
    for call, error, text in [
        (lambda: NeuronCanvas(model, "activation1", unit="edge"), ValueError, "unit is 'edge'; expected \"neuron\" or"),
        (lambda: canvas.attribute(x, neuron_selector=5), IndexError, r"neuron_selector 5 is out of range.*\[-5, 4\]"),
        (
            lambda: canvas.attribute(x, neuron_selector=0, return_convergence_delta=True),
            ValueError,
            "neuron_selector=None",
        ),
        (lambda: canvas.attribute(x, memory_budget=0), ValueError, "memory_budget is 0; expected a positive number"),
        (lambda: canvas.attribute(x, perturbations_per_eval=0), ValueError, "perturbations_per_eval is 0"),
        (lambda: canvas.canvas(x, (2, 2)), ValueError, r"size=\(2, 2\) has 4 pixels, but the inputs have 6 rows"),
        (lambda: NeuronCanvas(model, "activation1", unit="pair").attribute(x), LayerError, "is a ReLU; pairs"),
        (
            lambda: NeuronCanvas(model, "linear2", unit="pair").canvas(x, (2, 3)),
            ValueError,
            'unit="pair" needs rows that are frames',
        ),
    ]:
        with pytest.raises(error, match=text):
            call()
    pairs = NeuronCanvas(model, "linear2", unit="pair")
    with pytest.raises(IndexError, match=r"\(5, 0\) is out of range: the layer has 5 inputs and 5 outputs"):
        pairs.attribute(x, neuron_selector=(5, 0))
    with pytest.raises(TypeError, match=r"expected a tuple \(in, out\)"):
        pairs.attribute(x, neuron_selector=3)


def test_layer_without_gradients_to_the_output_raises():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(2, 3), nn.Linear(2, 1)

        def forward(self, x):
            self.first(x)
            return self.last(x)

    with pytest.raises(LayerError, match="the output does not depend on layer 'first'"):
        NeuronCanvas(Cut(), "first").attribute(torch.rand(2, 2))


def test_integer_inputs():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    tokens = torch.tensor([[0, 1], [2, 3], [4, 0]])
    contributions = NeuronCanvas(model, "1", rule="secant").attribute(tokens)
    torch.testing.assert_close(contributions.sum(1), model(tokens).detach())


@pytest.mark.parametrize("broken", ["input", "weight", "later weight"])
def test_nan_raises(broken):
    model, x = FourierMLP(hidden=5), coordinates((2, 3))
    with torch.no_grad():
        if broken == "input":
            x[3, 0] = float("inf")
        elif broken == "weight":
            model.linear2.weight[0, 0] = float("nan")
        else:
            model.output.weight[0, 0] = float("nan")
    texts = {
        "input": "input 0 holds 1 NaN or infinite",
        "weight": "parameter 'weight' holds NaN",
        "later weight": "first pixel",
    }
    layer = "linear2" if broken == "weight" else "activation1"
    with pytest.raises(ValueError, match=texts[broken]):
        NeuronCanvas(model, layer).canvas(x, (2, 3))


def test_convergence_delta_before_an_in_place_operation():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    for rule in RULES[:4]:
        _, delta = NeuronCanvas(model, "0", rule=rule).attribute(torch.rand(5, 3), return_convergence_delta=True)
        assert delta.shape == (5,)


def test_units_are_stacked_into_one_forward_pass():
    model, calls = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 200)), []
    model.register_forward_hook(lambda _m, _a, output: calls.append(len(output)))
    NeuronCanvas(model, "1", rule="ablation").attribute(torch.rand(2, 8))
    assert max(calls) == 128, "64 units of 2 rows in one forward"
    calls.clear()
    NeuronCanvas(model, "1", rule="ablation").attribute(torch.rand(2, 8), perturbations_per_eval=3)
    assert max(calls) == 6


def test_batch_norm_in_training_mode_prevents_chunks_and_stacking():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 30))
    x = torch.rand(6, 3)
    with pytest.warns(UserWarning, match="training mode"):
        contributions = NeuronCanvas(model, "0", rule="ablation").attribute(x)
        alone = NeuronCanvas(model, "0", rule="ablation").attribute(x, perturbations_per_eval=1)
    torch.testing.assert_close(contributions, alone)


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_totals_of_half_precision_do_not_overflow(rule):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).half()
    with torch.no_grad():
        model[2].weight.fill_(100.0)
        model[0].bias.fill_(5.0)
    x = coordinates((64, 64), dtype=torch.float16)
    totals = NeuronCanvas(model, "1", rule=rule).canvas(x, (64, 64)).totals()
    assert totals.dtype == torch.float32
    assert torch.isfinite(totals).all()
    assert totals.max() > 1e6


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_frames_do_not_depend_on_the_budget(decoder, rule, unit):
    model, t = decoder
    canvas = NeuronCanvas(model, "blocks.0.0", rule=rule, unit=unit)
    torch.testing.assert_close(canvas.attribute(t, memory_budget=20_000), canvas.attribute(t), atol=1e-12, rtol=1e-9)


SIZE = (5, 6)


class Counted(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.counts = model, [0]  # an attribute would be restored after each explanation

    def forward(self, x):
        self.counts[0] += len(x)
        return self.model(x)


def compare_with_single_canvases(model, layers, x, size, ask, **kwargs):
    counted = Counted(model)
    own = {k: kwargs.pop(k) for k in ("rule", "unit", "render") if k in kwargs}
    alone = {n: ask(NeuronCanvas(counted, n, **own).canvas(x, size, **kwargs)) for n in layers}
    rows, counted.counts[0] = counted.counts[0], 0
    together = {n: ask(c) for n, c in canvases(counted, layers, x, size, **own, **kwargs).items()}
    assert list(together) == layers
    for name in layers:
        torch.testing.assert_close(together[name], alone[name], atol=1e-12, rtol=1e-9)
    return rows, counted.counts[0]


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize(
    "model", [FourierMLP(hidden=6, seed=0), Siren(hidden=6, layers=4, seed=0)], ids=["relu", "sine"]
)
def test_canvases_of_images_equal_single_canvases(rule, model):
    layers = ["model.activation2", "model.activation1", "model.linear2"]
    x = coordinates(SIZE, dtype=torch.float64)
    alone, together = compare_with_single_canvases(model.double(), layers, x, SIZE, lambda c: c.to_tensor(), rule=rule)
    if rule != "ablation":
        assert together <= alone - 2 * len(x), "30 rows run once instead of three times"


@pytest.mark.parametrize("rule", ["tangent", "secant", "xinc"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_canvases_of_frames_equal_single_canvases(decoder, rule, unit):
    if rule == "xinc" and unit == "neuron":
        return
    model, t = decoder
    layers = ["model.blocks.0.0", "model.head", "model.blocks.1.0"]
    kwargs = {"rule": rule, "unit": unit, "attribute_to_layer_input": rule == "xinc"}
    alone, together = compare_with_single_canvases(model, layers, t, (8, 12), lambda c: c.to_tensor(), **kwargs)
    if rule != "xinc":
        assert together <= alone - 2 * len(t)
    seen = canvases(model, [model.blocks[0][0], "head"], t, (8, 12), **kwargs)
    assert list(seen) == ["blocks.0.0", "head"] and all(isinstance(c, FrameCanvas) for c in seen.values())
    weights = torch.ones(1, 8, 12)
    own = NeuronCanvas(model, "head", rule=rule, unit=unit).canvas(t, (8, 12), attribute_to_layer_input=rule == "xinc")
    torch.testing.assert_close(seen["head"].regions(weights, signed=True), own.regions(weights, signed=True))


@pytest.mark.parametrize("budget", [None, 20_000])
def test_alternating_queries_of_two_layers(budget):
    model, x = FourierMLP(hidden=6, seed=0).double(), coordinates(SIZE, dtype=torch.float64)
    layers = ["activation1", "activation2"]
    seen = canvases(model, layers, x, SIZE, rule="secant", memory_budget=budget)
    for _ in range(2):
        for name in layers:
            full = NeuronCanvas(model, name, rule="secant").attribute(x)
            torch.testing.assert_close(seen[name].map(2), full[:, 2].T.reshape(3, *SIZE))
            torch.testing.assert_close(seen[name].map(6), full[:, 6].T.reshape(3, *SIZE))


def test_canvases_with_skips_and_in_place_operations():
    class Skip(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Linear(2, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 3))

        def forward(self, x):
            h = torch.relu_(self.a(x))
            return self.c(torch.sin(self.b(h)).add_(h))

    x = coordinates(SIZE, dtype=torch.float64)
    for rule in ("tangent", "secant"):
        compare_with_single_canvases(
            Skip().double(), ["model.a", "model.b"], x, SIZE, lambda c: c.to_tensor(), rule=rule
        )


def test_canvases_with_fewer_units_than_channels():
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Tanh(), torch.nn.Linear(1, 5)).double()
    x = coordinates(SIZE, dtype=torch.float64)
    compare_with_single_canvases(model, ["model.0", "model.1"], x, SIZE, lambda c: c.to_tensor(), rule="secant")


def test_canvases_of_rendered_fields():
    points = ray_samples(SIZE, 4, dtype=torch.float64)
    render = lambda seen, _points: (ray_weights(seen[..., :1] ** 2, 0.5) * seen[..., 1:]).sum(1)
    field = Siren(3, 4, hidden=6, layers=3, seed=0).double()
    layers = ["model.activation1", "model.activation2"]
    kwargs = {"rule": Secant(products="halves"), "render": render}
    alone, together = compare_with_single_canvases(field, layers, points, SIZE, lambda c: c.totals(), **kwargs)
    assert together < alone


def test_canvases_share_one_copy_of_the_parameters():
    model = FourierMLP(hidden=6, seed=0)
    names = ["activation1", "activation2"]
    first, second = canvases(model, names, coordinates(SIZE), SIZE).values()
    assert (first.layer, second.layer) == ("activation1", "activation2")
    before = second.totals()
    torch.testing.assert_close(before, NeuronCanvas(model, "activation2").canvas(coordinates(SIZE), SIZE).totals())
    nn.init.zeros_(model.output.weight)
    torch.testing.assert_close(second.totals(), before, atol=0, rtol=0)


def test_canvases_invalid_arguments_raise(found):
    model, x = FourierMLP(hidden=5), coordinates(SIZE)
    state = found(model)
    for layers, error, text in [
        ([], ValueError, r"layers are \[\]; expected at least one"),
        (["linear1", model.linear1], ValueError, "each only once"),
        (["linear1", "linear9"], LayerError, "'linear9' is not in the model"),
    ]:
        with pytest.raises(error, match=text):
            canvases(model, layers, x, SIZE)
    canvases(model, ["linear1", "linear2"], x, SIZE)["linear2"].totals()
    assert state.differences(model) == []
