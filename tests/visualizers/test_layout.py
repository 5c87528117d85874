import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xinc_captum.visualizers.layout import (
    GAP,
    LINES,
    MARGIN,
    SIZES,
    Sheet,
    broken,
    check_verdicts,
    clipped,
    decimals_for,
    decimals_over,
    heads,
    number,
    numbered,
    ordinal,
    predicate,
    shortened,
    verdict_line,
    wide,
)


def test_lines_are_as_wide_as_they_are_said_to_be():
    text = "a rather long line about nothing in particular, with several words"
    for width in (0.8, 1.0, 2.0):
        lines = broken(text, width, 9)
        assert all(wide(line, 9) <= width for line in lines)
        assert " ".join(lines) == text
    assert broken(text, 20) == [text]
    assert broken("", 1) == []


def test_a_word_too_long_is_broken_inside():
    lines = broken("x" * 80, 1.0)
    assert len(lines) > 3 and "".join(lines) == "x" * 80
    assert all(wide(line) <= 1.0 for line in lines)
    assert broken("ab", 0.0) == ["a", "b"], "one letter a line at least"


def test_bold_is_wider_and_large_is_larger():
    assert wide("feature", bold=True) > wide("feature")
    assert wide("feature", 18) == pytest.approx(2 * wide("feature", 9), rel=0.05)


def test_places_are_inches_from_the_upper_left():
    sheet = Sheet(4)
    axes = sheet.axes(1, 0.5, 2, 1)
    sheet.line(1, 0.25, "here")
    figure = sheet.finish(2)
    assert tuple(figure.get_size_inches()) == (4, 2)
    assert axes.get_position().bounds == pytest.approx((0.25, 0.25, 0.5, 0.5))
    assert figure.texts[0].get_position() == pytest.approx((0.25, 0.875))


def test_dollars_are_dollars():
    sheet = Sheet(2)
    sheet.line(0, 0, "a $ and a $")
    assert sheet.finish(1).texts[0].get_parse_math() is False


def test_a_grid_is_as_wide_as_the_page_and_its_cells_have_the_pictures_shape():
    sheet = Sheet(4)
    cells, bottom = sheet.grid(["a", "b"], 3, 1.0, (7, 10, 20))
    figure = sheet.finish(bottom)
    assert [len(row) for row in cells] == [2, 2, 2]
    wide, high = figure.get_size_inches()
    boxes = [[axes.get_position() for axes in row] for row in cells]
    assert boxes[0][0].x0 * wide == pytest.approx(MARGIN) and boxes[0][1].x1 * wide == pytest.approx(4 - MARGIN - GAP)
    assert boxes[0][0].width * wide == pytest.approx(2 * boxes[0][0].height * high)
    assert boxes[0][0].y0 > boxes[1][0].y1 > boxes[1][0].y0 > boxes[2][0].y1 and boxes[2][0].y0 > 0
    assert [t.get_text() for t in figure.texts] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("Integrated Gradients", ["Integrated", "Gradients"]),
        ("InputXGradient", ["InputX", "Gradient"]),
        ("NoiseTunnel(IntegratedGradients)", ["NoiseTunnel(", "Integrated", "Gradients)"]),
        ("my_long_name", ["my_long_", "name"]),
        ("Layer-wise Relevance", ["Layer-wise", "Relevance"]),
        ("LRPRule", ["LRPRule"]),
    ],
)
def test_names_break_where_their_parts_begin(name, lines):
    size, (found,) = heads([name], 0.9 if len(name) > 12 else 0.68)
    assert found == lines and size >= 8


def test_all_names_have_the_size_of_the_longest():
    alone, together = heads(["Grad-CAM"], 0.9)[0], heads(["Grad-CAM", "backpropagation"], 0.9)[0]
    assert alone == SIZES[0] > together >= SIZES[-1]


def test_what_fits_in_no_size_ends_in_dots_and_shrinks_no_other():
    size, (short, long) = heads(["Grad-CAM", "a_name_" * 12], 0.8)
    assert size == SIZES[0] and short == ["Grad-CAM"]
    assert len(long) == LINES and long[-1].endswith("…") and not any(line.endswith("…") for line in long[:-1])
    assert heads(["x" * 90], 0.8)[1][0][0].endswith("x…")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("aBc d_-X(é", max_size=60), min_size=1, max_size=3), st.floats(0.3, 2.0))
def test_no_line_is_too_wide_and_nothing_is_lost_without_dots(names, width):
    size, found = heads(names, width)
    for name, lines in zip(names, found, strict=True):
        assert 1 <= len(lines) <= LINES and all(wide(line, size) <= width for line in lines)
        whole = "".join(lines).replace(" ", "")
        assert "…" in whole or whole == name.replace(" ", "")


def test_shortened_only_where_needed():
    assert shortened("tench", 1.0, 9) == "tench"
    assert shortened("three-toed sloth", 0.7, 9).endswith("…")
    assert shortened("tench", 0.01, 9) == "…"


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


def test_a_mark_a_word_and_a_reason():
    sheet = Sheet(5)
    bottom = verdict_line(sheet, 0.1, "weak", "of many words, so many that they do not fit into one line of the page")
    words = [t.get_text() for t in sheet.finish(bottom).texts]
    assert words[0] == "≈ weak" and words[1].startswith("because of many words") and len(words) == 3


def test_only_known_ones():
    check_verdicts("holds", "weak", "fails")
    with pytest.raises(ValueError, match="verdict 'perhaps' is not known; expected holds, weak, fails"):
        check_verdicts("holds", "perhaps")
