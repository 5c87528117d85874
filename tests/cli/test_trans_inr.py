import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.attributions.trans_inr import TransINR, mean_psnr
from xinc_captum.cli import trans_inr
from xinc_captum.cli import trans_inr as trans_inr_page
from xinc_captum.cli.command import UsageError, save_picture
from xinc_captum.cli.inputs import SmallImages
from xinc_captum.cli.trans_inr import (
    LABELS,
    ModelAndImages,
    _doubt,
    compute_results,
    load_model,
    load_or_fit,
    most_distinct,
    render_image,
    settings_for,
    trans_inr_command,
    write_page,
)
from xinc_captum.inr import load, pixel_centres
from xinc_captum.store import StoreError
from xinc_captum.zoo import mnist_trans_inr

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


CPU = torch.device("cpu")


def some(count=40, channels=1, size=8, name="some"):
    images = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))
    return SmallImages(name, images, tuple(f"p{i}" for i in range(count)), {})


def called(pictures, model=None, patch=None, steps=None):
    return load_or_fit(pictures, model, patch, steps, 0, CPU)


def test_a_tenth_of_the_images_is_held_out_from_a_fit():
    pictures = some()
    found = called(pictures, steps=2)
    assert found.name == "fit" and found.fit.steps == 2 and found.names == ("p0", "p10", "p20", "p30")
    torch.testing.assert_close(found.images, pictures.images[::10])
    train = pictures.images[torch.arange(40) % 10 != 0]
    torch.testing.assert_close(found.model.mean_image, train.mean(0), msg="of those that are not held out")
    assert "every tenth of 40" in found.description


def test_a_model_file_is_loaded(tmp_path):
    model = TransINR(hidden=4, groups=2, seed=3)
    model.save(tmp_path / "m.safetensors")
    found = called(some(5), str(tmp_path / "m.safetensors"))
    assert found.fit is None and len(found.images) == 5 and "is unknown" in found.description
    torch.testing.assert_close(found.model(found.images), model(found.images))


def test_the_shipped_one_is_for_the_digits_of_the_zoo_only():
    digits = some(20, size=28, name="mnist_digits")
    found = called(digits)
    assert found.name == "mnist_trans_inr" and found.names == ("p0", "p10")
    assert "held out" in found.description
    assert len(called(some(20, size=28), "mnist_trans_inr").images) == 20, "others are all shown, if it is asked for"
    with pytest.raises(UsageError, match="20 images to fit to"):
        called(some(20, size=28))
    with pytest.raises(UsageError, match="20 images to fit to"):
        called(digits, steps=2)
    assert load_model("mnist_trans_inr").config == mnist_trans_inr().config


@pytest.mark.parametrize(
    ("size", "patch", "highest"), [(8, 2, 4), (16, 2, 8), (28, 4, 14), (32, 4, 16), (64, 8, 32), (48, 6, 24)]
)
def test_settings_of_a_size(size, patch, highest):
    found = settings_for((size, size), 3, None)
    assert (found["patch"], found["highest"], found["channels"]) == (patch, highest, 3)
    TransINR(**found)


def test_oblong_pictures():
    assert settings_for((24, 32), 1, None)["patch"] == 4


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: called(some(12)), r"12 images to fit to, of which a tenth is held out; expected at least 40"),
        (lambda: called(some(1)), r"1 image to fit to"),
        (
            lambda: called(some(40, size=29)),
            r"29 x 29 pixels \(high x wide\) cannot be divided .* give --size 28 or 32",
        ),
        (lambda: called(some(40), patch=3), r"8 x 8 pixels cannot be divided into patches of --patch 3; give one of 2"),
        (
            lambda: called(some(), "mnist_trans_inr", steps=3),
            "--patch and --steps are for a fit, and mnist_trans_inr is",
        ),
        (lambda: called(some(2, 3, 28), "mnist_trans_inr"), "in colour, and mnist_trans_inr has 1 channel"),
        (
            lambda: called(some(2, size=9), "mnist_trans_inr"),
            r"cannot be applied to these images: .* does not tile into",
        ),
    ],
)
def test_pictures_that_do_not_fit(call, text):
    with pytest.raises(UsageError, match=text):
        call()


def test_files_without_a_model_raise(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none is not a file; expected a file of TransINR.save, mnist_tr"):
        load_model("none")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(UsageError, match="--model: .* is not a complete safetensors file"):
        load_model(str(tmp_path / "text"))


def test_a_checkpoint_of_another_configuration(tmp_path):
    model = TransINR(hidden=4, groups=2, seed=3)
    model.config["hidden"] = 8
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="--model: the tensors of .* do not fit: mean_modulation1 has shape"):
        load_model(str(tmp_path / "m.safetensors"))


def written(count, channels=1):
    g = torch.Generator().manual_seed(0)
    images = torch.rand(count, channels, 8, 8, generator=g)
    model = TransINR(channels, (8, 8), 4, hidden=4, dim=16, heads=2, ff=16, count=2, groups=4, seed=0)
    model.fit(images, steps=2, validation=None, show_progress=False)
    return ModelAndImages(model, "fit", images, tuple(map(str, range(count))), "seen", None)


@pytest.fixture(scope="module")
def results():
    return compute_results(written(11, 3), "noise", 0)


def test_shown_images_are_evenly_spaced(results):
    assert results.rows[0] == 0 and results.rows[-1] == 10 and len(results.rows) == 8
    torch.testing.assert_close(results.images, results.source.images[list(results.rows)])
    assert len(results.explained) == 4


def test_decibels_match_their_names(results):
    images, model = results.source.images, results.source.model
    with torch.no_grad():
        drawn = mean_psnr(model(images), images)
    flat = mean_psnr(images.mean(0).expand_as(images), images)
    (mean, n), (own, m), (more, k), (scratch, _) = results.decibels.values()
    assert (n, m, k) == (11, 11, 8)
    assert mean == pytest.approx(flat, abs=1e-4) and own == pytest.approx(drawn, abs=1e-4)
    assert more > sum(results.rendered["as generated"][1]) / 8, "steps help"
    assert scratch == pytest.approx(sum(results.rendered["10 steps from random weights"][1]) / 8)


def test_networks_output_the_images_shown(results):
    pictures, decibels = results.rendered["as generated"]
    with torch.no_grad():
        torch.testing.assert_close(pictures, results.source.model(results.images), atol=1e-5, rtol=0)
    torch.testing.assert_close(render_image(results.networks[2], (8, 8)), pictures[2])
    assert decibels[1] == pytest.approx(mean_psnr(pictures[1:2], results.images[1:2]))


def test_contributions_sum_up_to_the_reported_gap(results):
    with torch.no_grad():
        drawn = results.source.model(results.explained)
    assert results.token.values.shape == (4, 5, 3, 8, 8) and results.token.gap < 1e-5
    assert results.modulation.values.shape == (4, 4 + 4 + 3 + 1, 3, 8, 8)
    for parts in (results.token, results.modulation, results.patch):
        missed = (parts.values.sum(1) - drawn[: len(parts.values)]).abs().sum()
        change = (drawn[: len(parts.values)] - parts.values[:, -1]).abs().sum()
        assert parts.gap == pytest.approx(float(missed / change), rel=1e-3, abs=1e-9)
    assert results.modulation.gap < 0.2 and results.patch.gap < 0.2


def test_the_route_is_of_the_strongest_patches(results):
    amounts = results.patch.values[0, :-1].abs().sum((1, 2, 3))
    assert results.route_patches == tuple(amounts.argsort(descending=True)[:3].tolist())
    torch.testing.assert_close(
        results.route.values.sum(1), results.patch.values[0, list(results.route_patches)], atol=1e-5, rtol=0
    )
    assert results.route.gap < 1e-4


def test_neurons_are_compared_with_their_controls(results):
    assert list(results.correspondences) == [
        "written by the transformer",
        "random starts, 100 steps each",
        "written before any fit",
    ]
    assert results.neurons.shape == (8, 4, 3, 8, 8) and results.layer == "linear2"
    assert (
        results.correspondences["written by the transformer"].retrieval
        > results.correspondences["random starts, 100 steps each"].retrieval
    )


def test_a_single_picture_has_nothing_to_be_compared_with():
    alone = written(2)
    one = ModelAndImages(alone.model, "m", alone.images[:1], ("0",), "seen", None)
    results = compute_results(one, "one", 0)
    assert not results.correspondences and len(results.images) == len(results.patch.values) == 1


def test_the_most_distinct_entries():
    maps = torch.zeros(2, 4, 1, 2, 2)
    maps[:, 0] = 9.0  # large, and always the same
    maps[0, 2], maps[1, 1] = 2.0, 1.0
    maps[:, 3] = torch.tensor([10.0, 6.0])[:, None, None, None]  # differs as much as entry 2, in a large background
    assert most_distinct(maps, 4) == [2, 1, 3, 0]
    assert most_distinct(maps[:1], 2) == [3, 0]
