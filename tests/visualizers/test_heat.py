import numpy as np
import pytest
import torch

from xinc_captum.visualizers.figure import new_figure
from xinc_captum.visualizers.heat import DIMMED, draw_heat, draw_scale

LUMA = (0.2126, 0.7152, 0.0722)
PHOTO = torch.full((3, 4, 6), 0.8)


def drawn(values):
    axes = new_figure(2, 2).subplots()
    draw_heat(axes, PHOTO, values)
    return axes.get_images()[0].get_array(), axes.texts[0].get_text()


def test_strong_glows_and_nothing_is_the_dimmed_photo():
    values = torch.zeros(4, 6)
    values[:2] = 1
    picture, word = drawn(values)
    assert picture[:2].mean() > 0.8 and word == ""
    np.testing.assert_allclose(picture[2:], DIMMED * 0.8, atol=0.01)


def test_a_map_without_a_preference_is_said():
    assert drawn(torch.ones(4, 6))[1] == "constant"
    assert drawn(torch.full((4, 6), torch.nan))[1] == "not finite"


def test_the_scale_grows_lighter():
    axes = new_figure(2, 2).subplots()
    draw_scale(axes)
    light = axes.get_images()[0].get_array().mean(-1)[0]
    assert light[-1] > light[128] > light[0]


@pytest.mark.parametrize("grey", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_stronger_is_lighter_over_every_photo(grey):
    axes = new_figure(2, 2).subplots()
    draw_heat(axes, torch.full((3, 1, 201), grey), torch.linspace(0, 1, 201)[None], limit=1.0)
    light = np.asarray(axes.get_images()[0].get_array())[0] @ LUMA
    assert (np.diff(light) > -0.002).all(), "the colours come in 256 steps"
    assert light[-1] > 0.9 and light[0] == pytest.approx(DIMMED * grey, abs=0.01)
