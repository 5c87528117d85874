import pytest
import torch

from xinc_captum.visualizers import unit_sheet
from xinc_captum.visualizers.unit_sheet import MIN_BAR

NAN = float("nan")


def sheet(count=4, **more):
    low, high = torch.zeros(count, 1, 8, 8), torch.full((count, 1, 8, 8), 0.5)
    settings = {"units": list(range(10, 10 + count)), "ranks": torch.ones(count), "followed": torch.ones(count)}
    settings |= {"verdicts": ["holds"] * count} | more
    return unit_sheet(low, high, count=64, **settings)


def words(figure):
    return [t.get_text() for t in figure.texts]


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
        ({"ranks": torch.ones(3)}, "ranks has 3 entries for 4 units; expected one per unit"),
        ({"classes": ["a"]}, r"1 classes for selectivity of shape None; expected \(U, 1\)"),
        ({"selectivity": torch.ones(4, 2), "classes": ["a"]}, r"shape \(4, 2\); expected \(U, 1\)"),
    ],
)
def test_unit_sheet_rejects_wrong_inputs(change, says):
    with pytest.raises(ValueError, match=says):
        sheet(**change)


def test_unit_sheet_rejects_images_of_two_shapes():
    with pytest.raises(ValueError, match="low and high have shapes"):
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
