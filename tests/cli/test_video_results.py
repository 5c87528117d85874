import math

import pytest
import torch

from xinc_captum import NeuronCanvas
from xinc_captum.cli import video_results
from xinc_captum.cli.errors import UsageError
from xinc_captum.cli.video_files import Film, film_called
from xinc_captum.cli.video_results import (
    Layer,
    VideoModel,
    carried_by,
    check_room,
    explained,
    fit,
    fitted_before,
    layer_of,
    methods_for,
    motion_of,
    network,
    spread_of,
)
from xinc_captum.hooks import LayerError
from xinc_captum.inr import CheckpointError, NeRV, times
from xinc_captum.metrics import magnitudes
from xinc_captum.visualizers.explorer import pack_units

CPU = torch.device("cpu")


def film(frames=3, size=(8, 16)):
    return Film("clip", torch.rand(frames, 3, *size, generator=torch.Generator().manual_seed(0)), {})


@pytest.mark.parametrize("kind", list(VideoModel))
def test_each_network_is_fitted_and_can_be_explained(kind, tmp_path):
    clip = film()
    model = network(kind, (8, 16), 0)
    painter = fit(model, kind, clip, 4, 0, CPU, tmp_path / "fit.pt")
    assert painter.drawn.shape == clip.frames.shape and len(painter.decibels) == 3
    assert torch.allclose(explained(model)(painter.rows), painter.drawn, atol=1e-6)
    assert painter.psnr == pytest.approx(sum(painter.decibels) / 3)
    assert painter.config["name"] == kind.value and painter.steps == 4
    methods = methods_for(model, None, "secant")
    assert list(methods) == [f"blocks.{i}.activation" for i in range(3)] + ["head"]
    canvas = methods["head"].canvas(painter.rows, (8, 16))
    assert canvas.pairs == (14, 3)
    assert torch.allclose(canvas.to_tensor().sum((1, 2)), painter.drawn, atol=1e-5), "kernels and slots make the frame"


def test_a_convolution_is_explained_by_its_kernels():
    methods = methods_for(network(VideoModel.nerv, (8, 16), 0), ["blocks.0.conv", "blocks.0"], "tangent")
    assert [method.unit for method in methods.values()] == ["pair", "neuron"]


def test_a_wrong_layer_is_named():
    with pytest.raises(LayerError, match=r"did you mean 'blocks.0.activation'"):
        methods_for(network(VideoModel.nerv, (8, 16), 0), ["blocks.0.activaton"], "secant")


def test_a_killed_fit_goes_on(tmp_path):
    def fitted(place, seed=0):
        return fit(network(VideoModel.nerv, (8, 16), seed), VideoModel.nerv, film(), 3, seed, CPU, tmp_path / place)

    first = fitted("one.pt")
    again = fitted("one.pt")
    assert torch.equal(first.drawn, again.drawn)
    with pytest.raises(CheckpointError, match="one.pt is of another run: it has seed 0 instead of 1"):
        fitted("one.pt", seed=1)


def test_the_shipped_network_keeps_its_own_times():
    painter = fitted_before(Film("clip", torch.rand(2, 3, 72, 88), {}), CPU)
    assert torch.equal(painter.rows, times(24)[:2])
    assert painter.steps == 0 and len(painter.decibels) == 2


def canvas(layer="blocks.1.activation", unit="neuron"):
    model = NeRV((16, 24), widths=(4, 5, 6), strides=(2, 2), seed=0)
    return NeuronCanvas(model, layer, rule="secant", unit=unit).canvas(times(4), (16, 24))


def test_a_layer_leaves_its_slot_out_and_shows_four_units():
    given = canvas()
    layer = layer_of(given)
    assert (layer.name, layer.kind, layer.amounts.shape) == ("blocks.1.activation", "neurons", (4, 6, 16, 24))
    assert torch.equal(layer.amounts, magnitudes(given.to_tensor()[:, :6]))
    totals = layer.amounts.sum((0, 2, 3))
    assert layer.film[0].unit == f"neuron {int(totals.argmax())}"
    assert layer.film[0].note == f"strongest; {100 * float(totals.max() / totals.sum()):.1f} % of the layer"
    assert [row.note.split(";")[0] for row in layer.film] == ["strongest"] * 2 + ["moves about most"] * len(
        layer.film[2:]
    )
    assert len({row.unit for row in layer.film}) == len(layer.film) > 2


def test_kernels_are_named_by_what_they_join():
    layer = layer_of(canvas("head", "pair"))
    assert (layer.kind, layer.amounts.shape) == ("kernels", (4, 18, 16, 24))
    inputs = [row.unit.split()[1] for row in layer.film]
    assert len(set(inputs)) == len(inputs), "one kernel an input"
    assert all(row.unit.split()[-1] in ("red", "green", "blue") for row in layer.film)


def test_a_layer_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(video_results, "MOST", 1 << 10)
    with pytest.raises(UsageError, match=r"canvases of blocks.1.activation \(6 of them over 4 frames\) take .* GiB"):
        check_room(canvas())
    monkeypatch.undo()
    check_room(canvas())


@pytest.fixture(scope="module")
def known():
    """Two units that carry one disc each, and one that paints the same place for ever."""
    film = film_called("sprite", 6, None, None)
    still = torch.ones(6, 1, 64, 96)
    amounts = torch.cat([film.masks.float() + 1e-3, still], 1)
    names = tuple(f"neuron {unit}" for unit in range(amounts.shape[1]))
    return film, Layer("known", "neurons", amounts, (), pack_units(amounts[:, :, None]), names)


def test_units_that_carry_objects_are_found(known):
    film, layer = known
    carried = carried_by(layer, film.masks, 0)
    assert carried.track.carried.argmax(1).tolist() == [0, 1]
    assert carried.track.carried[:, 2].tolist() == pytest.approx([0, 0])
    assert min(carried.best) > 10 and carried.lead > 5
    assert carried.lead == pytest.approx(sum(b - c for b, c in zip(carried.best, carried.chance, strict=True)) / 2)
    assert torch.equal(carried.elsewhere, carried_by(layer, film.masks, 0).elsewhere), "own generator"


def test_motion_goes_with_its_own_frames_and_a_still_clip_says_nothing(known):
    film, layer = known
    motion = motion_of(layer, film, film.flow.norm(dim=1))
    assert motion.lead > 0.05
    assert motion.lead == pytest.approx(float(motion.found.matched - motion.found.shuffled))
    assert math.isnan(float(motion.still.matched))
    assert motion.change.shape == (5, 64, 96)


def test_spread_has_its_controls_beside_it(known):
    _, layer = known
    spread = spread_of(layer, 2, 0)
    assert spread.pixels.shape == (3,) and spread.needed.shape == (64, 96)
    assert spread.pixels.sum() == spread.pixels_control.sum(), "shuffled units: the same pixels, other owners"
    assert spread.pixels.tolist() != spread.pixels_control.tolist()
