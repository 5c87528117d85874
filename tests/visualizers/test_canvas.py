import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers import (
    brightness,
    build_up,
    canvas_grid,
    dominant_units,
    neuron_over_photo,
    order_by_total,
    pixel_contributors,
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
