"""A canvas's own verdict: true ones hold, planted failures do not."""

import math
from dataclasses import replace

import pytest
import torch

from xinc_captum import Ablation, NeuronCanvas, Secant
from xinc_captum.attributions import canvases, open_canvas
from xinc_captum.inr import FourierMLP, Siren, coordinates, fit, ray_samples, ray_weights

SIZE = (12, 16)


@pytest.fixture(scope="module")
def fitted():
    model = FourierMLP(hidden=24, features=24, scale=2.0, activation="gelu", seed=0)
    picture = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(0)).repeat_interleave(4, 1)
    fit(model, picture.repeat_interleave(4, 2), steps=60, show_progress=False)
    return model


def drawn(model, rule="tangent", layer="activation1", **kwargs):
    return NeuronCanvas(model, layer, rule=rule, **kwargs).canvas(coordinates(SIZE), SIZE)


def given_to_the_next(canvas):
    """Every unit shows the map of the one behind it."""

    def wrong(first, last, units):
        return canvas._shares(first, last, units if units is None else [(u + 1) % canvas.units for u in units])

    return replace(canvas, _shares=wrong)


@pytest.mark.parametrize("rule", ["tangent", "secant"])
def test_true_canvases_hold_and_planted_failures_do_not(fitted, rule):
    canvas = drawn(fitted, rule)
    assert canvas.trust.verdict == "holds" and canvas.trust.agreement > 0.9
    exchanged = given_to_the_next(canvas).trust
    assert exchanged.verdict == "fails" and abs(exchanged.agreement) < 0.3
    upside_down = replace(canvas, _shares=lambda *at: -canvas._shares(*at)).trust
    assert upside_down.verdict == "fails" and upside_down.agreement == -canvas.trust.agreement
    other = drawn(FourierMLP(hidden=24, features=24, scale=2.0, seed=1), rule)
    assert replace(canvas, _shares=other._shares).trust.verdict == "fails", "another network's canvas"


def test_a_secant_that_does_not_add_up_fails(fitted):
    canvas = drawn(fitted, "secant")
    assert canvas.trust.gap < 1e-5 and "its parts add up" in canvas.trust.because
    half = replace(canvas, _shares=lambda *at: canvas._shares(*at) / 2).trust
    assert half.gap == pytest.approx(0.5, abs=1e-5) and half.because == "its parts miss the output by 0.5 of it"
    assert drawn(fitted).trust.gap is None, "tangents promise no sum"


def test_a_linear_end_by_hand(hand_net):
    """Behind the last activation both are W · a: the orders are equal."""
    net, x = hand_net
    trust = NeuronCanvas(net, "1").canvas(x.repeat(4, 1) * torch.arange(1.0, 5)[:, None], (4,)).trust
    assert trust.agreement == 1.0 and trust.verdict == "holds"


def test_maps_before_the_papers_last_layer_fail(fitted):
    canvas = NeuronCanvas(fitted, "linear2", rule="xinc").canvas(coordinates(SIZE), SIZE, attribute_to_layer_input=True)
    assert canvas.trust.verdict == "fails", "they use no later weight"


@pytest.mark.parametrize("unit", ["neuron", "pair"])
@pytest.mark.parametrize("rule", ["tangent", "secant"])
def test_frames_and_kernels(decoder, unit, rule):
    model, t = decoder
    canvas = NeuronCanvas(model, "blocks.1.0", unit=unit, rule=rule).canvas(t, (8, 12))
    trust = canvas.trust
    assert trust.verdict == "holds"
    assert (trust.gap is None) is (rule == "tangent") and (trust.gap is None or trust.gap < 1e-12)
    if rule == "secant":
        shrunk = replace(canvas, _sums=lambda *at: canvas._sums(*at) / 2).trust
        assert shrunk.verdict == "fails" and shrunk.gap > 0.02


def test_rendered_fields_and_layers_that_share_a_run():
    render = lambda seen, _points: (ray_weights(seen[..., :1] ** 2, 0.5) * seen[..., 1:]).sum(1)
    field, points = Siren(3, 4, hidden=6, layers=3, seed=0).double(), ray_samples((5, 6), 4, dtype=torch.float64)
    rule, names = Secant(products="halves"), ["model.activation1", "model.activation2"]
    wrapped = torch.nn.Sequential()
    wrapped.model = field
    together = canvases(wrapped, names, points, (5, 6), rule=rule, render=render)
    for name, canvas in together.items():
        alone = NeuronCanvas(wrapped, name, rule=rule, render=render).canvas(points, (5, 6)).trust
        assert canvas.trust.gap < 1e-9 and canvas.trust.agreement == pytest.approx(alone.agreement)


def test_what_cannot_be_compared_says_so(fitted, tmp_path):
    assert drawn(fitted, Ablation("mean")).trust.because.startswith("every unit was set to its baseline")
    again = open_canvas(drawn(fitted).save(tmp_path / "canvas"))
    assert str(again.trust) == "weak, because no network is at hand to compare it with"
    model = torch.nn.Sequential(
        torch.nn.Linear(1, 48), torch.nn.Unflatten(1, (2, 4, 6)), torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 3, 1)
    )
    with pytest.warns(UserWarning, match="training mode"):
        trust = NeuronCanvas(model, "2").canvas(torch.rand(5, 1), (4, 6)).trust
    assert trust.verdict == "weak" and "call model.eval()" in trust.because


@pytest.mark.own_kernels("setting a unit of zeros to zero in a batch of another size has to change nothing at all")
def test_a_layer_that_paints_nothing_is_weak():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    torch.nn.init.constant_(model[0].weight, 0.0)
    torch.nn.init.constant_(model[0].bias, -1.0)
    trust = NeuronCanvas(model, "1").canvas(coordinates(SIZE), SIZE).trust
    assert trust.verdict == "weak" and trust.agreement is None


def test_it_is_asked_once_the_same_each_time_and_leaves_everything_as_found(fitted, found):
    canvas, state = drawn(fitted), found(fitted)
    with torch.no_grad():
        trust = canvas.trust
    assert canvas.trust is trust and drawn(fitted).trust == trust
    assert state.differences(fitted) == []


def test_ablations_that_show_nothing_do_not_hold():
    said = "every contribution that was sampled is zero within rounding"
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    same = torch.full((math.prod(SIZE), 2), 0.3)
    for rule in (Ablation("mean"), Ablation("resample")):
        trust = NeuronCanvas(net, "1", rule=rule).canvas(same, SIZE).trust
        assert trust.verdict == "weak" and trust.because.startswith(said), "all pixels are alike"
    torch.nn.init.constant_(net[0].bias, -9.0)
    trust = NeuronCanvas(net, "1", rule="ablation").canvas(coordinates(SIZE), SIZE).trust
    assert trust.verdict == "weak" and trust.because.startswith(said), "all units are dead"
    level = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(2, 1, 1))
    flat = NeuronCanvas(level, "1", rule=Ablation("mean")).canvas(torch.full((1, 1, 4, 6), 0.5), (4, 6))
    assert flat.trust.verdict == "weak" and not bool(flat.to_tensor().any())


def test_one_frame_less_its_mean_shows_its_structure():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Sigmoid(), torch.nn.Conv2d(2, 1, 1))
    canvas = NeuronCanvas(net, "1", rule=Ablation("mean")).canvas(torch.rand(1, 1, 4, 6), (4, 6))
    assert bool(canvas.to_tensor().any()) and canvas.trust.verdict == "holds"
    torch.testing.assert_close(canvas.to_tensor().sum((-1, -2)), torch.zeros(1, 2, 1), atol=1e-5, rtol=0)
