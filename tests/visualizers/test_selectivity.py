import numpy as np
import pytest
import torch

from xinc_captum.visualizers import selectivity_table

MEANS = torch.tensor([[0.1, -0.2, 2.0], [1.5, 0.0, -1.0], [0.3, 0.2, 3.0]])


def table(means=MEANS, **more):
    units, classes = more.pop("units", [4, 5, 6]), more.pop("classes", ["cat", "dog", "owl"])
    return selectivity_table(means, units=units, classes=classes, **more)


def units(figure):
    return [t.get_text() for t in figure.texts if t.get_text().startswith("unit ")]


def test_in_the_order_of_the_class_that_drives_them():
    assert units(table()) == ["unit 5", "unit 6", "unit 4"]
    assert units(table(ordered=False)) == ["unit 4", "unit 5", "unit 6"]


def test_cells_are_the_numbers():
    figure = table()
    written = [t.get_text() for t in figure.axes[1].texts]
    assert written == ["1.5", "0.0", "−1.0", "0.3", "0.2", "3.0", "0.1", "−0.2", "2.0"]
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(shown, MEANS[[1, 2, 0]])


def test_what_is_written_as_nothing_looks_like_nothing():
    picture = table(1e-7 * MEANS).axes[1].images[0]
    assert picture.get_clim() == (-0.1, 0.1), "the scale ends above what rounding leaves"


def test_shares_of_variance_go_with_their_units():
    figure = table(explained=torch.tensor([0.2, 0.9, 0.4]))
    assert [t.get_text() for t in figure.axes[2].texts] == ["90 %", "40 %", "20 %"]


def test_many_classes_are_colours_only_with_names_on_end():
    figure = table(torch.randn(3, 40), classes=[f"class {i}" for i in range(40)])
    assert not figure.axes[1].texts
    assert {t.get_rotation() for t in figure.axes[0].texts} == {90.0}


@pytest.mark.parametrize("classes", [["a", "b"], ["a long name of a class"] * 12, [f"class {i}" for i in range(60)]])
def test_no_text_lies_over_another_or_outside(classes, legible):
    figure = table(torch.randn(20, len(classes)), units=range(20), classes=classes, explained=torch.rand(20))
    texts = [t for t in figure.texts if not t.get_text().startswith("unit ")]
    assert texts
    legible(figure, across=0.9, down=0.7)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"means have shape \(3, 3\) for 2 units and 3 classes; wanted \(2, 3\)"):
        table(units=[1, 2])
    with pytest.raises(ValueError, match="61 units for one table; wanted at most 60"):
        table(torch.rand(61, 3), units=range(61))
    with pytest.raises(ValueError, match=r"explained has shape \(2,\); wanted \(3,\), one a unit"):
        table(explained=torch.rand(2))
