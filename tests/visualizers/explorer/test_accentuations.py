import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.visualizers.explorer import explore_accentuations


def write(tmp_path, photo=(3, 4, 6), images=(2, 3, 4, 6), **words):
    given = {"titles": ["a", "b"], "title": "T"} | words
    return explore_accentuations(tmp_path / "page.html", torch.rand(photo), torch.rand(images), **given).read_text()


def test_words_are_escaped_and_masks_may_be_missing(tmp_path):
    page = write(tmp_path, photo=(1, 4, 6), titles=["<a>", "b"], verdicts=[("holds", "of <this>"), ("weak", "of that")])
    assert "&lt;a&gt;" in page and "<a>" not in page and "of &lt;this&gt;" in page
    assert page.count("What the verdicts mean") == 1
    assert 'class="only"' not in page and "data-mask" not in page and page.count('class="opacity"') == 2
    assert page.count('<img class="photo" src="data:') == page.count('<img class="photo" alt') == 1, "one photo, once"
    assert 'id="reduced"' not in page, "all is as it was given"


def test_grad_cam_stands_beside_each(tmp_path):
    cams = torch.stack([torch.arange(24.0).reshape(4, 6), torch.ones(4, 6)])
    page = write(tmp_path, cams=cams, cam_name="Grad-CAM at head: where")
    assert page.count('class="pair"') == page.count('class="cam" src="data:image/png') == 2
    assert page.count("<h3>Grad-CAM at head: where</h3>") == 2 and page.count("The map is constant") == 1
    bare = write(tmp_path)
    assert 'class="pair"' not in bare and "What the verdicts mean" not in bare, "none was given"


def test_a_cam_glows_where_it_is_strong_and_leaves_the_dimmed_photo_elsewhere(tmp_path):
    cam = torch.zeros(1, 4, 6)
    cam[:, :2, :2] = 1
    page = write(tmp_path, photo=(3, 4, 6), images=(1, 3, 4, 6), titles=["a"], cams=cam)
    address = re.search(r'class="cam" src="data:image/png;base64,([^"]+)"', page)[1]
    shown = torch.tensor(np.array(Image.open(io.BytesIO(base64.b64decode(address))))).float() / 255
    strong = cam[0] > 0
    assert shown[strong].mean() > 0.7 and shown[~strong].max() < 0.5
    assert (shown[~strong].amax(-1) - shown[~strong].amin(-1)).max() < 0.02, "grey"


def test_large_photos_stay_below_the_limit_and_are_all_there(tmp_path, g):
    photos, images = (torch.rand(9, 3, 600, 800, generator=g) for _ in range(2))  # noise, than which nothing is larger
    masks = torch.rand(9, 1, 600, 800, generator=g)
    path = tmp_path / "page.html"
    titles = [f"photo {i}" for i in range(9)]
    explore_accentuations(path, photos, images, masks, titles=titles, title="Nine")
    page = path.read_text()
    assert 3_000_000 < path.stat().st_size < 5_000_000
    assert page.count('src="data:image/jpeg') == 18 and page.count("data-mask=") == 9
    assert re.search(r"reduced from 800 x 600 to \d+ x \d+ pixels, to keep the file small enough to send", page)


def test_so_many_that_they_would_be_stamps(tmp_path):
    many = torch.rand(1, 3, 40, 60).expand(2_000, -1, -1, -1)
    with pytest.raises(ValueError, match=r"2,001 pictures do not fit into 0.8 MB, not even at 32 pixels; make several"):
        explore_accentuations(tmp_path / "page.html", many[0], many, titles=["a"] * 2_000, title="Stamps")


@pytest.mark.parametrize(
    "wrong",
    [
        {"photo": (3, 4, 5)},
        {"photo": (3, 3, 4, 6)},
        {"titles": ["a"]},
        {"notes": ["a"]},
        {"images": (3, 4, 6)},
        {"cams": torch.ones(1, 4, 6)},
        {"cams": torch.ones(2, 1, 4, 6)},
    ],
)
def test_what_does_not_fit(tmp_path, wrong):
    with pytest.raises(
        ValueError,
        match=r"wanted \(N, C, H, W\) of the photo's size, at least one, one photo or N, and N of each, cams",
    ):
        write(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_verdict(tmp_path):
    with pytest.raises(ValueError, match="verdict 'fine' is not known"):
        write(tmp_path, verdicts=[("fine", "x"), ("holds", "y")])


def test_no_images(tmp_path):
    with pytest.raises(ValueError, match=r"images have shape \(0, 3, 4, 6\).* at least one"):
        write(tmp_path, images=(0, 3, 4, 6), titles=[])
