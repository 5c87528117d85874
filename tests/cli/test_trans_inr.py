import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.attributions.trans_inr import TransINR
from xinc_captum.cli import trans_inr
from xinc_captum.cli import trans_inr as trans_inr_page
from xinc_captum.cli.command import UsageError, save_picture
from xinc_captum.cli.trans_inr import LABELS, _doubt, trans_inr_command, write_page
from xinc_captum.cli.trans_inr_results import ModelAndImages, compute_results
from xinc_captum.inr import load, pixel_centres
from xinc_captum.store import StoreError

PICTURES = ("written", "modulation", "token", "patches", "route", "neurons")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty images of 8 x 8 pixels, a bright bar on dark ground."""
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
        patched.setattr(trans_inr_page, "save_picture", partial(save_picture, dpi=40))  # faster
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
    for words in ("every tenth of 40", "the contributions miss", "Attention weights are not shown", "chance"):
        assert words in page
    assert TransINR.load(out / "model.safetensors").config["size"] == (8, 8)


def test_each_network_outputs_the_image_on_the_page(out):
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
    """Write only arrays, because the figures of the page take seconds."""
    monkeypatch.setattr(trans_inr, "write_page", trans_inr_page._arrays)


def test_equal_commands_give_equal_bytes(undrawn, folder, out, tmp_path):
    commanded([folder], tmp_path / "again")
    for name in ("model.safetensors", "contributions.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_a_model_that_is_fitted_already_and_a_single_picture(undrawn, folder, out, tmp_path, capsys):
    model = str(out / "model.safetensors")
    commanded([folder / "bar03.png"], tmp_path / "one", model=model, patch=None, steps=None)
    assert "bar03.png: 1 images" in capsys.readouterr().out
    note = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert note["model"] == model and note["correspondence"] == {} and note["steps"] is None
    assert not (tmp_path / "one" / "model.safetensors").exists()


def test_errors_write_nothing(folder, tmp_path):
    with pytest.raises(UsageError, match="--size is 4; expected at least 8 pixels"):
        commanded([folder], tmp_path / "out", size=4)
    with pytest.raises(UsageError, match="cannot be divided into patches of --patch 5"):
        commanded([folder], tmp_path / "out", patch=5)
    with pytest.raises(StoreError, match="is a file; give a folder"):
        commanded([folder], folder / "bar00.png")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three colour images, and its folder."""
    images = torch.rand(3, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    model = TransINR(3, (8, 12), 4, hidden=6, dim=16, heads=2, ff=16, count=2, groups=3, seed=0)
    model.fit(images, steps=2, validation=None, show_progress=False)
    results = compute_results(ModelAndImages(model, "mine", images, ("a", "b", "c"), "made up", None), "noise", 0)
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trans_inr_page, "save_picture", partial(save_picture, dpi=40))  # faster
        write_page(folder, results)
    return folder, results, re.sub(r"\s+", " ", (folder / "index.html").read_text())


def test_every_number_is_on_the_page(page):
    _, results, text = page
    for name, (dB, _) in results.decibels.items():
        assert f'<th scope="row">{LABELS.get(name, name)}</th><td>{dB:.1f}</td>' in text
    for name, found in results.correspondences.items():
        assert f'<th scope="row">{LABELS.get(name, name)}</th><td>{found.retrieval:.3f}</td>' in text
    assert (
        f"the contributions miss {results.modulation.gap:.2%}" in text
        and f"the contributions miss {results.patch.gap:.2%}" in text
    )
    assert "The 3 images: made up." in text and "token 1: neurons 1, 4" in text
    assert "9 in 3 layers" in text and "3, 3 x 8 x 12" in text


def test_a_model_that_has_learnt_little_gets_a_warning(page):
    _, results, text = page
    (mean, _), (own, _), *_ = results.decibels.values()
    assert own - mean < 3 and f"are only {own - mean:.1f} dB better than the mean image" in text
    known = dict(zip(results.decibels, [(10.0, 3), (13.5, 3), (20.0, 3), (9.0, 3)], strict=True))
    assert _doubt(replace(results, decibels=known)) == ""


def test_every_figure_exists_and_has_one_caption(page):
    folder, _, text = page
    files = re.findall(r'<img src="([^"]+)"', text)
    assert files == [f"{n}.png" for n in ("written", "modulation", "token", "patches", "route", "neurons")]
    assert len(re.findall("<figcaption>", text)) == 6 and all((folder / file).is_file() for file in files)
