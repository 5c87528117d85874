import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers import accentuation_rows, class_bars, dose_strip, score_curve
from xinc_captum.visualizers.layout import percent

PHOTO = torch.rand(1, 3, 12, 16)
IMAGES, OPACITIES = torch.rand(2, 3, 12, 16), torch.rand(2, 1, 12, 16)
TRUSTS = [("holds", "nothing speaks against it"), ("fails", "another circuit carries the score " * 6)]


def rows(photos=PHOTO, cams=None, images=IMAGES, opacities=OPACITIES, titles=("lion", "lynx"), **more):
    return accentuation_rows(photos, cams, images, opacities, titles=list(titles), **more)


def words(figure):
    return [t.get_text() for t in figure.texts]


def test_each_row_has_four_images():
    figure = rows(cams=torch.rand(2, 12, 16), notes=["logit 1 → 2", "logit 3 → 4"], trusts=TRUSTS)
    assert len(figure.axes) == 8
    first, _, accentuated, masked = (axes.get_images()[0].get_array() for axes in figure.axes[:4])
    np.testing.assert_allclose(first, PHOTO[0].permute(1, 2, 0), atol=1e-6)
    np.testing.assert_allclose(accentuated, IMAGES[0].permute(1, 2, 0), atol=1e-6)
    o = OPACITIES[0]
    np.testing.assert_allclose(masked, (o * IMAGES[0] + (1 - o) * 0.94).permute(1, 2, 0), atol=1e-6)
    assert {"lion", "lynx", "logit 1 → 2", "the photo", "Grad-CAM: where"} <= set(words(figure))


def test_the_map_column_is_optional():
    figure = rows()
    assert len(figure.axes) == 6
    assert not any("Grad-CAM" in word for word in words(figure))


def test_each_row_can_have_its_own_photo():
    photos = torch.rand(2, 3, 12, 16)
    second = rows(photos).axes[3].get_images()[0].get_array()
    np.testing.assert_allclose(second, photos[1].permute(1, 2, 0), atol=1e-6)


def test_verdicts_have_a_mark_and_a_word():
    said = words(rows(trusts=TRUSTS))
    assert {"✓ holds", "✗ fails"} <= set(said)
    assert any(word.startswith("because nothing speaks") for word in said)
    assert "≈ weak" in words(rows(trusts=[("weak", "x"), ("holds", "y")]))


def test_figures_are_deterministic_and_accept_grey_images():
    def pixels(figure):
        file = io.BytesIO()
        figure.savefig(file, dpi=50)
        return np.asarray(Image.open(file))

    assert np.array_equal(pixels(rows()), pixels(rows()))
    rows(PHOTO[:, :1], None, IMAGES[:, :1], OPACITIES)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": IMAGES[0]}, r"images has shape \(3, 12, 16\); expected \(N, C, H, W\)"),
        (
            {"photos": torch.rand(1, 3, 8, 8)},
            r"photos has shape \(1, 3, 8, 8\); expected \(1, c, H, W\) with H = 12, W = 16",
        ),
        (
            {"photos": torch.rand(3, 3, 12, 16)},
            r"photos has shape \(3, 3, 12, 16\); expected \(N, c, H, W\) with N = 2, H = 12, W = 16",
        ),
        ({"cams": torch.rand(2, 3, 4)}, r"cams has shape \(2, 3, 4\); expected \(N, H, W\) with N = 2, H = 12, W = 16"),
        (
            {"opacities": OPACITIES[:1]},
            r"opacities has shape \(1, 1, 12, 16\); expected \(N, 1, H, W\) with N = 2, H = 12, W = 16",
        ),
        ({"titles": ["lion"]}, "titles has 1 entries; expected N = 2"),
        ({"notes": ["a", "b", "c"]}, "notes has 3 entries; expected N = 2"),
        ({"trusts": TRUSTS[:1]}, "trusts has 1 entries; expected N = 2"),
        ({"trusts": [("good", "x"), ("holds", "y")]}, "verdict 'good' is not known; expected holds, weak, fails"),
    ],
)
def test_accentuation_rows_reject_wrong_inputs(change, text):
    with pytest.raises(ValueError, match=text):
        rows(**change)


SEED = torch.rand(3, 12, 16)


def strip(doses, **more):
    return dose_strip(torch.rand(len(doses), 3, 12, 16), doses, seed=SEED, **{"title": "lion"} | more)


def framed(figure):
    return [axes.spines["left"].get_visible() for axes in figure.axes]


def test_doses_are_sorted_and_the_photo_has_a_frame():
    figure = strip([1.0, -0.5, 0.25])
    said = [word for word in words(figure) if word.startswith("dose") and "bit-identical" not in word]
    assert said == ["dose −0.50", "dose 0", "dose 0.25", "dose 1.00"]
    assert framed(figure) == [False, True, False, False]
    assert "the unchanged photo" in words(figure)


def test_a_given_dose_of_zero_is_not_repeated():
    figure = strip([0, 1])
    assert framed(figure) == [True, False]


def test_the_title_names_the_direction_of_doses():
    assert "The same photo, more and more lion" in words(strip([0.5, 1]))
    assert "The same photo, less and less lion" in words(strip([-0.5]))
    assert "The same photo, from less to more lion" in words(strip([-0.5, 1]))


def test_dose_strip_rejects_wrong_inputs():
    with pytest.raises(ValueError, match=r"images has shape \(2, 3, 4, 4\); expected \(K, C, H, W\) with K = 1"):
        dose_strip(torch.rand(2, 3, 4, 4), [1], seed=torch.rand(3, 4, 4), title="x")
    with pytest.raises(ValueError, match=r"seed has shape \(3, 5, 4\); expected \(C, H, W\) with C = 3, H = 4, W = 4"):
        dose_strip(torch.rand(1, 3, 4, 4), [1], seed=torch.rand(3, 5, 4), title="x")
    with pytest.raises(ValueError, match="notes has 2 entries; expected K = 1"):
        strip([1], notes=["a", "b"])
    with pytest.raises(ValueError, match="labels has 2 entries; expected K = 1"):
        strip([1], labels=["a", "b"])


def test_labels_replace_doses():
    figure = strip([0.5, 1], labels=["logit 2", "logit 4"])
    assert {"logit 2", "logit 4", "the unchanged photo"} <= set(words(figure))
    assert not any("dose" in word for word in words(figure))


PREDICTIONS = [
    ("tabby", 0.6),
    ("a label of so many words that it cannot stand in one column at all", 0.3),
    ("lynx", 0.001),
]


def test_class_bars_show_labels_and_probabilities():
    figure = class_bars({"the photo": PREDICTIONS, "more lynx": [("lynx", 0.999)]}, marked=["lynx"])
    words = [t.get_text() for t in figure.texts]
    assert {"the photo", "more lynx", "tabby", "60 %", "<1 %", ">99 %"} <= set(words)
    assert any(word.startswith("a label of") and word.endswith("…") for word in words)
    bold = {t.get_text() for t in figure.texts if t.get_weight() == "bold" and t.get_fontsize() < 9}
    assert bold == {"lynx"}
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [1, 0.6, 1, 0.3, 1, 0.001]


def test_percent():
    assert [percent(p) for p in (0, 0.009, 0.01, 0.5, 0.99, 0.999, 1)] == [
        "0 %", "<1 %", "1 %", "50 %", "99 %", ">99 %", "100 %",
    ]  # fmt: skip


def test_class_bars_reject_empty_predictions():
    with pytest.raises(ValueError, match="predictions is empty; expected at least one"):
        class_bars({})


def test_score_curve_labels_its_axes():
    scores, distances = torch.rand(5, 2), torch.rand(5, 2)
    figure = score_curve(scores, distances, titles=["lion", "lynx"], unit="logit", layer="blocks.2")
    left, right = figure.axes
    assert left.get_ylabel() == "logit, mean over augmentations"
    assert right.get_ylabel() == "distance of features at blocks.2"
    assert left.get_xlabel() == right.get_xlabel() == "optimization step"
    np.testing.assert_allclose(left.lines[1].get_ydata(), scores[:, 1])
    np.testing.assert_allclose(right.lines[0].get_ydata(), distances[:, 0])
    assert left.lines[0].get_linestyle() != left.lines[1].get_linestyle(), "lines differ without their colours"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["lion", "lynx"]


def test_score_curve_without_distances_has_one_panel():
    scores = torch.tensor([[1.0, 1.0], [2.0, torch.nan]])
    assert len(score_curve(scores, titles=["a", "b"]).axes) == 1
    assert len(score_curve(scores[:0], titles=["a", "b"]).axes) == 1, "nothing is optimized at dose 0"


def test_score_curve_rejects_wrong_inputs():
    with pytest.raises(ValueError, match=r"scores has shape \(5,\); expected \(steps, N\) with N = 1"):
        score_curve(torch.rand(5), titles=["a"])
    with pytest.raises(ValueError, match=r"distances has shape \(4, 1\); expected \(steps, N\) with steps = 5, N = 1"):
        score_curve(torch.rand(5, 1), torch.rand(4, 1), titles=["a"])
