import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from xinc_captum.cli import accentuate
from xinc_captum.cli.accentuate import _top, accentuate_command
from xinc_captum.cli.command import UsageError
from xinc_captum.hooks import LayerError
from xinc_captum.images import PhotoError
from xinc_captum.store import StoreError, sha256
from xinc_captum.zoo import Classifier

NUMBERS = itertools.count()
SOURCE = """
import torch
from torch import nn
from xinc_captum.zoo import Classifier, Normalise

def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )

def labelled():
    return Classifier("tiny", plain(), Normalise((0.5,) * 3, (0.5,) * 3), 16, ("red fox", "dog", "lion", "lynx"))
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A module in the current folder, by a name that no other test has imported."""
    folder = tmp_path / "here"
    folder.mkdir()
    name = f"tiny_networks_{next(NUMBERS)}"
    (folder / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    return name


@pytest.fixture
def photo(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (18, 24, 3), dtype=np.uint8)
    Image.fromarray(values).resize((24, 18)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def natural(tmp_path):
    folder = tmp_path / "natural"
    folder.mkdir()
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def run(tiny, photo, natural, tmp_path):
    def go(out="out", **more):
        given = {
            "photo": str(photo),
            "out": tmp_path / out,
            "model": f"{tiny}:labelled",
            "targets": [],
            "layers": [],
            "units": [],
            "dose": None,
            "steps": 2,
            "seed": 0,
            "longer_side": 24,
            "device": "cpu",
            "natural": natural,
        }
        if not {"targets", "layers", "units"} & more.keys():
            given["targets"] = ["lion"]
        accentuate_command(**given | more)
        return tmp_path / out

    return go


def test_the_whole_job(run, photo, capsys):
    out = run(targets=["lion", "3"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["outputs"]) == {p.name for p in out.iterdir()} - {"manifest.json", "times.json"}
    assert all(sha256(out / name) == digest for name, digest in manifest["outputs"].items())
    assert {"index.html", "accentuated.png", "answers.png", "steps.png", "1_lion.png"} <= set(manifest["outputs"])
    assert manifest["inputs"] == {"photo.png": sha256(photo)}
    assert manifest["seed"] == 0 and manifest["settings"]["n_steps"] == 2
    assert [f["title"] for f in manifest["features"]] == ["lion", "lynx"]
    assert len(manifest["model"]["weights_sha256"]) == 64
    assert manifest["natural"] == "12 squares out of 3 photos of natural"
    kept = load_file(out / "accentuation.safetensors")
    assert kept["photo"].shape == kept["1_lion.image"].shape == kept["2_lynx.mask"].shape == (3, 18, 24)
    assert kept["1_lion.scores"].shape == (2, 1) and kept["1_lion.where"].shape == (18, 24)
    assert manifest["features"][0]["after"] > manifest["features"][0]["before"]
    with Image.open(out / "1_lion_through_mask.png") as picture:
        assert picture.mode == "RGBA" and picture.size == (24, 18)
    page = (out / "index.html").read_text()
    assert "Grad-CAM" in page and "12 squares out of 3 photos" in page and "lynx" in page
    said = capsys.readouterr().out
    assert "accentuating lion (1 of 2)" in said and f"open {out / 'index.html'}" in said


def test_units_show_their_activation_instead_of_grad_cam(run, no_ink):
    out = run(layers=["2"], units=[5, 0])
    page = (out / "index.html").read_text()
    assert "where the unit is active" in page and "which says where the class" not in page
    kept = load_file(out / "accentuation.safetensors")
    assert (kept["1_2_unit_5.where"] >= 0).all()
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(a["layer"], a["index"]) for a in manifest["asked"]] == [("2", 5), ("2", 0)]
    assert manifest["second_network"] is None


def test_units_of_two_layers(run, no_ink):
    out = run(layers=["0", "6"], units=[1, 2])
    kept = load_file(out / "accentuation.safetensors")
    assert "1_0_unit_1.where" in kept and "2_6_unit_2.where" not in kept, "a flat layer says no where"


def test_a_module_has_numbered_classes_and_receives_the_photo_unchanged(run, tiny, no_ink):
    out = run(model=f"{tiny}:plain", targets=["2"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["features"][0]["title"] == "class 2"


def test_dose_zero_is_the_photo_itself(run, no_ink):
    out = run(dose=0.0, steps=5)
    kept = load_file(out / "accentuation.safetensors")
    assert torch.equal(kept["1_lion.image"], kept["photo"])
    feature = json.loads((out / "manifest.json").read_text())["features"][0]
    assert feature["before"] == feature["after"] and feature["steps"] == 0


def test_equal_runs_give_equal_bytes(run, little_ink):
    outputs = [json.loads((run(name) / "manifest.json").read_text())["outputs"] for name in ("one", "two")]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"targets": []}, UsageError, "nothing to accentuate; expected --target .* or --layer with --unit"),
        ({"layers": ["0"]}, UsageError, "nothing to accentuate"),
        ({"targets": ["lion"], "units": [1]}, UsageError, "both given; expected one of the two"),
        ({"layers": ["0", "2"], "units": [1, 2, 3]}, UsageError, "--layer is given 2 times and --unit 3 times"),
        ({"targets": ["lyon"]}, UsageError, "--target: 'lyon' is in no label of tiny; the nearest are .*2 'lion'"),
        ({"targets": ["4"]}, UsageError, "class 4 is not one of tiny; expected 0 to 3"),
        ({"layers": ["conv"], "units": [1]}, LayerError, "layer 'conv' is not in the model"),
        ({"layers": ["0"], "units": [6]}, UsageError, "0, unit 6: .*must lie in"),
        ({"dose": float("nan")}, UsageError, "lion: dose is nan; expected one finite number"),
        ({"device": "gpu9"}, UsageError, "device 'gpu9' cannot be used here"),
        ({"model": "resnet50"}, UsageError, "expected one of efficientnet_lite0, .*, or your own function"),
        (
            {"photo": "nowhere.png"},
            FileNotFoundError,
            "is not a file; expected a photo .*, or one of the zoo: astronaut",
        ),
    ],
)
def test_wrong_options_raise_and_write_nothing(run, tmp_path, change, error, text):
    with pytest.raises(error, match=text):
        run(**change)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_bad_photo_or_folder_writes_nothing(run, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(PhotoError, match="cannot be read as a photo"):
        run(photo=str(tmp_path / "notes.txt"))
    with pytest.raises(StoreError, match="is a file; give a folder"):
        run("notes.txt")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_drawing_writes_nothing(run, tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("xinc_captum.cli.accentuate.accentuation_rows", stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_ctrl_c_during_the_optimization_writes_the_results_so_far(run, monkeypatch, capsys, no_ink):
    inner = accentuate._StepImages.__call__

    def stop_at_two(self, step, images, scores):
        if step == 2:
            raise KeyboardInterrupt
        return inner(self, step, images, scores)

    monkeypatch.setattr(accentuate._StepImages, "__call__", stop_at_two)
    out = run(targets=["lion", "lynx"], steps=5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(f["title"], f["interrupted"], f["steps"]) for f in manifest["features"]] == [("lion", True, 2)]
    assert "writing the results of 1 of 2 features" in capsys.readouterr().out
    assert "by Ctrl-C" in (out / "index.html").read_text()


def test_without_natural_images_the_page_states_it(run, monkeypatch, no_ink):
    monkeypatch.setattr(accentuate, "natural_images", lambda *_: None)
    page = (run() / "index.html").read_text()
    assert "There are no natural images to compare the path with" in page
    assert "Doses need natural images" in page


def test_top_classes_need_matching_labels_and_probabilities():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Classifier("means", model, lambda x: x, 8, ("red", "green"))
    photo = torch.rand(1, 3, 8, 8)

    def top(**changed):
        return _top(SimpleNamespace(network=SimpleNamespace(classifier=replace(network, **changed))), photo)

    with pytest.raises(UsageError, match="means has 2 labels for 3 outputs; expected one label for each output"):
        top()
    assert top(labels=()) == top(probability="none") == []
    assert len(top(labels=("red", "green", "blue"), probability="softmax")) == 3
