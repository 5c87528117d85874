import io
import sys

import matplotlib
import numpy as np
import pytest
import torch

from xinc_captum.visualizers import style
from xinc_captum.visualizers.style import DIM, draw_heat, draw_scale, new_figure


def test_pyplot_state_is_not_changed():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    style.new_figure(2, 2)
    assert plt.get_fignums() == before
    assert "matplotlib.pyplot" in sys.modules, "captum imports it, and the figures do not use it"


def test_limit_is_a_quantile_and_never_zero():
    assert style.limit_of(torch.tensor([-4.0, 1.0]), 1.0) == 4.0
    assert style.limit_of(torch.zeros(3)) == 1.0
    large = torch.zeros(3 << 20)
    large[::7] = 2.0
    assert style.limit_of(large) == 2.0


def test_headings_reserve_space():
    drawn = style.new_figure(4, 2)
    style.heading(drawn, "Title", "how to read it")
    assert drawn.get_layout_engine().get()["rect"][3] < 0.75
    assert [t.get_text() for t in drawn.texts] == ["Title", "how to read it"]


def test_photos_can_have_any_number_of_channels():
    drawn = style.new_figure(2, 2)
    axes = drawn.subplots(1, 3)
    for axis, channels in zip(axes, (1, 3, 5), strict=True):
        style.draw_photo(axis, torch.rand(channels, 4, 4) * 3 - 1)
        image = axis.get_images()[0].get_array()
        assert image.min() >= 0 and image.max() <= 1


def test_pdf_fonts_are_truetype():
    drawn = style.new_figure(2, 2, 150)
    drawn.text(0.1, 0.5, "Grad-CAM")
    before = matplotlib.rcParams["pdf.fonttype"]
    file = io.BytesIO()
    drawn.savefig(file, format="pdf")
    assert b"/CIDFontType2" in file.getvalue() and b"/Type3" not in file.getvalue()
    assert matplotlib.rcParams["pdf.fonttype"] == before and drawn.dpi == 150


LUMA = (0.2126, 0.7152, 0.0722)
PHOTO = torch.full((3, 4, 6), 0.8)


def drawn(values):
    axes = new_figure(2, 2).subplots()
    draw_heat(axes, PHOTO, values)
    return axes.get_images()[0].get_array(), axes.texts[0].get_text()


def test_heat_is_bright_where_values_are_large():
    values = torch.zeros(4, 6)
    values[:2] = 1
    picture, word = drawn(values)
    assert picture[:2].mean() > 0.8 and word == ""
    np.testing.assert_allclose(picture[2:], DIM * 0.8, atol=0.01)


def test_constant_and_non_finite_maps_are_labelled():
    assert drawn(torch.ones(4, 6))[1] == "constant"
    assert drawn(torch.full((4, 6), torch.nan))[1] == "not finite"


def test_the_heat_scale_becomes_lighter():
    axes = new_figure(2, 2).subplots()
    draw_scale(axes)
    light = axes.get_images()[0].get_array().mean(-1)[0]
    assert light[-1] > light[128] > light[0]


@pytest.mark.parametrize("grey", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_larger_values_are_lighter_over_every_photo(grey):
    axes = new_figure(2, 2).subplots()
    draw_heat(axes, torch.full((3, 1, 201), grey), torch.linspace(0, 1, 201)[None], limit=1.0)
    light = np.asarray(axes.get_images()[0].get_array())[0] @ LUMA
    assert (np.diff(light) > -0.002).all(), "the colours come in 256 steps"
    assert light[-1] > 0.9 and light[0] == pytest.approx(DIM * grey, abs=0.01)
