import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers import FilmRow, unit_film

FRAMES = torch.rand(10, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def rows(*names):
    g = torch.Generator().manual_seed(1)
    note = "strongest; 12.3 % of the layer"
    return [FilmRow(layer, unit, note, torch.randn(10, 12, 18, generator=g)) for layer, unit in names]


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=60)
    return np.asarray(Image.open(file).convert("RGB"), dtype=float)


def test_one_row_a_unit_and_one_heading_a_layer(legible):
    figure = unit_film(FRAMES, rows(("blocks.0.activation", "neuron 3"), ("blocks.0.activation", "neuron 5"), ("head", "kernel 11 → green")))  # fmt: skip
    legible(figure)
    words = [text.get_text() for text in figure.texts]
    assert words.count("blocks.0.activation") == 1 and words.count("head") == 1
    assert [word for word in words if word.startswith("frame ")] == [f"frame {t}" for t in (0, 1, 3, 4, 5, 6, 8, 9)]
    assert len(figure.axes) == 8 * 4 + 1


def test_a_row_has_one_scale_for_all_of_its_frames():
    one = rows(("a", "neuron 1"))[0]
    quiet = one.maps.clone()
    quiet[1:] *= 0.01  # paints in the first frame and hardly after
    figure = unit_film(FRAMES[:2], [one._replace(maps=quiet[:2])])
    limits = [axes.images[0].get_clim() for axes in figure.axes[2:4]]
    assert limits[0] == limits[1] and limits[0][0] == -limits[0][1]


def test_it_shows_what_it_is_given():
    one = rows(("a", "neuron 1"))
    other = [one[0]._replace(maps=-one[0].maps)]
    assert np.abs(pixels(unit_film(FRAMES, one)) - pixels(unit_film(FRAMES, other))).max() > 50


def test_maps_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"got 1 rows with maps of shapes \[\(9, 12, 18\)\]; .* all \(10, 12, 18\)"):
        unit_film(FRAMES, [rows(("a", "b"))[0]._replace(maps=torch.zeros(9, 12, 18))])
    with pytest.raises(ValueError, match="got 0 rows"):
        unit_film(FRAMES, [])
