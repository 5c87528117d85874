import io

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers import accentuation_rows

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
        ({"images": IMAGES[0]}, r"images have shape \(3, 12, 16\); wanted \(N, C, H, W\)"),
        ({"photos": torch.rand(1, 3, 8, 8)}, r"photos have shape \(1, 3, 8, 8\) .* of the same height and width"),
        ({"photos": torch.rand(3, 3, 12, 16)}, "wanted one for all rows, or one a row"),
        ({"cams": torch.rand(2, 3, 4)}, r"cams have shape \(2, 3, 4\); wanted \(2, 12, 16\)"),
        ({"opacities": OPACITIES[:1]}, r"opacities have shape \(1, 1, 12, 16\); wanted \(2, 1, 12, 16\)"),
        ({"titles": ["lion"]}, "1 titles for 2 rows; wanted one a row"),
        ({"notes": ["a", "b", "c"]}, "3 notes for 2 rows"),
        ({"trusts": TRUSTS[:1]}, "1 trusts for 2 rows"),
        ({"trusts": [("good", "x"), ("holds", "y")]}, "verdict 'good' is not known; wanted holds, weak, fails"),
    ],
)
def test_what_does_not_fit_is_said(change, text):
    with pytest.raises(ValueError, match=text):
        rows(**change)
