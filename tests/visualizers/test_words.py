import pytest

from xinc_captum.visualizers.sheet import wide
from xinc_captum.visualizers.words import clipped, decimals_for, decimals_over, number, numbered, ordinal, predicate


@pytest.mark.parametrize(
    ("largest", "decimals"), [(0.0, 2), (0.004, 2), (0.9, 2), (9.9, 2), (12.0, 1), (250.0, 0), (1e5, 0)]
)
def test_three_digits_or_so(largest, decimals):
    assert decimals_for(largest) == decimals


def test_no_minus_before_a_zero_and_a_true_one_elsewhere():
    assert number(-0.4, 0) == "0"
    assert number(-0.6, 0) == "−1"
    assert number(float("inf"), 2) == "–"


def test_words_are_left_out_at_a_word():
    text = "a golden retriever of some age"
    assert clipped(text, 9, 8) == text
    short = clipped(text, 1.0, 8)
    assert short.endswith(" …") and text.startswith(short[:-2]) and wide(short, 8) <= 1.05


def test_places():
    assert [ordinal(n) for n in (3, 12, 13, 21, 101, 112)] == ["3rd", "12th", "13th", "21st", "101st", "112th"]


@pytest.mark.parametrize(
    ("span", "largest", "decimals"),
    [(0.012, 0.05, 3), (0.0099, 0.05, 4), (3.0, 3.0, 2), (0.5, 250.0, 2), (60.0, 250.0, 0), (1e-9, 1.0, 6)],
)
def test_digits_follow_the_span(span, largest, decimals):
    assert decimals_over(span, largest) == decimals


def test_a_span_that_is_none_says_nothing():
    assert decimals_over(0.0, 12.0) == decimals_over(float("nan"), 12.0) == decimals_over(float("inf"), 12.0) == 1


def test_only_names_that_come_twice_are_numbered():
    assert numbered([]) == [] and numbered(("b", "a")) == ["b", "a"]
    assert numbered(["a", "b", "a", "a"]) == ["a (1)", "b", "a (2)", "a (3)"]


def test_weak_is_no_verb():
    said = [predicate(f"{verdict}, because") for verdict in ("holds", "weak", "fails")]
    assert said == ["holds, because", "is weak, because", "fails, because"] and predicate("unknown") == "is unknown"
