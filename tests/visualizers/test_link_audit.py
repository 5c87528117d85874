import pytest
import torch

from xinc_captum.visualizers import Measured, link_audit

FIT = [Measured("R²", 0.9, 0.88, 0.91, 0.72, "class means alone"), Measured("within classes", 0.6, 0.5, 0.7, -0.1)]
CLASS = [Measured("real pictures", 0.85, 0.85, 0.85)]


def words(figure):
    return [t.get_text() for t in figure.texts]


def dots(axes, marker):
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines if line.get_marker() == marker
    ]


def test_every_score_has_its_control():
    figure = link_audit({"fit": FIT, "class": CLASS})
    assert dots(figure.axes[0], "o") == [(0.9, 0), (0.6, 1)]
    assert dots(figure.axes[0], "D") == [(0.72, 0), (-0.1, 1)]
    assert dots(figure.axes[1], "D") == []
    said = words(figure)
    assert {"0.90 (0.88 to 0.91)", "0.72 class means alone", "−0.10 shuffled", "0.85"} <= set(said)


def test_one_scale_contains_all_scores():
    figure = link_audit({"fit": [Measured("R²", -0.6, -0.9, 1.1)], "class": CLASS})
    assert [axes.get_xlim() for axes in figure.axes] == [pytest.approx((-0.93, 1.13))] * 2


def test_originals_are_above_reconstructions():
    before, after = torch.zeros(10, 1, 8, 8), torch.ones(10, 1, 8, 8)
    figure = link_audit({"class": CLASS}, pictures={"generated": (before, after), "real": (before[:3], after[:3])})
    shown = [float(axes.images[0].get_array().mean()) for axes in figure.axes if axes.images]
    assert shown == [0, 1] * (8 + 3), "eight of ten, and three"


def test_similarities_of_classes_are_side_by_side():
    alike = torch.eye(3)
    figure = link_audit({"class": CLASS}, orders={"layer": alike, "latents": -alike}, classes=["cat", "dog", "owl"])
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert float(shown[0][0, 0]) == 1 and float(shown[1][0, 0]) == -1
    assert words(figure).count("owl") == 2


def test_link_audit_rejects_wrong_inputs():
    with pytest.raises(ValueError, match="1 groups of scores, some empty; expected at least one score in each"):
        link_audit({"fit": []})
    with pytest.raises(ValueError, match=r"pictures 'real' have shapes \(2, 1, 4, 4\) and \(2, 1, 8, 8\)"):
        link_audit({"fit": FIT}, pictures={"real": (torch.rand(2, 1, 4, 4), torch.rand(2, 1, 8, 8))})
    with pytest.raises(ValueError, match=r"orders have shapes \[\(2, 2\), \(3, 3\)\]; expected \(classes, classes\)"):
        link_audit({"fit": FIT}, orders={"a": torch.eye(2), "b": torch.eye(3)})
    with pytest.raises(ValueError, match=r"2 classes for orders of shape \(3, 3\); expected one per row"):
        link_audit({"fit": FIT}, orders={"a": torch.eye(3)}, classes=["x", "y"])
    with pytest.raises(ValueError, match="verdict 'sure' is not known"):
        link_audit({"fit": FIT}, verdict=("sure", "it is"))


def test_scale_lines_are_numbered():
    said = words(link_audit({"fit": FIT, "class": CLASS}))
    assert all(said.count(tick) == 2 for tick in ("0", "0.25", "0.5", "0.75", "1")), "under each of the two groups"
