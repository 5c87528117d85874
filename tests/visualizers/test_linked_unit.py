import numpy as np
import pytest
import torch

from xinc_captum.visualizers import selectivity_table, unit_filmstrips

VALUES = torch.tensor([0.0, 1.0, 2.0, 3.0])


def strips(rows=2, values=VALUES, **more):
    count = values.shape[-1]
    images = torch.linspace(0, 1, count).view(1, count, 1, 1, 1).expand(rows, count, 1, 8, 8)
    settings = {"measured": 0.5 * values.expand(rows, count), "rows": [f"row {i}" for i in range(rows)]} | more
    return unit_filmstrips(images, values, **settings)


def words(figure):
    return [t.get_text() for t in figure.texts]


def framed(figure):
    return sum(axes.spines["left"].get_visible() and axes.spines["left"].get_linewidth() > 2 for axes in figure.axes)


def test_values_set_and_measured_are_below_each_image():
    said = words(strips())
    assert [w for w in said if "→" in w and "▽" not in w] == [
        "0.00 → 0.00",
        "1.00 → 0.50",
        "2.00 → 1.00",
        "3.00 → 1.50",
    ] * 2


def test_flips_have_a_frame_and_a_label():
    figure = strips(predictions=[["3", "3", "8", "8"], ["5"] * 4])
    assert framed(figure) == 2
    assert words(figure).count("now 8") == 2 and words(figure).count("5") == 4


def test_flips_are_relative_to_a_given_origin():
    figure = strips(rows=1, predictions=[["3", "3", "8", "8"]], origins=["8"], bases=torch.rand(1, 1, 8, 8))
    assert framed(figure) == 2 and words(figure).count("now 3") == 2
    assert words(figure).count("8") == 3, "two images, and the image before"


def test_originals_are_before_their_reconstructions():
    pictures = torch.full((1, 1, 8, 8), 0.25), torch.full((1, 1, 8, 8), 0.75)
    figure = strips(
        rows=1, originals=pictures[0], original_predictions=["a screenshot"], bases=pictures[1], predictions=[["8"] * 4]
    )
    shown = [float(axes.images[0].get_array().mean()) for axes in figure.axes if axes.images]
    assert shown[:2] == [0.25, 0.75]
    said = words(figure)
    assert {"the picture", "linked"} <= set(said) and "unchanged" not in said and "a screenshot" in " ".join(said)
    with pytest.raises(ValueError, match=r"originals have shape \(1, 1, 8, 8\); expected the bases', None"):
        strips(rows=1, originals=pictures[0])
    with pytest.raises(ValueError, match="original_predictions has 2 entries for 1 rows; expected one per row"):
        strips(rows=1, originals=pictures[0], bases=pictures[1], original_predictions=["a", "b"])


def test_change_is_the_last_minus_the_first_image():
    figure = strips(rows=1)
    changes = [axes.images[0] for axes in figure.axes if axes.images and axes.images[0].get_cmap().name == "RdBu_r"]
    assert len(changes) == 1
    np.testing.assert_allclose(changes[0].get_array(), 1)


def test_selected_values_contain_the_first_and_the_last():
    figure = strips(rows=1, values=torch.arange(20.0), columns=5)
    shown = [w for w in words(figure) if "→" in w and "▽" not in w]
    assert len(shown) == 5 and shown[0].startswith("0.0 ") and shown[-1].startswith("19.0 ")


def test_missing_measurements_are_dashes():
    assert "0.00 → –" in words(strips(rows=1, measured=torch.tensor([[float("nan"), 1, 2, 3]])))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"measured": torch.rand(2, 3)}, r"measured has shape \(2, 3\); expected \(2, 4\), one per image"),
        ({"values": torch.rand(2, 1)}, r"images have shape \(2, 1, 1, 8, 8\).*at least two values"),
        ({"bases": torch.rand(2, 1, 4, 4)}, r"bases have shape \(2, 1, 4, 4\); expected \(2, 1, 8, 8\)"),
        ({"notes": ["one"]}, "notes has 1 entries for 2 rows; expected one per row"),
        ({"predictions": [["a"] * 4, ["a"] * 3]}, "3 predictions for 4 images of a row"),
        ({"trust": ("sure", "of course")}, "verdict 'sure' is not known"),
    ],
)
def test_filmstrips_reject_wrong_inputs(change, says):
    with pytest.raises((ValueError, RuntimeError), match=says):
        strips(**change)


def test_filmstrips_reject_values_of_another_shape():
    with pytest.raises(ValueError, match=r"values have shape \(3,\); expected \(4,\) or \(2, 4\)"):
        unit_filmstrips(torch.rand(2, 4, 1, 8, 8), torch.rand(3), torch.rand(2, 4), rows=["a", "b"])


def test_close_values_have_more_decimals():
    figure = strips(rows=1, values=torch.tensor([0.041, 0.044, 0.049]), measured=torch.tensor([[0.02, 0.021, 0.9]]))
    assert [w for w in words(figure) if "→" in w and "▽" not in w] == [
        "0.0410 → 0.0200",
        "0.0440 → 0.0210",
        "0.0490 → 0.9000",
    ], "two digits of the span of the values set"


def test_equal_row_names_are_numbered():
    figure = unit_filmstrips(torch.rand(3, 4, 1, 8, 8), VALUES, torch.rand(3, 4), rows=["a one", "a two", "a one"])
    said = words(figure)
    assert {"a one (1)", "a two", "a one (2)"} <= set(said) and "a one" not in said


MEANS = torch.tensor([[0.1, -0.2, 2.0], [1.5, 0.0, -1.0], [0.3, 0.2, 3.0]])


def table(means=MEANS, **more):
    units, classes = more.pop("units", [4, 5, 6]), more.pop("classes", ["cat", "dog", "owl"])
    return selectivity_table(means, units=units, classes=classes, **more)


def units(figure):
    return [t.get_text() for t in figure.texts if t.get_text().startswith("unit ")]


def test_units_are_sorted_by_their_strongest_class():
    assert units(table()) == ["unit 5", "unit 6", "unit 4"]
    assert units(table(ordered=False)) == ["unit 4", "unit 5", "unit 6"]


def test_cells_show_the_numbers():
    figure = table()
    written = [t.get_text() for t in figure.axes[1].texts]
    assert written == ["1.5", "0.0", "−1.0", "0.3", "0.2", "3.0", "0.1", "−0.2", "2.0"]
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_array_equal(shown, MEANS[[1, 2, 0]])


def test_tiny_responses_look_like_zero():
    picture = table(1e-7 * MEANS).axes[1].images[0]
    assert picture.get_clim() == (-0.1, 0.1), "the scale ends above rounding errors"


def test_variance_shares_are_sorted_with_their_units():
    figure = table(explained=torch.tensor([0.2, 0.9, 0.4]))
    assert [t.get_text() for t in figure.axes[2].texts] == ["90 %", "40 %", "20 %"]


def test_many_classes_have_rotated_names_and_no_numbers():
    figure = table(torch.randn(3, 40), classes=[f"class {i}" for i in range(40)])
    assert not figure.axes[1].texts
    assert {t.get_rotation() for t in figure.axes[0].texts} == {90.0}


def test_selectivity_table_rejects_wrong_inputs():
    with pytest.raises(ValueError, match=r"means have shape \(3, 3\) for 2 units and 3 classes; expected \(2, 3\)"):
        table(units=[1, 2])
    with pytest.raises(ValueError, match="61 units for one table; expected at most 60"):
        table(torch.rand(61, 3), units=range(61))
    with pytest.raises(ValueError, match=r"explained has shape \(2,\); expected \(3,\), one per unit"):
        table(explained=torch.rand(2))
