import io

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from xinc_captum.visualizers import accentuation_rows, class_bars, dose_strip, score_curve
from xinc_captum.visualizers.accentuation import percent

PHOTO = torch.rand(1, 3, 12, 16)
IMAGES, OPACITIES = torch.rand(2, 3, 12, 16), torch.rand(2, 1, 12, 16)
TRUSTS = [("holds", "nothing speaks against it"), ("fails", "another circuit carries the score " * 6)]


def rows(photos=PHOTO, cams=None, images=IMAGES, opacities=OPACITIES, titles=("lion", "lynx"), **more):
    return accentuation_rows(photos, cams, images, opacities, titles=list(titles), **more)


def words(figure):
    return [t.get_text() for t in figure.texts]


def test_a_row_a_feature_and_four_pictures_a_row():
    figure = rows(cams=torch.rand(2, 12, 16), notes=["logit 1 → 2", "logit 3 → 4"], trusts=TRUSTS)
    assert len(figure.axes) == 8
    first, _, accentuated, masked = (axes.get_images()[0].get_array() for axes in figure.axes[:4])
    np.testing.assert_allclose(first, PHOTO[0].permute(1, 2, 0), atol=1e-6)
    np.testing.assert_allclose(accentuated, IMAGES[0].permute(1, 2, 0), atol=1e-6)
    o = OPACITIES[0]
    np.testing.assert_allclose(masked, (o * IMAGES[0] + (1 - o) * 0.94).permute(1, 2, 0), atol=1e-6)
    assert {"lion", "lynx", "logit 1 → 2", "the photo", "Grad-CAM: where"} <= set(words(figure))


def test_without_maps_there_is_no_such_column():
    figure = rows()
    assert len(figure.axes) == 6
    assert not any("Grad-CAM" in word for word in words(figure))


def test_a_photo_a_row():
    photos = torch.rand(2, 3, 12, 16)
    second = rows(photos).axes[3].get_images()[0].get_array()
    np.testing.assert_allclose(second, photos[1].permute(1, 2, 0), atol=1e-6)


def test_a_verdict_is_a_mark_and_a_word_not_only_a_colour():
    said = words(rows(trusts=TRUSTS))
    assert {"✓ holds", "✗ fails"} <= set(said)
    assert any(word.startswith("because nothing speaks") for word in said)
    assert "≈ weak" in words(rows(trusts=[("weak", "x"), ("holds", "y")]))


@pytest.mark.parametrize("shape", [(12, 16), (60, 10), (10, 60)])
@pytest.mark.parametrize("columns", [3, 4])
def test_no_text_lies_over_another_or_outside(shape, columns, legible):
    images = torch.rand(2, 3, *shape)
    figure = rows(
        images[:1],
        images[:, 0] if columns == 4 else None,
        images,
        images[:, :1],
        ["sulphur-crested cockatoo, Kakatoe galerita, Cacatua galerita and everything that looks like one from afar"]
        * 2,
        notes=["logit −12.3 → 24.5, " * 8] * 2,
        trusts=TRUSTS,
        cam_name="where the unit is active in the photo itself",
        heading="What a network with quite a long name of several words sees in this photo of a long name",
    )
    assert figure.get_figwidth() == 9.0, "900 pixels at 100 dots an inch"
    legible(figure, slack=1)
    assert min(t.get_fontsize() for t in figure.texts) >= 8


def test_equal_pictures_and_grey_images():
    def pixels(figure):
        file = io.BytesIO()
        figure.savefig(file, dpi=50)
        return np.asarray(Image.open(file))

    assert np.array_equal(pixels(rows()), pixels(rows()))
    rows(PHOTO[:, :1], None, IMAGES[:, :1], OPACITIES)


def test_no_figure_is_shown(monkeypatch):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("a library must not call show()"))
    rows()
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": IMAGES[0]}, r"images have shape \(3, 12, 16\); expected \(N, C, H, W\)"),
        ({"photos": torch.rand(1, 3, 8, 8)}, r"photos have shape \(1, 3, 8, 8\) .* of the same height and width"),
        ({"photos": torch.rand(3, 3, 12, 16)}, "expected one for all rows, or one a row"),
        ({"cams": torch.rand(2, 3, 4)}, r"cams have shape \(2, 3, 4\); expected \(2, 12, 16\)"),
        ({"opacities": OPACITIES[:1]}, r"opacities have shape \(1, 1, 12, 16\); expected \(2, 1, 12, 16\)"),
        ({"titles": ["lion"]}, "1 titles for 2 rows; expected one a row"),
        ({"notes": ["a", "b", "c"]}, "3 notes for 2 rows"),
        ({"trusts": TRUSTS[:1]}, "1 trusts for 2 rows"),
        ({"trusts": [("good", "x"), ("holds", "y")]}, "verdict 'good' is not known; expected holds, weak, fails"),
    ],
)
def test_what_does_not_fit_is_said(change, text):
    with pytest.raises(ValueError, match=text):
        rows(**change)


SEED = torch.rand(3, 12, 16)


def strip(doses, **more):
    return dose_strip(torch.rand(len(doses), 3, 12, 16), doses, seed=SEED, **{"title": "lion"} | more)


def framed(figure):
    return [axes.spines["left"].get_visible() for axes in figure.axes]


def test_from_left_to_right_with_the_photo_in_a_frame():
    figure = strip([1.0, -0.5, 0.25])
    said = [word for word in words(figure) if word.startswith("dose") and "bit for bit" not in word]
    assert said == ["dose −0.50", "dose 0", "dose 0.25", "dose 1.00"]
    assert framed(figure) == [False, True, False, False]
    assert "the photo itself" in words(figure)


def test_a_dose_of_zero_is_not_doubled():
    figure = strip([0, 1])
    assert framed(figure) == [True, False]


def test_more_or_less():
    assert "The same photo, more and more lion" in words(strip([0.5, 1]))
    assert "The same photo, less and less lion" in words(strip([-0.5]))
    assert "The same photo, from less to more lion" in words(strip([-0.5, 1]))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_dose_no_text_lies_over_another_or_outside(count, legible):
    figure = strip([0.1 * i for i in range(1, count + 1)], notes=["mean activation 12.3 and more words"] * count)
    legible(figure)


def test_dose_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"images have shape \(2, 3, 4, 4\) for 1 doses; expected one a dose"):
        dose_strip(torch.rand(2, 3, 4, 4), [1], seed=torch.rand(3, 4, 4), title="x")
    with pytest.raises(ValueError, match=r"seed has shape \(3, 5, 4\); expected that of one image, \(3, 4, 4\)"):
        dose_strip(torch.rand(1, 3, 4, 4), [1], seed=torch.rand(3, 5, 4), title="x")
    with pytest.raises(ValueError, match="2 notes for 1 doses"):
        strip([1], notes=["a", "b"])
    with pytest.raises(ValueError, match="2 labels for 1 doses"):
        strip([1], labels=["a", "b"])


def test_labels_in_place_of_doses():
    figure = strip([0.5, 1], labels=["logit 2", "logit 4"])
    assert {"logit 2", "logit 4", "the photo itself"} <= set(words(figure))
    assert not any("dose" in word for word in words(figure))


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
def test_classes_no_text_lies_over_another_or_outside(count):
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


def test_two_panels_whose_axes_say_what_they_are():
    scores, distances = torch.rand(5, 2), torch.rand(5, 2)
    figure = score_curve(scores, distances, titles=["lion", "lynx"], unit="logit", layer="blocks.2")
    left, right = figure.axes
    assert left.get_ylabel() == "logit, mean over the views"
    assert right.get_ylabel() == "distance of features at blocks.2"
    assert left.get_xlabel() == right.get_xlabel() == "steps made"
    np.testing.assert_allclose(left.lines[1].get_ydata(), scores[:, 1])
    np.testing.assert_allclose(right.lines[0].get_ydata(), distances[:, 0])
    assert left.lines[0].get_linestyle() != left.lines[1].get_linestyle(), "told apart without colours"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["lion", "lynx"]


def test_without_distances_there_is_one_panel_and_rows_may_end_early():
    scores = torch.tensor([[1.0, 1.0], [2.0, torch.nan]])
    assert len(score_curve(scores, titles=["a", "b"]).axes) == 1


def test_curve_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"scores have shape \(5,\) for 1 titles; expected \(steps, rows\)"):
        score_curve(torch.rand(5), titles=["a"])
    with pytest.raises(ValueError, match=r"distances have shape \(4, 1\); expected that of the scores, \(5, 1\)"):
        score_curve(torch.rand(5, 1), torch.rand(4, 1), titles=["a"])
