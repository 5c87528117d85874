"""Checks for all figures: they depend on their input, and their texts do not overlap."""

import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image


@pytest.fixture
def legible():
    """Return a check that texts and axes of a figure do not overlap and are inside the figure."""

    def check(figure, *, across=0.96, down=0.8, slack=0, panels=True):
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [t.get_window_extent(renderer) for t in figure.texts]
        boxes += [axes.get_window_extent(renderer) for axes in figure.axes if panels]
        width, height = figure.canvas.get_width_height()
        for i, box in enumerate(boxes):
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + slack and box.y1 <= height
            assert not any(box.shrunk(across, down).overlaps(other.shrunk(across, down)) for other in boxes[:i])

    return check


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=60)
    return np.asarray(Image.open(file).convert("RGB"), dtype=float)


@pytest.fixture(name="pixels")
def pixels_of():
    """Return a function from a figure to its image."""
    return pixels


@pytest.fixture
def depends_on_input(legible):
    """Return a check that a function from a random generator to a figure draws other numbers differently."""

    def check(draw):
        figure = draw(torch.Generator().manual_seed(1))
        legible(figure)
        first, other = pixels(figure), pixels(draw(torch.Generator().manual_seed(2)))
        assert first.shape != other.shape or (first != other).mean() > 0.002, "other numbers look different"
        assert (first < 250).any(2).mean() > 0.05, "not blank"

    return check


@pytest.fixture
def words():
    """Return a function that joins all texts of a figure."""
    return lambda figure: " ".join(
        [t.get_text() for t in figure.texts] + [t.get_text() for a in figure.axes for t in a.texts]
    )


@pytest.fixture
def g():
    """A random generator with a fixed seed."""
    return torch.Generator().manual_seed(1)


@pytest.fixture
def photo():
    """A small image of noise, (3, 12, 18)."""
    return torch.rand(3, 12, 18, generator=torch.Generator().manual_seed(0))
