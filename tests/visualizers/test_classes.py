import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from xinc_captum.visualizers import class_bars
from xinc_captum.visualizers.classes import percent

ANSWER = [("tabby", 0.6), ("a label of so many words that it cannot stand in one column at all", 0.3), ("lynx", 0.001)]


def test_labels_and_probabilities_likeliest_first():
    figure = class_bars({"the photo": ANSWER, "more lynx": [("lynx", 0.999)]}, marked=["lynx"])
    words = [t.get_text() for t in figure.texts]
    assert {"the photo", "more lynx", "tabby", "60 %", "<1 %", ">99 %"} <= set(words)
    assert any(word.startswith("a label of") and word.endswith("…") for word in words)
    bold = {t.get_text() for t in figure.texts if t.get_weight() == "bold" and t.get_fontsize() < 9}
    assert bold == {"lynx"}
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [1, 0.6, 1, 0.3, 1, 0.001]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_no_text_lies_over_another_or_outside(count):
    figure = class_bars({f"more of a thing with a long name {i}": ANSWER for i in range(count)})
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [t.get_window_extent(renderer) for t in figure.texts]
    width, height = figure.canvas.get_width_height()
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert not any(box.shrunk(0.96, 0.8).overlaps(other.shrunk(0.96, 0.8)) for other in boxes[:i])


def test_percent():
    assert [percent(p) for p in (0, 0.009, 0.01, 0.5, 0.99, 0.999, 1)] == [
        "0 %", "<1 %", "1 %", "50 %", "99 %", ">99 %", "100 %",
    ]  # fmt: skip


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="answers is empty; give at least one"):
        class_bars({})
