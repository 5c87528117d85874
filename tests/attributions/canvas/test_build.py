"""Building of lazy canvases, and their trust: correct canvases hold, wrong ones fail."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from xinc_captum import Ablation, LayerError, NeuronCanvas, Secant, Tangent
from xinc_captum.attributions import FrameCanvas, canvases, open_canvas
from xinc_captum.attributions.canvas.build import CanvasSpec, SiteCache, are_frames, build_canvas, check_finite
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.rules import plan_chunks
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP, Siren, coordinates, fit, ray_samples, ray_weights

SIZE = (4, 5)


def tail_and_batch(model, name, x):
    return Tail(model, model.get_submodule(name)), Batch.of(x)


def test_a_canvas_by_hand(hand_net):
    """x=(2,1) → a=(3,4): unit 0 paints 5·3 and 0·3, unit 1 paints −1·4 and 2·4."""
    net, x = hand_net
    canvas = build_canvas(
        CanvasSpec(Tangent(), *tail_and_batch(net, "1", x.repeat(6, 1)), (2, 3), False, nullcontext, layer="1")
    )
    assert (canvas.size, canvas.units, canvas.channels, canvas.slots) == ((2, 3), 2, 2, 0)
    assert (canvas.rule, canvas.layer) == ("Tangent()", "1")
    assert canvas.map(0).flatten(1).unique(dim=1).tolist() == [[15.0], [0.0]]
    assert canvas.map(1).flatten(1).unique(dim=1).tolist() == [[-4.0], [8.0]]
    remainder = build_canvas(
        CanvasSpec(Secant(), *tail_and_batch(net, "1", x.repeat(6, 1)), (2, 3), False, nullcontext)
    )
    assert remainder.slots == 1 and remainder.map(2)[:, 0, 0].tolist() == [7.0, -1.0], "the biases"


def test_rows_are_cut_to_the_budget():
    tail, batch = tail_and_batch(FourierMLP(hidden=6), "activation1", coordinates(SIZE))
    roomy, tight = (plan_chunks(Tangent(), tail, batch, False, budget, None) for budget in (None, 1))
    assert (roomy.max_rows, tight.max_rows) == (20, 1) and roomy.max_units >= tight.max_units == 1
    some = plan_chunks(Tangent(), tail, batch, False, 6000, 3)
    assert 1 < some.max_rows < 20 and some.max_units == 3
    assert some.footprint.activation.shape[1] == 6


@pytest.mark.parametrize("budget", [None, 1])
def test_batch_norm_in_training_mode_prevents_chunks_without_a_budget(budget):
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    chunk_plan = plan_chunks(Tangent(), *tail_and_batch(model, "0", coordinates(SIZE)), False, budget, None)
    assert chunk_plan.max_rows == (20 if budget is None else 1) and chunk_plan.max_units == 1


def test_rows_that_are_images_become_frames(decoder):
    model, t = decoder
    canvas = build_canvas(
        CanvasSpec(Tangent(), *tail_and_batch(model, "blocks.0", t), (8, 12), False, nullcontext, layer="blocks.0")
    )
    assert isinstance(canvas, FrameCanvas) and (canvas.frames, canvas.layer) == (3, "blocks.0")


@pytest.mark.parametrize(
    ("size", "pairs", "given", "error", "text"),
    [
        (
            (4, 6),
            False,
            {},
            ValueError,
            r"size=\(4, 6\) has 24 pixels, but the inputs have 20 rows.*which has shape \(3,\)",
        ),
        (
            SIZE,
            True,
            {},
            ValueError,
            r'unit="pair" needs rows that are frames, but each row of the output has shape \(3,\)',
        ),
        (SIZE, False, {"per_eval": 0}, ValueError, "perturbations_per_eval is 0; expected at least 1"),
        (SIZE, False, {"memory_budget": 0}, ValueError, "memory_budget is 0; expected a positive number of bytes"),
    ],
)
def test_invalid_arguments_raise(size, pairs, given, error, text):
    tail, batch = tail_and_batch(FourierMLP(hidden=6), "activation1", coordinates(SIZE))
    with pytest.raises(error, match=text):
        build_canvas(CanvasSpec(Tangent(), tail, batch, size, pairs, nullcontext, **given))


def test_frames_of_another_size_raise(decoder):
    model, t = decoder
    with pytest.raises(
        ValueError, match=r"size=\(9, 9\), but each row .* has shape \(3, 8, 12\), which ends in \(8, 12\)"
    ):
        build_canvas(CanvasSpec(Tangent(), *tail_and_batch(model, "blocks.0", t), (9, 9), False, nullcontext))


def test_inputs_that_are_not_finite_raise():
    x = coordinates(SIZE)
    x[3] = torch.inf
    with pytest.raises(ValueError, match="input 0 holds"):
        build_canvas(
            CanvasSpec(Tangent(), *tail_and_batch(FourierMLP(hidden=6), "activation1", x), SIZE, False, nullcontext)
        )
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 1))
    with pytest.raises(LayerError, match="does not depend on layer|never r"):
        model.forward = lambda x: model[1](x)
        build_canvas(CanvasSpec(Tangent(), *tail_and_batch(model, "0", coordinates(SIZE)), SIZE, False, nullcontext))


@pytest.mark.parametrize(
    ("left", "size", "rows", "frames"),
    [
        ((3, 8, 8), (8, 8), 64, True),
        ((8, 8), (8, 8), 2, True),
        ((3,), (8, 8), 64, False),
        ((3,), (3,), 3, False),
        ((1, 9), (9,), 9, True),
        ((9,), (9,), 2, True),
        ((), (4,), 4, False),
    ],
)
def test_are_frames(left, size, rows, frames):
    assert are_frames(left, size, rows) is frames


def test_site_cache_keeps_the_last_sites():
    opened = []
    sites = SiteCache(lambda first, last: opened.append((first, last)) or (first, last), max_sites=2)
    for first in (0, 1, 0, 2, 0, 1):
        sites(first, first + 1)
    assert opened == [(0, 1), (1, 2), (2, 3), (1, 2)]


@pytest.mark.parametrize("rule", ["tangent", "secant", "xinc"])
def test_repeated_maps_need_no_forward_pass(decoder, monkeypatch, rule):
    model, t = decoder
    method = NeuronCanvas(model, "blocks.0.0", unit="pair", rule=rule)
    canvas = method.canvas(t, (8, 12), attribute_to_layer_input=True)
    calls, output = [], Tail.output
    monkeypatch.setattr(Tail, "output", lambda self, batch: calls.append(1) or output(self, batch))
    canvas.map((0, 0), frame=1)
    assert calls, "the first map of a frame runs the network"
    calls.clear()
    canvas.map((1, 3), frame=1)
    assert calls == [], "what the frame needs is kept"


@pytest.mark.parametrize(
    ("size", "unit", "text"),
    [
        ((12, 8), "neuron", r"each row of the output has shape \(3, 8, 12\), which ends in \(8, 12\)"),
        ((12, 8), "pair", 'unit="pair" needs rows that are frames'),
    ],
)
def test_another_size_raises(decoder, size, unit, text):
    model, t = decoder
    with pytest.raises(ValueError, match=text):
        NeuronCanvas(model, "blocks.0.0", unit=unit).canvas(t, size)


def test_frames_of_nan_raise(decoder):
    model, t = decoder
    t[1] = float("nan")
    with pytest.raises(ValueError, match="input 0 holds 1 NaN"):
        NeuronCanvas(model, "blocks.0").canvas(t, (8, 12))
    assert torch.isnan(t[1])


def test_check_finite_names_the_tensor():
    layer, good, bad = nn.Linear(2, 2), torch.ones(2, 2), torch.tensor([[1.0, float("inf")], [0, 0]])
    check_finite(Batch.of(good), good, layer)
    with pytest.raises(ValueError, match="input 0 holds 1 NaN or infinite values"):
        check_finite(Batch.of(bad), good, layer)
    with pytest.raises(ValueError, match="the contributions of the first pixel"):
        check_finite(Batch.of(good), bad, layer)
    with torch.no_grad():
        layer.bias[0] = float("nan")
    with pytest.raises(ValueError, match="the layer's parameter 'bias' holds NaN"):
        check_finite(Batch.of(good), good, layer)


TRUST_SIZE = (12, 16)


@pytest.fixture(scope="module")
def fitted():
    model = FourierMLP(hidden=24, features=24, scale=2.0, activation="gelu", seed=0)
    picture = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 1)
    fit(model, picture.repeat_interleave(4, 2), steps=60, show_progress=False)
    return model


def make_canvas(model, rule="tangent", layer="activation1", **kwargs):
    return NeuronCanvas(model, layer, rule=rule, **kwargs).canvas(coordinates(TRUST_SIZE), TRUST_SIZE)


def shift_units(canvas):
    """Every unit shows the map of the one behind it."""

    def wrong(first, last, units):
        return canvas._shares(first, last, units if units is None else [(u + 1) % canvas.units for u in units])

    return replace(canvas, _shares=wrong)


@pytest.mark.parametrize("rule", ["tangent", "secant"])
def test_correct_canvases_hold_and_wrong_ones_fail(fitted, rule):
    canvas = make_canvas(fitted, rule)
    assert canvas.trust.verdict == "holds" and canvas.trust.agreement > 0.9
    exchanged = shift_units(canvas).trust
    assert exchanged.verdict == "fails" and abs(exchanged.agreement) < 0.3
    upside_down = replace(canvas, _shares=lambda *at: -canvas._shares(*at)).trust
    assert upside_down.verdict == "fails" and upside_down.agreement == -canvas.trust.agreement
    other = make_canvas(FourierMLP(hidden=24, features=24, scale=2.0, seed=1), rule)
    assert replace(canvas, _shares=other._shares).trust.verdict == "fails", "another network's canvas"


def test_secant_with_a_wrong_sum_fails(fitted):
    canvas = make_canvas(fitted, "secant")
    assert canvas.trust.gap < 1e-5 and "its parts add up" in canvas.trust.because
    half = replace(canvas, _shares=lambda *at: canvas._shares(*at) / 2).trust
    assert half.gap == pytest.approx(0.5, abs=1e-5) and half.because == "its parts miss the output by 0.5 of it"
    assert make_canvas(fitted).trust.gap is None, "tangents promise no sum"


def test_linear_tail_by_hand(hand_net):
    """Behind the last activation both are W · a: the orders are equal."""
    net, x = hand_net
    trust = NeuronCanvas(net, "1").canvas(x.repeat(4, 1) * torch.arange(1.0, 5)[:, None], (4,)).trust
    assert trust.agreement == 1.0 and trust.verdict == "holds"


def test_xinc_maps_before_the_last_layer_fail(fitted):
    canvas = NeuronCanvas(fitted, "linear2", rule="xinc").canvas(
        coordinates(TRUST_SIZE), TRUST_SIZE, attribute_to_layer_input=True
    )
    assert canvas.trust.verdict == "fails", "they use no later weight"


@pytest.mark.parametrize("unit", ["neuron", "pair"])
@pytest.mark.parametrize("rule", ["tangent", "secant"])
def test_trust_of_frames_and_pairs(decoder, unit, rule):
    model, t = decoder
    canvas = NeuronCanvas(model, "blocks.1.0", unit=unit, rule=rule).canvas(t, (8, 12))
    trust = canvas.trust
    assert trust.verdict == "holds"
    assert (trust.gap is None) is (rule == "tangent") and (trust.gap is None or trust.gap < 1e-12)
    if rule == "secant":
        shrunk = replace(canvas, _sums=lambda *at: canvas._sums(*at) / 2).trust
        assert shrunk.verdict == "fails" and shrunk.gap > 0.02


def test_trust_of_rendered_fields_and_shared_passes():
    render = lambda seen, _points: (ray_weights(seen[..., :1] ** 2, 0.5) * seen[..., 1:]).sum(1)
    field, points = Siren(3, 4, hidden=6, layers=3, seed=0).double(), ray_samples((5, 6), 4, dtype=torch.float64)
    rule, names = Secant(products="halves"), ["model.activation1", "model.activation2"]
    wrapped = torch.nn.Sequential()
    wrapped.model = field
    together = canvases(wrapped, names, points, (5, 6), rule=rule, render=render)
    for name, canvas in together.items():
        alone = NeuronCanvas(wrapped, name, rule=rule, render=render).canvas(points, (5, 6)).trust
        assert canvas.trust.gap < 1e-9 and canvas.trust.agreement == pytest.approx(alone.agreement)


def test_reason_without_a_comparison(fitted, tmp_path):
    assert make_canvas(fitted, Ablation("mean")).trust.because.startswith("every unit was set to its baseline")
    again = open_canvas(make_canvas(fitted).save(tmp_path / "canvas"))
    assert str(again.trust) == "weak, because no network is at hand to compare it with"
    model = torch.nn.Sequential(
        torch.nn.Linear(1, 48), torch.nn.Unflatten(1, (2, 4, 6)), torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 3, 1)
    )
    with pytest.warns(UserWarning, match="training mode"):
        trust = NeuronCanvas(model, "2").canvas(torch.rand(5, 1), (4, 6)).trust
    assert trust.verdict == "weak" and "call model.eval()" in trust.because


@pytest.mark.own_kernels("setting a unit of zeros to zero in a batch of another size has to change nothing at all")
def test_layer_without_contributions_is_weak():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    torch.nn.init.constant_(model[0].weight, 0.0)
    torch.nn.init.constant_(model[0].bias, -1.0)
    trust = NeuronCanvas(model, "1").canvas(coordinates(TRUST_SIZE), TRUST_SIZE).trust
    assert trust.verdict == "weak" and trust.agreement is None


def test_trust_is_deterministic_and_restores_the_model(fitted, found):
    canvas, state = make_canvas(fitted), found(fitted)
    with torch.no_grad():
        trust = canvas.trust
    assert canvas.trust is trust and make_canvas(fitted).trust == trust
    assert state.differences(fitted) == []


def test_ablations_within_rounding_are_weak():
    said = "every contribution that was sampled is zero within rounding"
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    same = torch.full((math.prod(TRUST_SIZE), 2), 0.3)
    for rule in (Ablation("mean"), Ablation("resample")):
        trust = NeuronCanvas(net, "1", rule=rule).canvas(same, TRUST_SIZE).trust
        assert trust.verdict == "weak" and trust.because.startswith(said), "all pixels are alike"
    torch.nn.init.constant_(net[0].bias, -9.0)
    trust = NeuronCanvas(net, "1", rule="ablation").canvas(coordinates(TRUST_SIZE), TRUST_SIZE).trust
    assert trust.verdict == "weak" and trust.because.startswith(said), "all units are dead"
    level = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(2, 1, 1))
    flat = NeuronCanvas(level, "1", rule=Ablation("mean")).canvas(torch.full((1, 1, 4, 6), 0.5), (4, 6))
    assert flat.trust.verdict == "weak" and not bool(flat.to_tensor().any())


def test_mean_ablation_of_one_frame():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Sigmoid(), torch.nn.Conv2d(2, 1, 1))
    canvas = NeuronCanvas(net, "1", rule=Ablation("mean")).canvas(torch.rand(1, 1, 4, 6), (4, 6))
    assert bool(canvas.to_tensor().any()) and canvas.trust.verdict == "holds"
    torch.testing.assert_close(canvas.to_tensor().sum((-1, -2)), torch.zeros(1, 2, 1), atol=1e-5, rtol=0)
