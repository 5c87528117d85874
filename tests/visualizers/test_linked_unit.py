import numpy as np
import pytest
import torch

from xinc_captum.visualizers import selectivity_table, unit_filmstrips, unit_sheet
from xinc_captum.visualizers.linked_unit import MIN_BAR

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
    with pytest.raises(
        ValueError, match="originals is given without bases; expected the reconstructions of the originals too"
    ):
        strips(rows=1, originals=pictures[0])
    with pytest.raises(ValueError, match="original_predictions has 2 entries; expected N = 1"):
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
        ({"measured": torch.rand(2, 3)}, r"measured has shape \(2, 3\); expected \(N, S\) with N = 2, S = 4"),
        (
            {"values": torch.rand(2, 1)},
            r"images has shape \(2, 1, 1, 8, 8\); expected \(N, S, C, H, W\) with at least two values",
        ),
        (
            {"bases": torch.rand(2, 1, 4, 4)},
            r"bases has shape \(2, 1, 4, 4\); expected \(N, C, H, W\) with N = 2, C = 1, H = 8, W = 8",
        ),
        ({"notes": ["one"]}, "notes has 1 entries; expected N = 2"),
        ({"predictions": [["a"] * 4, ["a"] * 3]}, "predictions of row 1 has 3 entries; expected S = 4"),
        ({"trust": ("sure", "of course")}, "verdict 'sure' is not known"),
    ],
)
def test_filmstrips_reject_wrong_inputs(change, says):
    with pytest.raises((ValueError, RuntimeError), match=says):
        strips(**change)


def test_filmstrips_reject_values_of_another_shape():
    with pytest.raises(ValueError, match=r"values has shape \(3,\); expected \(S\) with S = 4"):
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
    with pytest.raises(
        ValueError, match=r"means has shape \(3, 3\); expected \(units, classes\) with units = 2, classes = 3"
    ):
        table(units=[1, 2])
    with pytest.raises(ValueError, match="61 units for one table; expected at most 60"):
        table(torch.rand(61, 3), units=range(61))
    with pytest.raises(ValueError, match=r"explained has shape \(2,\); expected \(units\) with units = 3"):
        table(explained=torch.rand(2))


NAN = float("nan")


def sheet(count=4, **more):
    low, high = torch.zeros(count, 1, 8, 8), torch.full((count, 1, 8, 8), 0.5)
    settings = {"units": list(range(10, 10 + count)), "ranks": torch.ones(count), "followed": torch.ones(count)}
    settings |= {"verdicts": ["holds"] * count} | more
    return unit_sheet(low, high, count=64, **settings)


def photos(figure):
    return [
        axes.images[0].get_array() for axes in figure.axes if axes.images and axes.images[0].get_cmap().name == "gray"
    ]


def test_failing_units_are_faded_and_marked():
    figure = sheet(2, ranks=torch.tensor([1.0, 14.0]), followed=torch.tensor([0.97, 0.1]), verdicts=["holds", "fails"])
    said = words(figure)
    assert "✓ moves most of 64, follows 0.97" in said
    assert "✗ not this unit: moves 14th of 64, follows 0.10" in said
    low = photos(figure)[::2]
    assert float(low[0].max()) == 0 and float(low[1].min()) > 0.7, "the black picture is nearly paper"
    assert "of 2 units, 1 ✓ hold, 1 ✗ fail (faded)" in said


def test_dead_units_are_listed_and_not_drawn():
    figure = sheet(3, ranks=torch.tensor([NAN, 1.0, NAN]))
    assert len(photos(figure)) == 2
    assert any(w.startswith("Dead, without pictures: units 10, 12.") for w in words(figure))
    assert "unit 11" in words(figure) and "unit 10" not in words(figure)


def test_classes_with_the_largest_responses_are_listed():
    figure = sheet(1, selectivity=torch.tensor([[0.1, 2.0, -1.5, 0.2, 0.6]]), classes=["a", "b", "c", "d", "e"])
    said = words(figure)
    assert [w for w in said if w in {"a", "b", "c", "d", "e"}] == ["b", "e", "c"]
    assert [w for w in said if w in {"2.0", "0.6", "−1.5"}] == ["2.0", "0.6", "−1.5"]


@pytest.mark.parametrize("names", [list("012"), ["class 1", "class 2", "class 3"], ["golden retriever", "fox", "owl"]])
def test_class_names_are_complete_and_beside_bars(names, legible):
    strongest = torch.tensor([[-2.0, 2.0, -1.9]]).expand(4, 3)
    figure = sheet(4, selectivity=strongest, classes=names)
    assert set(names) <= set(words(figure)), "none is cut off"
    legible(figure)
    bars = [axes for axes in figure.axes if axes.patches]
    assert len(bars) == 4 and all(axes.get_position().width > 0.15 / 9 for axes in bars)


def test_names_longer_than_a_card_leave_room_for_bars(legible):
    figure = sheet(2, selectivity=torch.tensor([[-2.0, 2.0]]).expand(2, 2), classes=["a very long name " * 3, "fox"])
    legible(figure)
    bars = [axes for axes in figure.axes if axes.patches]
    assert all(axes.get_position().width * 9 == pytest.approx(MIN_BAR) for axes in bars)


def test_a_sheet_of_dead_units_is_summarised():
    figure = sheet(2, ranks=torch.full((2,), NAN))
    assert "of 2 units, 2 are dead" in words(figure)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": 46}, "46 units for one sheet; expected at most 45"),
        ({"ranks": torch.ones(3)}, r"ranks has shape \(3,\); expected \(U\) with U = 4"),
        ({"classes": ["a"]}, r"1 classes for selectivity of shape None; expected \(U, 1\)"),
        ({"selectivity": torch.ones(4, 2), "classes": ["a"]}, r"shape \(4, 2\); expected \(U, 1\)"),
    ],
)
def test_unit_sheet_rejects_wrong_inputs(change, says):
    with pytest.raises(ValueError, match=says):
        sheet(**change)


def test_unit_sheet_rejects_images_of_two_shapes():
    with pytest.raises(
        ValueError, match=r"high has shape \(1, 1, 4, 4\); expected \(U, C, H, W\) with U = 1, C = 1, H = 8, W = 8"
    ):
        unit_sheet(
            torch.rand(1, 1, 8, 8),
            torch.rand(1, 1, 4, 4),
            units=[0],
            ranks=torch.ones(1),
            followed=torch.ones(1),
            count=2,
            verdicts=["holds"],
        )


def test_verdicts_are_counted_and_checked():
    figure = sheet(verdicts=["weak"] * 4)
    assert any("4 ≈ are weak" in line for line in words(figure))
    assert float(photos(figure)[0].max()) == 0, "weak units are not faded"
    with pytest.raises(ValueError, match="verdict 'maybe' is not known"):
        sheet(verdicts=["maybe"] * 4)
