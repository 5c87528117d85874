import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.attributions.trans_inr import TransINR
from xinc_captum.cli import trans_inr
from xinc_captum.cli import trans_inr as trans_inr_page
from xinc_captum.cli.errors import UsageError
from xinc_captum.cli.trans_inr import _doubt, trans_inr_command, write_page
from xinc_captum.cli.trans_inr_results import ModelAndImages, compute_results
from xinc_captum.inr import load, pixel_centres
from xinc_captum.store import StoreError

PICTURES = ("written", "modulation", "token", "patches", "route", "neurons")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures of 8 x 8, a bright bar on dark ground."""
    place = tmp_path_factory.mktemp("bars")
    for i in range(40):
        values = np.full((8, 8), 20, dtype=np.uint8)
        values[:, i % 8] = 200 + i
        Image.fromarray(values).save(place / f"bar{i:02}.png")
    return place


def commanded(sources, out, **more):
    given = {"model": None, "size": None, "patch": 4, "steps": 2, "seed": 0, "device": "cpu"}
    trans_inr_command([str(source) for source in sources], out, **given | more)


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("out") / "result"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trans_inr_page, "DPI", 40)  # quicker
        commanded([folder], place)
    return place


def test_a_folder_with_everything(out):
    note = json.loads((out / "manifest.json").read_text())
    assert note["model"] == "fit" and note["steps"] == 2 and note["shown"] == ["bar00", "bar10", "bar20", "bar30"]
    assert {*note["gaps"]} == {"token", "modulation", "patch", "route"} and len(note["decibels"]) == 4
    page = (out / "index.html").read_text()
    for name in PICTURES:
        assert f"{name}.png" in page
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 300
    for words in ("every tenth of 40", "the parts miss", "where a token looked, not what came of it", "guessing"):
        assert words in page
    assert TransINR.load(out / "model.safetensors").config["size"] == (8, 8)


def test_each_network_draws_its_picture_as_the_page_says(out):
    arrays = load_file(out / "contributions.safetensors")
    assert sorted(path.name for path in (out / "networks").iterdir()) == [f"{i}.safetensors" for i in range(4)]
    for i in range(4):
        model, size = load(out / "networks" / f"{i}.safetensors")
        picture = model(pixel_centres(size)).T.reshape(-1, *size)
        torch.testing.assert_close(picture, arrays["drawn"][i], atol=1e-5, rtol=0)
    torch.testing.assert_close(arrays["token"].sum(1), arrays["drawn"][[0, 1, 2, 3]], atol=1e-4, rtol=0)
    assert arrays["route"].shape == (3, 33, 1, 8, 8) and arrays["route_patches"].shape == (3,)


@pytest.fixture
def undrawn(monkeypatch):
    """Arrays in place of the page, whose pictures take seconds."""
    monkeypatch.setattr(trans_inr, "write_page", trans_inr_page._arrays)


def test_the_same_words_give_the_same_bytes(undrawn, folder, out, tmp_path):
    commanded([folder], tmp_path / "again")
    for name in ("model.safetensors", "contributions.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_a_model_that_is_fitted_already_and_a_single_picture(undrawn, folder, out, tmp_path, capsys):
    model = str(out / "model.safetensors")
    commanded([folder / "bar03.png"], tmp_path / "one", model=model, patch=None, steps=None)
    assert "bar03.png: 1 pictures" in capsys.readouterr().out
    note = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert note["model"] == model and note["correspondence"] == {} and note["steps"] is None
    assert not (tmp_path / "one" / "model.safetensors").exists()


def test_nothing_is_left_where_it_cannot_go_on(folder, tmp_path):
    with pytest.raises(UsageError, match="--size is 4; expected at least 8 pixels"):
        commanded([folder], tmp_path / "out", size=4)
    with pytest.raises(UsageError, match="do not tile into patches of --patch 5"):
        commanded([folder], tmp_path / "out", patch=5)
    with pytest.raises(StoreError, match="is a file; give a folder"):
        commanded([folder], folder / "bar00.png")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three pictures in colour, and where it is."""
    images = torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    model = TransINR(3, (8, 12), 4, hidden=6, dim=16, heads=2, ff=16, count=2, groups=3, seed=0)
    model.fit(images, steps=2, validation=None, show_progress=False)
    story = compute_results(ModelAndImages(model, "mine", images, ("a", "b", "c"), "made up", None), "noise", 0)
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("xinc_captum.cli.trans_inr.DPI", 40)  # quicker
        write_page(folder, story)
    return folder, story, re.sub(r"\s+", " ", (folder / "index.html").read_text())


def test_every_figure_is_on_the_page(page):
    _, story, text = page
    for name, (dB, _) in story.decibels.items():
        assert f'<th scope="row">{name}</th><td>{dB:.1f}</td>' in text
    for name, found in story.correspondences.items():
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
