import math

import pytest
import torch

from xinc_captum import NeuronCanvas
from xinc_captum.cli import canvas_results
from xinc_captum.cli.canvas_results import (
    LayerMagnitudes,
    LayerVerdict,
    NetworkName,
    check_memory,
    decoder_part,
    fit_network,
    judge_layer,
    load_shipped_network,
    make_network,
    measure_layer,
    measure_motion,
    measure_spread,
    methods_for,
    track_objects,
)
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.inputs import VideoInput, load_video
from xinc_captum.hooks import LayerError
from xinc_captum.inr import CheckpointError, FourierMLP, NeRV, Siren, coordinates, times
from xinc_captum.metrics import magnitudes
from xinc_captum.metrics.trust import CanvasTrust, judge_canvas
from xinc_captum.visualizers.explorer import pack_units

SIZE = (12, 16)


def canvas_of(model, rule, layer="activation1"):
    return NeuronCanvas(model, layer, rule=rule).canvas(coordinates(SIZE), SIZE)


def never():
    raise AssertionError("the tangent is not asked")


def test_a_layer_that_holds_has_a_reason_and_no_advice():
    canvas = canvas_of(FourierMLP(hidden=6, seed=0), "secant", "activation2")
    found = judge_layer(canvas, never)
    assert (found.layer, found.tangent, found.trust) == ("activation2", None, canvas.trust)
    assert (found.line.name, found.line.verdict) == ("activation2", "holds")
    assert found.line.rest == f", because {canvas.trust.because}."
    assert found.numbers() == {"verdict": "holds", "because": canvas.trust.because, "agreement": pytest.approx(1)}


def test_if_the_secant_does_not_hold_the_tangent_is_judged_too():
    model = Siren(hidden=24, layers=3, first_omega=40.0, seed=0)
    secant, tangent = canvas_of(model, "secant"), canvas_of(model, "tangent")
    found = judge_layer(secant, lambda: tangent)
    assert found.trust.verdict != "holds"
    assert found.tangent == tangent.trust
    assert f"(ρ {tangent.trust.agreement:.2f}: {tangent.trust.verdict})" in found.line.rest


@pytest.mark.parametrize("rule", ["tangent", "ablation"])
def test_other_rules_get_no_advice(rule):
    model = Siren(hidden=24, layers=3, first_omega=40.0, seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 8  # so steep that even the tangent ranks unlike removal
    found = judge_layer(canvas_of(model, rule), never)
    assert found.tangent is None and (found.trust.verdict == "holds") == (rule == "ablation")


@pytest.mark.parametrize(
    ("tangent", "said"),
    [
        (
            0.97,
            " With --rule tangent the ranks of neurons agree with the effect of setting them to zero (ρ 0.97: holds), "
            "but the contributions do not sum to the output.",
        ),
        (
            0.6,
            " With --rule tangent the ranks of neurons agree better with the effect of setting them to zero (ρ 0.60: weak), "
            "but the contributions do not sum to the output.",
        ),
        (
            0.3,
            " With --rule tangent the ranks of neurons do not agree better with the effect of setting them to zero (ρ 0.30: "
            "fails). --rule ablation computes that effect directly.",
        ),
        (None, ""),
    ],
)
def test_the_advice_describes_the_tangent_at_the_same_layer(tangent, said):
    trust = judge_canvas(agreement=0.4, gap=0.0)
    line = LayerVerdict("a", trust, judge_canvas(agreement=tangent)).line
    assert line.rest == f", because {trust.because}.{said}"


def test_a_missing_agreement_is_null_in_the_manifest():
    assert LayerVerdict("a", CanvasTrust("weak", "nothing")).numbers()["agreement"] is None


CPU = torch.device("cpu")


def film(frames=3, size=(8, 16)):
    return VideoInput("clip", torch.rand(frames, 3, *size, generator=torch.Generator().manual_seed(0)), {})


@pytest.mark.parametrize("kind", [NetworkName.nerv, NetworkName.hnerv])
def test_each_network_is_fitted_and_can_be_explained(kind, tmp_path):
    clip = film()
    model = make_network(kind, (8, 16), 0)
    network = fit_network(model, kind, clip, 4, 0, CPU, tmp_path / "fit.pt")
    assert network.rendered.shape == clip.frames.shape and len(network.decibels) == 3
    assert torch.allclose(decoder_part(model)(network.rows), network.rendered, atol=1e-6)
    assert network.psnr == pytest.approx(sum(network.decibels) / 3)
    assert network.name == kind.value and network.steps == 4
    methods = methods_for(model, None, "secant")
    assert list(methods) == [f"blocks.{i}.activation" for i in range(3)] + ["head"]
    canvas = methods["head"].canvas(network.rows, (8, 16))
    assert canvas.pairs == (14, 3)
    assert torch.allclose(canvas.to_tensor().sum((1, 2)), network.rendered, atol=1e-5), (
        "kernels and slots make the frame"
    )


def test_a_convolution_is_explained_by_its_kernels():
    methods = methods_for(make_network(NetworkName.nerv, (8, 16), 0), ["blocks.0.conv", "blocks.0"], "tangent")
    assert [method.unit for method in methods.values()] == ["pair", "neuron"]


def test_a_wrong_layer_is_named():
    with pytest.raises(LayerError, match=r"did you mean 'blocks.0.activation'"):
        methods_for(make_network(NetworkName.nerv, (8, 16), 0), ["blocks.0.activaton"], "secant")


def test_a_killed_fit_resumes(tmp_path):
    def fitted(place, seed=0):
        return fit_network(
            make_network(NetworkName.nerv, (8, 16), seed), NetworkName.nerv, film(), 3, seed, CPU, tmp_path / place
        )

    first = fitted("one.pt")
    again = fitted("one.pt")
    assert torch.equal(first.rendered, again.rendered)
    with pytest.raises(CheckpointError, match="one.pt is of another run: it has seed 0 instead of 1"):
        fitted("one.pt", seed=1)


def test_the_shipped_network_keeps_its_own_times():
    network = load_shipped_network(VideoInput("clip", torch.rand(2, 3, 72, 88), {}), CPU)
    assert torch.equal(network.rows, times(24)[:2])
    assert network.steps == 0 and len(network.decibels) == 2


def canvas(layer="blocks.1.activation", unit="neuron"):
    model = NeRV((16, 24), widths=(4, 5, 6), strides=(2, 2), seed=0)
    return NeuronCanvas(model, layer, rule="secant", unit=unit).canvas(times(4), (16, 24))


def test_a_layer_leaves_out_its_bias_remainder_and_shows_four_units():
    given = canvas()
    layer = measure_layer(given)
    assert (layer.name, layer.kind, layer.magnitudes.shape) == ("blocks.1.activation", "neurons", (4, 6, 16, 24))
    assert torch.equal(layer.magnitudes, magnitudes(given.to_tensor()[:, :6]))
    totals = layer.magnitudes.sum((0, 2, 3))
    assert layer.film[0].unit == f"neuron {int(totals.argmax())}"
    assert layer.film[0].note == f"strongest; {100 * float(totals.max() / totals.sum()):.1f} % of the layer"
    assert [row.note.split(";")[0] for row in layer.film] == ["strongest"] * 2 + ["changes most"] * len(layer.film[2:])
    assert len({row.unit for row in layer.film}) == len(layer.film) > 2


def test_kernels_are_named_by_input_and_output():
    layer = measure_layer(canvas("head", "pair"))
    assert (layer.kind, layer.magnitudes.shape) == ("kernels", (4, 18, 16, 24))
    inputs = [row.unit.split()[1] for row in layer.film]
    assert len(set(inputs)) == len(inputs), "one kernel an input"
    assert all(row.unit.split()[-1] in ("red", "green", "blue") for row in layer.film)


def test_a_layer_too_large_raises(monkeypatch):
    monkeypatch.setattr(canvas_results, "MOST", 1 << 10)
    with pytest.raises(UsageError, match=r"canvases of blocks.1.activation \(6 of them over 4 frames\) take .* GiB"):
        check_memory(canvas())
    monkeypatch.undo()
    check_memory(canvas())


@pytest.fixture(scope="module")
def known():
    """Two units that carry one disc each, and one that paints the same place for ever."""
    film = load_video("sprite", 6, None, None)
    still = torch.ones(6, 1, 64, 96)
    amounts = torch.cat([film.masks.float() + 1e-3, still], 1)
    names = tuple(f"neuron {unit}" for unit in range(amounts.shape[1]))
    return film, LayerMagnitudes("known", "neurons", amounts, (), pack_units(amounts[:, :, None]), names)


def test_units_that_carry_objects_are_found(known):
    film, layer = known
    carried = track_objects(layer, film.masks, 0)
    assert carried.track.carried.argmax(1).tolist() == [0, 1]
    assert carried.track.carried[:, 2].tolist() == pytest.approx([0, 0])
    assert min(carried.best) > 10 and carried.lead > 5
    assert carried.lead == pytest.approx(sum(b - c for b, c in zip(carried.best, carried.chance, strict=True)) / 2)
    assert torch.equal(carried.elsewhere, track_objects(layer, film.masks, 0).elsewhere), "own generator"


def test_motion_agrees_with_its_frames_and_not_with_a_still_video(known):
    film, layer = known
    motion = measure_motion(layer, film, film.flow.norm(dim=1))
    assert motion.lead > 0.05
    assert motion.lead == pytest.approx(float(motion.agreement.matched - motion.agreement.shuffled))
    assert math.isnan(float(motion.still.matched))
    assert motion.change.shape == (5, 64, 96)


def test_spread_has_its_controls(known):
    _, layer = known
    spread = measure_spread(layer, 2, 0)
    assert spread.pixels.shape == (3,) and spread.needed.shape == (64, 96)
    assert spread.pixels.sum() == spread.pixels_control.sum(), "shuffled units: the same pixels, other owners"
    assert spread.pixels.tolist() != spread.pixels_control.tolist()
