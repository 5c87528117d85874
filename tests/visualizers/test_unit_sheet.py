import pytest
import torch

from xinc_captum.visualizers import unit_sheet
from xinc_captum.visualizers.unit_sheet import BAR, moves

NAN = float("nan")


def sheet(count=4, **more):
    low, high = torch.zeros(count, 1, 8, 8), torch.full((count, 1, 8, 8), 0.5)
    settings = {"units": list(range(10, 10 + count)), "ranks": torch.ones(count), "followed": torch.ones(count)} | more
    return unit_sheet(low, high, count=64, **settings)


def words(figure):
    return [t.get_text() for t in figure.texts]


def photos(figure):
    return [
        axes.images[0].get_array() for axes in figure.axes if axes.images and axes.images[0].get_cmap().name == "gray"
    ]


@pytest.mark.parametrize(
    ("rank", "followed", "verdict"),
    [
        (1.0, 0.8, "holds"),
        (1.0, 0.79, "weak"),
        (1.2, 0.9, "weak"),
        (3.2, 0.9, "weak"),
        (4.4, 0.9, "weak"),
        (5.3, 0.9, "fails"),
        (1.0, 0.49, "fails"),
        (1.0, NAN, "fails"),
        (NAN, 1.0, "dead"),
    ],
)
def test_whether_a_unit_moves(rank, followed, verdict):
    assert moves(rank, followed, 64) == verdict


def test_units_which_do_not_move_are_faded_and_marked():
    figure = sheet(2, ranks=torch.tensor([1.0, 14.0]), followed=torch.tensor([0.97, 0.1]))
    said = words(figure)
    assert "✓ moves most of 64, follows 0.97" in said
    assert "✗ does not show it: moves 14th of 64, follows 0.10" in said
    low = photos(figure)[::2]
    assert float(low[0].max()) == 0 and float(low[1].min()) > 0.7, "the black picture is nearly paper"
    assert "of 2 units, 1 ✓ move themselves, 1 ✗ do not (faded)" in said


def test_dead_units_are_listed_and_not_drawn():
    figure = sheet(3, ranks=torch.tensor([NAN, 1.0, NAN]))
    assert len(photos(figure)) == 2
    assert any(w.startswith("Dead, so without pictures: units 10, 12.") for w in words(figure))
    assert "unit 11" in words(figure) and "unit 10" not in words(figure)


def test_the_classes_that_differ_most():
    figure = sheet(1, selectivity=torch.tensor([[0.1, 2.0, -1.5, 0.2, 0.6]]), classes=["a", "b", "c", "d", "e"])
    said = words(figure)
    assert [w for w in said if w in {"a", "b", "c", "d", "e"}] == ["b", "e", "c"]
    assert [w for w in said if w in {"2.0", "0.6", "−1.5"}] == ["2.0", "0.6", "−1.5"]


@pytest.mark.parametrize("names", [list("012"), ["class 1", "class 2", "class 3"], ["golden retriever", "fox", "owl"]])
def test_no_bar_lies_over_a_name_and_names_are_whole(names, legible):
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
    assert all(axes.get_position().width * 9 == pytest.approx(BAR) for axes in bars)


@pytest.mark.parametrize("count", [1, 4, 11])
def test_no_text_lies_over_another_or_outside(count, legible):
    ranks = torch.arange(count) % 7 + 1.0
    figure = sheet(
        count, ranks=ranks, notes=["upper third: luminance +12 % and more words than there is room for"] * count
    )
    legible(figure)


def test_a_page_of_dead_units_says_so():
    figure = sheet(2, ranks=torch.full((2,), NAN))
    assert "of 2 units, 2 dead" in words(figure)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": 46}, "46 units for one sheet; expected at most 45"),
        ({"ranks": torch.ones(3)}, "3 ranks for 4 pictures; expected one a unit"),
        ({"classes": ["a"]}, r"1 classes for selectivity of shape None; expected \(U, 1\)"),
        ({"selectivity": torch.ones(4, 2), "classes": ["a"]}, r"shape \(4, 2\); expected \(U, 1\)"),
    ],
)
def test_what_does_not_fit_is_said(change, says):
    with pytest.raises(ValueError, match=says):
        sheet(**change)


def test_pictures_of_two_shapes():
    with pytest.raises(ValueError, match="low and high have shapes"):
        unit_sheet(
            torch.rand(1, 1, 8, 8),
            torch.rand(1, 1, 4, 4),
            units=[0],
            ranks=torch.ones(1),
            followed=torch.ones(1),
            count=2,
        )


def test_verdicts_that_are_given_go_before_those_of_the_ranks():
    said = words(sheet(verdicts=["weak"] * 4))
    assert any("4 ≈ partly" in line for line in said)
    with pytest.raises(ValueError, match="verdict 'maybe' is not known"):
        sheet(verdicts=["maybe"] * 4)
