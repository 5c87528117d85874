import re
from dataclasses import replace

import pytest
import torch

from xinc_captum.attributions.trans_inr import TransINR
from xinc_captum.cli.trans_inr_model import Written
from xinc_captum.cli.trans_inr_page import _doubt, write_page
from xinc_captum.cli.trans_inr_story import story_of


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three pictures in colour, and where it is."""
    images = torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    model = TransINR(3, (8, 12), 4, hidden=6, dim=16, heads=2, ff=16, count=2, groups=3, seed=0)
    model.fit(images, steps=2, validation=None, show_progress=False)
    story = story_of(Written(model, "mine", images, ("a", "b", "c"), "made up", None), "noise", 0)
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("xinc_captum.cli.trans_inr_page.DPI", 40)  # quicker
        write_page(folder, story)
    return folder, story, re.sub(r"\s+", " ", (folder / "index.html").read_text())


def test_every_figure_is_on_the_page(page):
    _, story, text = page
    for name, (dB, _) in story.decibels.items():
        assert f'<th scope="row">{name}</th><td>{dB:.1f}</td>' in text
    for name, found in story.found.items():
        assert f'<th scope="row">{name}</th><td>{found.retrieval:.3f}</td>' in text
    assert f"the parts miss {story.modulation.gap:.2%}" in text and f"the parts miss {story.patch.gap:.2%}" in text
    assert "The 3 pictures: made up." in text and "wrote neurons 1, 4" in text
    assert "9 in 3 layers" in text and "3, 3 x 8 x 12" in text


def test_a_model_that_has_learnt_little_says_so(page):
    _, story, text = page
    (mean, _), (own, _), *_ = story.decibels.values()
    assert own - mean < 3 and f"draw only {own - mean:.1f} dB better than the mean picture" in text
    known = dict(zip(story.decibels, [(10.0, 3), (13.5, 3), (20.0, 3), (9.0, 3)], strict=True))
    assert _doubt(replace(story, decibels=known)) == ""


def test_every_picture_has_one_caption_and_is_there(page):
    folder, _, text = page
    files = re.findall(r'<img src="([^"]+)"', text)
    assert files == [f"{n}.png" for n in ("written", "modulation", "token", "patches", "route", "neurons")]
    assert len(re.findall("<figcaption>", text)) == 6 and all((folder / file).is_file() for file in files)
