import pytest
import torch

from xinc_captum.visualizers import explained_bars


def test_it_shows_what_it_was_given(shows_what_it_was_given):
    def draw(g):
        names = ("motion", "colour", "edge", "position")
        found = {name: (float(torch.rand(1, generator=g)), torch.rand(20, generator=g) / 9) for name in names}
        return explained_bars(found, "not supported here: clusters explain 20 % of motion (5 % by chance), but less")

    shows_what_it_was_given(draw)


def test_the_verdict_is_printed(words):
    said = words(explained_bars({"motion": (0.5, torch.full((9,), 0.25))}, "not supported here: because"))
    assert "not supported here" in said and "because" in said and "50 %" in said and "25 % by chance" in said


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="found is empty; give at least one response"):
        explained_bars({}, "")
