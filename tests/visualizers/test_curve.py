import numpy as np
import pytest
import torch

from xinc_captum.visualizers import score_curve


def test_two_panels_whose_axes_say_what_they_are():
    scores, distances = torch.rand(5, 2), torch.rand(5, 2)
    figure = score_curve(scores, distances, titles=["lion", "lynx"], unit="logit", layer="blocks.2")
    left, right = figure.axes
    assert left.get_ylabel() == "logit, mean over the views"
    assert right.get_ylabel() == "distance of features at blocks.2"
    assert left.get_xlabel() == right.get_xlabel() == "steps made"
    np.testing.assert_allclose(left.lines[1].get_ydata(), scores[:, 1])
    np.testing.assert_allclose(right.lines[0].get_ydata(), distances[:, 0])
    assert left.lines[0].get_linestyle() != left.lines[1].get_linestyle(), "told apart without colours"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["lion", "lynx"]


def test_without_distances_there_is_one_panel_and_rows_may_end_early():
    scores = torch.tensor([[1.0, 1.0], [2.0, torch.nan]])
    assert len(score_curve(scores, titles=["a", "b"]).axes) == 1


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"scores have shape \(5,\) for 1 titles; wanted \(steps, rows\)"):
        score_curve(torch.rand(5), titles=["a"])
    with pytest.raises(ValueError, match=r"distances have shape \(4, 1\); wanted that of the scores, \(5, 1\)"):
        score_curve(torch.rand(5, 1), torch.rand(4, 1), titles=["a"])
