import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers import (
    FilmRow,
    brightness,
    build_up,
    canvas_grid,
    dominant_units,
    frame_reconstructions,
    neuron_over_photo,
    order_by_total,
    pixel_contributors,
    unit_film,
)
from xinc_captum.visualizers.canvas import diverse_units

MAPS = torch.randn(9, 3, 8, 12)
PHOTO = torch.rand(3, 8, 12)


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=60)
    return np.asarray(Image.open(file).convert("RGB"), dtype=float)


FIGURES = {
    "grid": lambda m, p: canvas_grid(m, p, neurons=5),
    "grid of one": lambda m, p: canvas_grid(m[:1], p),
    "grid without channels": lambda m, p: canvas_grid(m[:, 0], p),
    "neuron": lambda m, p: neuron_over_photo(m[0], p, unit=0),
    "neuron without channels": lambda m, p: neuron_over_photo(m[0, 0], p, unit=0),
    "pixel": lambda m, p: pixel_contributors(p, (2, 3), m[:4, :, 2, 3], torch.arange(4), m[:4]),
    "pixel of one neuron and channel": lambda m, p: pixel_contributors(
        p, (2, 3), m[:1, :1, 2, 3], torch.arange(1), m[:1, :1]
    ),
    "dominant": lambda m, p: dominant_units(p, m.abs().sum(1).argmax(0).to(torch.int8), colours=3),
    "build-up": lambda m, p: build_up(m, torch.zeros(3, 8, 12), p),
    "build-up of two": lambda m, p: build_up(m[:2], torch.zeros(3, 8, 12), p),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_depend_on_their_input(name):
    channels = 1 if name in {"neuron", "pixel", "build-up of two"} else 3
    first = pixels(FIGURES[name](MAPS, PHOTO[:channels]))
    other = pixels(FIGURES[name](MAPS.flip(0).flip(-1) * torch.rand(9, 1, 1, 1), PHOTO[:channels]))
    assert first.shape == other.shape and (first != other).mean() > 0.002, "another canvas looks different"
    assert (first < 250).any(2).mean() > 0.1, "not blank"


def test_positive_is_red_and_negative_is_blue():
    maps = torch.zeros(2, 3, 8, 8)
    maps[0], maps[1] = 1.0, -0.5
    colours = pixels(canvas_grid(maps, torch.full((3, 8, 8), 0.5)))
    red = (colours[..., 0] > colours[..., 2] + 60).mean()
    blue = (colours[..., 2] > colours[..., 0] + 60).mean()
    assert red > 0.05 and blue > 0.05


def test_order_and_brightness_of_known_maps():
    maps = torch.tensor([[[[1.0]], [[-1.0]]], [[[3.0]], [[1.0]]]])
    assert order_by_total(maps).tolist() == [1, 0]
    assert brightness(maps).flatten().tolist() == [0.0, 2.0]
    assert brightness(maps[:, 0]) is not None


def test_diverse_units_are_strong_and_different():
    pattern = torch.randn(8, 8)
    other = torch.randn(8, 8)
    maps = torch.stack([3 * pattern, 2.9 * pattern, other, 0.01 * torch.randn(8, 8)])
    assert diverse_units(maps, 2) == [0, 2]
    assert sorted(diverse_units(maps, 9)) == [0, 1, 2, 3]


FRAMES = torch.rand(10, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def rows(*names):
    g = torch.Generator().manual_seed(1)
    note = "strongest; 12.3 % of the layer"
    return [FilmRow(layer, unit, note, torch.randn(10, 12, 18, generator=g)) for layer, unit in names]


def test_unit_film_has_one_row_per_unit_and_one_heading_per_layer(legible):
    figure = unit_film(FRAMES, rows(("blocks.0.activation", "neuron 3"), ("blocks.0.activation", "neuron 5"), ("head", "kernel 11 → green")))  # fmt: skip
    legible(figure)
    words = [text.get_text() for text in figure.texts]
    assert words.count("blocks.0.activation") == 1 and words.count("head") == 1
    assert [word for word in words if word.startswith("frame ")] == [f"frame {t}" for t in (0, 1, 3, 4, 5, 6, 8, 9)]
    assert len(figure.axes) == 8 * 4 + 1


def test_unit_film_rows_have_one_scale():
    one = rows(("a", "neuron 1"))[0]
    quiet = one.maps.clone()
    quiet[1:] *= 0.01  # contributes in the first frame and hardly after
    figure = unit_film(FRAMES[:2], [one._replace(maps=quiet[:2])])
    limits = [axes.images[0].get_clim() for axes in figure.axes[2:4]]
    assert limits[0] == limits[1] and limits[0][0] == -limits[0][1]


def test_unit_film_depends_on_its_input():
    one = rows(("a", "neuron 1"))
    other = [one[0]._replace(maps=-one[0].maps)]
    assert np.abs(pixels(unit_film(FRAMES, one)) - pixels(unit_film(FRAMES, other))).max() > 50


def test_unit_film_rejects_wrong_maps():
    with pytest.raises(ValueError, match=r"got 1 rows with maps of shapes \[\(9, 12, 18\)\]; .* all \(10, 12, 18\)"):
        unit_film(FRAMES, [rows(("a", "b"))[0]._replace(maps=torch.zeros(9, 12, 18))])
    with pytest.raises(ValueError, match="got 0 rows"):
        unit_film(FRAMES, [])


RECONSTRUCTION_FRAMES = torch.rand(5, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def test_reconstructions_show_frames_outputs_differences_and_psnr(legible):
    drawn = (RECONSTRUCTION_FRAMES + 0.1).clamp(0, 1)
    figure = frame_reconstructions(RECONSTRUCTION_FRAMES, drawn, [30.0, 31.5, 29.0, 40.0, 33.0], columns=3)
    legible(figure)
    words = [text.get_text() for text in figure.texts]
    assert [word for word in words if word.startswith("frame ")] == ["frame 0", "frame 2", "frame 4"]
    assert "mean 32.7, worst 29.0" in " ".join(words)
    clip, picture, missing, curve = (figure.axes[i] for i in (0, 3, 6, 9))
    assert torch.allclose(torch.as_tensor(clip.images[0].get_array()), RECONSTRUCTION_FRAMES[0].permute(1, 2, 0))
    assert torch.allclose(torch.as_tensor(picture.images[0].get_array()), drawn[0].permute(1, 2, 0))
    gap = torch.as_tensor(missing.images[0].get_array())
    assert torch.allclose(gap, (RECONSTRUCTION_FRAMES - drawn)[0].mean(0), atol=1e-6), (
        "red where the output is too dark"
    )
    assert curve.lines[0].get_ydata().tolist() == [30.0, 31.5, 29.0, 40.0, 33.0]


def test_reconstructions_state_the_scale_of_the_difference():
    figure = frame_reconstructions(RECONSTRUCTION_FRAMES, RECONSTRUCTION_FRAMES - 0.05, [26.0] * 5)
    assert "full colour at 5.0 % of white" in " ".join(text.get_text() for text in figure.texts)


def test_reconstructions_reject_wrong_shapes():
    with pytest.raises(ValueError, match="with 4 decibels; expected equal shapes and one number per frame"):
        frame_reconstructions(RECONSTRUCTION_FRAMES, RECONSTRUCTION_FRAMES, [1.0] * 4)
    with pytest.raises(ValueError, match=r"reconstructions \(4, 3, 12, 18\)"):
        frame_reconstructions(RECONSTRUCTION_FRAMES, RECONSTRUCTION_FRAMES[:4], [1.0] * 5)
