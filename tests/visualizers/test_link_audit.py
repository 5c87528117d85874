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


def test_every_figure_beside_its_control():
    figure = link_audit({"fit": FIT, "class": CLASS})
    assert dots(figure.axes[0], "o") == [(0.9, 0), (0.6, 1)]
    assert dots(figure.axes[0], "D") == [(0.72, 0), (-0.1, 1)]
    assert dots(figure.axes[1], "D") == []
    said = words(figure)
    assert {"0.90 (0.88 to 0.91)", "0.72 class means alone", "−0.10 shuffled", "0.85"} <= set(said)


def test_one_scale_holds_everything():
    figure = link_audit({"fit": [Measured("R²", -0.6, -0.9, 1.1)], "class": CLASS})
    assert [axes.get_xlim() for axes in figure.axes] == [pytest.approx((-0.93, 1.13))] * 2


def test_pictures_before_over_pictures_after():
    before, after = torch.zeros(10, 1, 8, 8), torch.ones(10, 1, 8, 8)
    figure = link_audit({"class": CLASS}, pictures={"generated": (before, after), "real": (before[:3], after[:3])})
    shown = [float(axes.images[0].get_array().mean()) for axes in figure.axes if axes.images]
    assert shown == [0, 1] * (8 + 3), "eight of ten, and three"


def test_orders_of_classes_side_by_side():
    alike = torch.eye(3)
    figure = link_audit({"class": CLASS}, orders={"layer": alike, "latents": -alike}, classes=["cat", "dog", "owl"])
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert float(shown[0][0, 0]) == 1 and float(shown[1][0, 0]) == -1
    assert words(figure).count("owl") == 2


def test_no_text_lies_over_another_or_outside(legible):
    pictures = (torch.rand(8, 3, 12, 8), torch.rand(8, 3, 12, 8))
    figure = link_audit(
        {"How much does it explain?": FIT, "Does a picture keep its class?": CLASS * 3},
        verdict=("weak", "real pictures keep their class in 85 % only, " * 4),
        pictures={"generated": pictures, "real": pictures, "others": pictures},
        orders={"layer": torch.eye(5), "latents": torch.eye(5)},
        classes=["a long name of a class"] * 5,
    )
    legible(figure)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="1 groups of figures, some empty; expected at least one figure in each"):
        link_audit({"fit": []})
    with pytest.raises(ValueError, match=r"pictures 'real' have shapes \(2, 1, 4, 4\) and \(2, 1, 8, 8\)"):
        link_audit({"fit": FIT}, pictures={"real": (torch.rand(2, 1, 4, 4), torch.rand(2, 1, 8, 8))})
    with pytest.raises(ValueError, match=r"orders have shapes \[\(2, 2\), \(3, 3\)\]; expected \(classes, classes\)"):
        link_audit({"fit": FIT}, orders={"a": torch.eye(2), "b": torch.eye(3)})
    with pytest.raises(ValueError, match=r"2 classes for orders of shape \(3, 3\); expected one a row"):
        link_audit({"fit": FIT}, orders={"a": torch.eye(3)}, classes=["x", "y"])
    with pytest.raises(ValueError, match="verdict 'sure' is not known"):
        link_audit({"fit": FIT}, verdict=("sure", "it is"))


def test_the_lines_of_the_scale_have_numbers_under_them():
    said = words(link_audit({"fit": FIT, "class": CLASS}))
    assert all(said.count(tick) == 2 for tick in ("0", "0.25", "0.5", "0.75", "1")), "under each of the two groups"
