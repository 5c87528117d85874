import pytest

from xinc_captum.visualizers.sheet import GAP, MARGIN, Sheet, broken, wide


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


def test_a_grid_is_as_wide_as_the_page_and_its_cells_have_the_pictures_shape():
    sheet = Sheet(4)
    cells, bottom = sheet.grid(["a", "b"], 3, 1.0, (7, 10, 20))
    figure = sheet.done(bottom)
    assert [len(row) for row in cells] == [2, 2, 2]
    wide, high = figure.get_size_inches()
    boxes = [[axes.get_position() for axes in row] for row in cells]
    assert boxes[0][0].x0 * wide == pytest.approx(MARGIN) and boxes[0][1].x1 * wide == pytest.approx(4 - MARGIN - GAP)
    assert boxes[0][0].width * wide == pytest.approx(2 * boxes[0][0].height * high)
    assert boxes[0][0].y0 > boxes[1][0].y1 > boxes[1][0].y0 > boxes[2][0].y1 and boxes[2][0].y0 > 0
    assert [t.get_text() for t in figure.texts] == ["a", "b"]
