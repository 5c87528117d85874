import itertools
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from xinc_captum.attributions import Accentuation
from xinc_captum.cli import accentuate
from xinc_captum.cli.accentuate import (
    AccentuationResults,
    FeatureResult,
    _top,
    accentuate_command,
    format_number,
    select_features,
    write_images,
    write_page,
)
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.inputs import InputPhoto
from xinc_captum.cli.main import main
from xinc_captum.cli.models import Network, load_network
from xinc_captum.hooks import LayerError
from xinc_captum.image_model import ImageModel
from xinc_captum.images import PhotoError
from xinc_captum.metrics.trust import Trust, judge_accentuation
from xinc_captum.store import StoreError, sha256
from xinc_captum.zoo.classifiers import imagenet_labels

NUMBERS = itertools.count()
SOURCE = """
import torch
from torch import nn
from xinc_captum.image_model import ImageModel, Normalise

def plain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )

def labelled():
    return ImageModel("tiny", plain(), Normalise((0.5,) * 3, (0.5,) * 3), 16, ("red fox", "dog", "lion", "lynx"))
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


def test_without_a_target_the_class_with_the_highest_output_is_accentuated(run, tiny, no_ink, capsys):
    manifest = json.loads((run(targets=[]) / "manifest.json").read_text())
    (asked,) = manifest["asked"]
    network = load_network(f"{tiny}:labelled", torch.rand(3, 16, 16), torch.device("cpu")).classifier
    photo = load_file(run("again", targets=[str(asked["index"])]) / "accentuation.safetensors")["photo"]
    with torch.no_grad():
        output = network(torch.nn.functional.interpolate(photo[None], (16, 16), mode="bilinear", antialias=True))
    assert asked["index"] == int(output.argmax()) and asked["title"] == network.label(asked["index"])
    assert f"the highest output is that of {asked['title']}" in capsys.readouterr().out


def test_a_unit_of_a_transformer_is_located(run, tmp_path, no_ink, monkeypatch):
    pytest.importorskip("timm", reason="needs timm: pip install 'xinc-captum[timm]'")
    monkeypatch.chdir(tmp_path)
    words = [
        "--model",
        "timm:test_vit",
        "--weights",
        "random",
        "--layer",
        "blocks.2.norm1",
        "--unit",
        "5",
        "--steps",
        "1",
    ]
    monkeypatch.setattr(
        sys, "argv", ["xinc", "accentuate", "photo.png", *words, "--device", "cpu", "--natural", "natural"]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    kept = load_file(tmp_path / "out" / "accentuate" / "accentuation.safetensors")
    where = kept["1_blocks_2_norm1_unit_5.where"]
    assert where.shape == kept["photo"].shape[1:] and where.std() > 0
    feature = json.loads((tmp_path / "out" / "accentuate" / "manifest.json").read_text())["features"][0]
    assert feature["unit"] == "mean activation" and feature["after"] > feature["before"]


def test_a_transformer_of_timm_with_weights_of_a_file_just_works(run, tmp_path, no_ink, monkeypatch):
    timm = pytest.importorskip("timm", reason="needs timm: pip install 'xinc-captum[timm]'")
    network = timm.create_model("test_vit", pretrained=False)
    save_file(network.state_dict(), tmp_path / "my.safetensors")
    monkeypatch.chdir(tmp_path)
    words = ["--model", "timm:test_vit", "--weights", "my.safetensors", "--steps", "1", "--size", "64"]
    monkeypatch.setattr(
        sys, "argv", ["xinc", "accentuate", "photo.png", *words, "--device", "cpu", "--natural", "natural"]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    manifest = json.loads((tmp_path / "out" / "accentuate" / "manifest.json").read_text())
    settings = manifest["call"]["settings"]
    assert settings["weights"] == str(tmp_path / "my.safetensors") in manifest["call"]["files"]
    assert manifest["features"][0]["steps"] == 1 and manifest["asked"][0]["title"] in imagenet_labels()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"layers": ["0"], "targets": []}, UsageError, "nothing to accentuate; expected --target .* or --layer with"),
        ({"targets": ["lion"], "units": [1]}, UsageError, "both given; expected one of the two"),
        ({"layers": ["0", "2"], "units": [1, 2, 3]}, UsageError, "--layer is given 2 times and --unit 3 times"),
        ({"targets": ["lyon"]}, UsageError, "--target: 'lyon' is in no label of tiny; the nearest are .*2 'lion'"),
        ({"targets": ["4"]}, UsageError, "class 4 is not one of tiny; expected 0 to 3"),
        ({"layers": ["conv"], "units": [1]}, LayerError, "layer 'conv' is not in the model"),
        ({"layers": ["0"], "units": [6]}, UsageError, "0, unit 6: .*must lie in"),
        ({"dose": float("nan")}, UsageError, "lion: dose is nan; expected one finite number"),
        ({"device": "gpu9"}, UsageError, "device 'gpu9' cannot be used here"),
        ({"model": "resnet50"}, UsageError, "model 'resnet50' is not known; .* Closest names: 'torchvision:resnet50'"),
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
    network = ImageModel("means", model, lambda x: x, 8, ("red", "green"))
    photo = torch.rand(1, 3, 8, 8)

    def top(**changed):
        return _top(SimpleNamespace(network=SimpleNamespace(classifier=replace(network, **changed))), photo)

    with pytest.raises(UsageError, match="means has 2 labels for 3 outputs; expected one label for each output"):
        top()
    assert top(labels=()) == top(probability="none") == []
    assert len(top(labels=("red", "green", "blue"), probability="softmax")) == 3


PHOTO = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))


def told(*, layer=None, natural=None, second=None, reference=2.0, interrupted=False, steps=(2,), where=True):
    evidence = {"path": 0.6, "natural": 0.7, "transfer": -1.5, "high_frequency": 0.25}
    features = []
    for number, count in enumerate(steps):
        result = Accentuation(
            images=PHOTO[None].flip(-1), masks=PHOTO[None].clone(), seeds=PHOTO[None], scores=torch.ones(count, 1),
            distances=torch.ones(count, 1), before=torch.tensor([1.0]), after=torch.tensor([3.0]), dose=None,
            level=None, steps=count, interrupted=interrupted, feature="f", layer=layer, settings={},
            _assess=lambda _: Trust.of([judge_accentuation(**evidence)]),
        )  # fmt: skip
        asked = SimpleNamespace(title=f"thing {number}", unit="logit" if layer is None else "activation", layer=layer)
        classes = [] if layer else [("fox", 0.5), (f"thing {number}", 0.25)]
        place = torch.rand(24, 32) if where else None
        way = PHOTO.expand(2, 3, 24, 32)
        features.append(FeatureResult(asked, result, place, classes, classes, way, [2.0, 3.0], reference))
    return AccentuationResults(
        InputPhoto("the cat", PHOTO, {}), SimpleNamespace(name="tinynet"), features, natural, second
    )


@pytest.fixture
def page(tmp_path):
    def write(**results):
        write_page(tmp_path, told(**results))
        return (tmp_path / "index.html").read_text(), {p.name for p in tmp_path.iterdir()}

    return write


def test_classes(page):
    natural, second = SimpleNamespace(description="12 squares out of 3 photos"), SimpleNamespace(name="othernet")
    html, files = page(natural=natural, second=second)
    assert {"accentuated.png", "answers.png", "steps.png", "1_thing_0_way.png", "accentuation.safetensors"} <= files
    assert "What tinynet sees in the cat" in html and "32 x 24" in html and "othernet" in html
    assert "Grad-CAM, which shows where" in html and "score, of 12 squares out of 3 photos" in html
    assert "logit 1 → 3" in html and "−1.5" in html and "25 %" in html and "0.60" in html and ">fails<" in html
    assert "Only 2 % of the natural images exceed dose 1" in html and "Ctrl-C" not in html


def test_units(page, no_ink):
    html, files = page(layer="conv")
    assert "where the unit is active in it" in html and "answers.png" not in files
    assert (
        "There are no natural images to compare the path with" in html and "second network" in html and "none" in html
    )


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (None, "Doses need natural images"),
        (1.01, "give no scale of doses here (2 % of the natural images exceed 1.01, the photo has 1)"),
    ],
)
def test_without_a_scale_of_doses_scores_are_shown(page, no_ink, reference, words):
    assert words in page(reference=reference)[0]


def test_interrupted_runs_and_features_of_different_length(page, no_ink):
    html, files = page(interrupted=True, steps=(2, 5), where=False)
    assert "by Ctrl-C" in html and {"1_thing_0_way.png", "2_thing_1_way.png"} <= files


@pytest.fixture
def network():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Network(ImageModel("tiny", model.eval(), lambda x: 2 * x, 8, ("fox", "lion", "lynx")), 8)


VIEW = torch.rand(1, 3, 8, 8)


def test_a_class_is_scored_by_its_logit(network):
    (one,) = select_features(network, ["lion"], [], [])
    assert (one.title, one.index, one.layer, one.unit) == ("lion", 1, None, "logit")
    torch.testing.assert_close(one.scores(VIEW), network.classifier(VIEW)[:, 1].detach())
    assert one.where(VIEW, (5, 6)).shape == (5, 6)


def test_a_unit_is_scored_by_its_mean_and_located_by_its_activation(network):
    (one,) = select_features(network, [], ["1"], [2])
    active = network.classifier.model[:2](2 * VIEW).detach()[:, 2]
    torch.testing.assert_close(one.scores(VIEW), active.mean((1, 2)))
    torch.testing.assert_close(one.where(VIEW, (8, 8)), active[0])
    assert (one.title, one.unit) == ("1, unit 2", "mean activation")


def test_a_channel_of_patch_tokens_is_scored_and_located_without_the_class_token():
    pytest.importorskip("timm", reason="needs timm: pip install 'xinc-captum[timm]'")
    vit = load_network("timm:test_vit", torch.rand(3, 160, 160), torch.device("cpu"), weights="random")
    (one,) = select_features(vit, [], ["blocks.3"], [7])
    view, kept = torch.rand(1, 3, 160, 160), []
    vit.classifier.model.blocks[3].register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        vit.classifier(view)
    patches = kept[0][:, 1:, 7].unflatten(1, (10, 10))
    torch.testing.assert_close(one.scores(view), patches.mean((1, 2)))
    expected = torch.nn.functional.interpolate(patches.relu()[:, None], (20, 30), mode="bilinear")[0, 0]
    torch.testing.assert_close(one.where(view, (20, 30)), expected)


def test_many_images_are_scored_in_batches(network):
    (one,) = select_features(network, ["0"], [], [])
    views = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(one.scores(views, batch_size=2), one.scores(views))


def test_a_network_without_feature_maps_gives_no_location():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    flat = Network(ImageModel("flat", model, lambda x: x, 8, ("a", "b", "c")), 8)
    assert select_features(flat, ["a"], [], [])[0].where(VIEW, (8, 8)) is None
    assert select_features(flat, [], ["1"], [0])[0].where(VIEW, (8, 8)) is None


def test_a_network_without_classes_needs_units(network):
    nameless = Network(ImageModel("image", nn.Conv2d(3, 3, 1), lambda x: x, 8, ()), None)
    with pytest.raises(UsageError, match=r"output of image is not \(images, classes\).*give --layer and --unit"):
        select_features(nameless, ["0"], [], [])


def accentuation(before=1.0, after=3.0):
    photo = torch.rand(1, 3, 6, 8)
    return Accentuation(
        images=photo, masks=photo.abs(), seeds=photo, scores=torch.ones(2, 1), distances=None,
        before=None if before is None else torch.tensor([before]), after=torch.tensor([after]), dose=None, level=None,
        steps=2, interrupted=False, feature="logit 1", layer=None, settings={}, _assess=lambda _: Trust.of([judge_accentuation()]),
    )  # fmt: skip


def feature(before=1.0, after=3.0, reference=2.0, title="Red fox, Vulpes!"):
    asked = SimpleNamespace(title=title, unit="logit", layer=None)
    scores = [2.0, 3.0]
    return FeatureResult(
        asked, accentuation(before, after), torch.ones(6, 8), [], [], torch.rand(2, 3, 6, 8), scores, reference
    )


def test_doses_by_hand():
    """From 1, the dose-1 score is 2: scores of 2 and 3 are doses 1 and 2."""
    one = feature()
    assert one.endpoints == (1.0, 3.0) and one.line == "logit 1 → 3" and one.doses == [1.0, 2.0]
    assert feature(reference=None).doses is None
    assert feature(reference=1.1).doses is None, "20 doses are beyond the scale"
    assert feature(reference=1.25).doses == [4.0, 8.0]
    assert feature(reference=0.5).doses is None, "the photo is beyond dose 1 already"


def test_without_a_photo_there_is_no_score_before():
    before, after = feature(before=None).endpoints
    assert before != before and after == 3.0


def test_file_names_are_ascii():
    assert feature().file(2) == "2_red_fox_vulpes"
    assert feature(title="é1 " + "a" * 60).file(1) == "1_1_" + "a" * 38


def test_the_manifest_has_numbers_and_verdict():
    numbers = feature().numbers()
    assert (numbers["before"], numbers["after"], numbers["steps"], numbers["interrupted"]) == (1.0, 3.0, 2, False)
    assert numbers["verdict"] == "weak" and numbers["because"].startswith("no natural images were given")


def test_all_results_are_stored(tmp_path):
    one, photo = feature(), torch.rand(3, 6, 8)
    write_images(tmp_path, AccentuationResults(InputPhoto("cat", photo, {}), None, [one], None, None))
    kept = load_file(tmp_path / "accentuation.safetensors")
    assert torch.equal(kept["photo"], photo) and torch.equal(kept["1_red_fox_vulpes.image"], one.result.images[0])
    assert "1_red_fox_vulpes.distances" not in kept, "there were none"
    with Image.open(tmp_path / "1_red_fox_vulpes_through_mask.png") as through:
        assert through.mode == "RGBA" and through.size == (8, 6)


@pytest.mark.parametrize(
    ("number", "said"), [(-0.734, "−0.73"), (0.0, "0.00"), (1234.5, "1.23e+03"), (-12.34, "−12.3"), (1, "1")]
)
def test_numbers(number, said):
    assert format_number(number) == said
    assert format_number(12.34, plus=True) == "+12.3"
