import pytest

from xinc_captum.visualizers.sheet import Sheet, broken, wide


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
    figure = sheet.done(2)
    assert tuple(figure.get_size_inches()) == (4, 2)
    assert axes.get_position().bounds == pytest.approx((0.25, 0.25, 0.5, 0.5))
    assert figure.texts[0].get_position() == pytest.approx((0.25, 0.875))


def test_dollars_are_dollars():
    sheet = Sheet(2)
    sheet.line(0, 0, "a $ and a $")
    assert sheet.done(1).texts[0].get_parse_math() is False
