import math

import pytest

from xinc_captum.comparison import Column, Counts
from xinc_captum.comparison.columns import COLUMNS, chosen
from xinc_captum.comparison import Row
from xinc_captum.comparison.said import captions, scores_said
from xinc_captum.metrics import Interval


def row(method, left_out=0, **values):
    scores = {name: Interval(value, value, value) for name, value in values.items()}
    return Row(method, 1.0, 1.0, Counts(), scores, left_out, "constant" if left_out else "")


def test_small_numbers_have_three_digits_in_all_rows():
    rows = [row("a", deletion=0.023, insertion=0.74), row("b", deletion=0.25, insertion=0.1)]
    notes, _ = scores_said(rows, chosen(["deletion", "insertion"]), 3)
    assert notes == {"a": "deletion 0.023 ↓\ninsertion 0.74 ↑", "b": "deletion 0.250 ↓\ninsertion 0.10 ↑"}


def test_only_what_is_shown_is_explained():
    rows = [row("a", sparseness=0.5, road=0.2, energy=0.5, deletion=0.5)]
    _, foot = scores_said(rows, chosen(["sparseness", "road", "energy", "deletion"]), 3)
    assert foot.startswith("ROAD: what the probability loses") and "deletion" not in foot and "Gini" not in foot
    assert "energy in mask: share of the map that lies in the mask; more is better (↑). Means over 3 photos." in foot
    assert "One photo." in scores_said(rows, chosen(["deletion"]), 1)[1]
    assert scores_said(rows, chosen(["sparseness"]), 3) == ({"a": ""}, "")
    own = Column("own", "mine", "↓", lambda _: None)
    assert scores_said([row("a", own=4.0)], [own], 2)[1] == "mine; less is better (↓). Means over 2 photos."


def test_maps_that_say_nothing():
    rows = [row("a", deletion=0.5), row("b", 1, deletion=0.5), row("c", 2, deletion=math.nan), row("d")]
    notes, foot = scores_said(rows, chosen(["deletion"]), 2)
    assert notes["c"] == "constant" and notes["d"] == "deletion – ↓"
    assert foot.endswith("Means over 2 photos, but for maps that say nothing.")


def test_every_measure_with_a_better_side_says_what_it_is():
    assert all(column.meaning for column in COLUMNS if column.better)


def test_captions():
    assert captions(243, [0.714, math.nan], None) == [("class 243", "p 0.71"), ("class 243", "")]
    assert captions([2], [0.5], {2: "a\udcff"}) == [("a?", "p 0.50")], "no font draws a byte that is no UTF-8"
    assert captions([2], [0.0514, 0.5], {2: "a, b"}) == [("a", "p 0.051"), ("a", "p 0.50")]
    for labels in (["a", "b"], {1: "b"}):
        with pytest.raises(LookupError, match=r"no name for class 2; give one for each class, or {2: 'its name'}"):
            captions([2], [0.5], labels)
    with pytest.raises(LookupError, match="class -1"):
        captions(-1, [0.5], ["a", "b"])
