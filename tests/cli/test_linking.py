"""The three commands of links on a network and a generator that take no time."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.flip import Method, counterfactual_command
from xinc_captum.cli.link import Variant, link_command
from xinc_captum.cli.main import app
from xinc_captum.cli.sweep import Mode, Span, Way, sweep_command
from xinc_captum.hooks import LayerError
from xinc_captum.store import StoreError, sha256

NUMBERS = itertools.count()
SOURCE = """
import torch
from torch import nn
from xinc_captum.generators import EigenGenerator
from xinc_captum.zoo import Classifier, Normalise

PLACES = torch.zeros(3, 1, 8, 8)
PLACES[0, :, :4], PLACES[1, :, 4:], PLACES[2, :, :, :4] = 0.8, 0.8, 0.8

def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Linear(12, 3, bias=False))
    with torch.no_grad():
        model[2].weight.zero_()
        for c in range(3):
            model[1].weight[c] = (PLACES[c] - PLACES.mean(0)).flatten() / 8
            model[2].weight[c, c] = 1.0
        model[1].bias[:3] = -(model[1].weight[:3] @ PLACES.mean(0).flatten())
    return Classifier("places", model.eval(), Normalise((0.0,), (1.0,)), 8, ("upper", "lower", "left"))

def draw():
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = (PLACES[labels] + 0.1 * torch.randn(90, 1, 8, 8, generator=stream)).clamp(0, 1)
    return EigenGenerator(images, labels, components=8)

def faulty():
    return 3
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the module of both ends, and a link between them."""
    folder = tmp_path_factory.mktemp("here")
    name = f"tiny_ends_{next(NUMBERS)}"
    (folder / f"{name}.py").write_text(SOURCE)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    link_command(
        folder / "link", f"{name}:net", f"{name}:draw", None, Variant.linear, 240, 0.7, None, 0, "cpu"
    )  # fmt: skip
    yield folder, name
    patch.undo()


def note(folder):
    return json.loads((folder / "manifest.json").read_text())


def swept(folder, out, units, **more):
    given = {"photos": [], "span": Span.quantile, "way": Way.marginal, "mode": Mode.anchored, "steps": 4, "count": 3}
    sweep_command(folder, out, units, **given | {"seed": 0, "device": "cpu"} | more)


def flipped(folder, out, target="lower", **more):
    given = {"photos": [], "method": Method.ray, "confidence": 0.0, "count": 3, "seed": 0, "device": "cpu"}
    counterfactual_command(folder, out, target, **given | more)


def test_a_link_is_found_audited_and_shown(place):
    folder, name = place[0] / "link", place[1]
    said = note(folder)
    assert said["ends"] == {"model": f"{name}:net", "generator": f"{name}:draw", "layer": "2"}
    assert all(sha256(folder / file) == digest for file, digest in said["outputs"].items())
    wanted = {"index.html", "audit.png", "units.png", "selectivity.png", "units.csv", "link.safetensors"}
    assert wanted <= set(said["outputs"])
    assert said["audit"]["generated"]["value"] > 0.9 and said["pairs"]["count"] == 240
    assert "unit_cycle" not in said["audit"], "thousands of units do not belong into a manifest"
    assert 3 <= len(said["units"]) <= 12
    lines = list(csv.DictReader((folder / "units.csv").read_text().splitlines()))
    assert len(lines) == 3 * len(said["units"]) and {line["part"] for line in lines} == {
        "upper third", "middle third", "lower third",
    }  # fmt: skip
    assert said["trust"] in (folder / "index.html").read_text().replace("&#39;", "'")


def test_the_unit_of_the_upper_half_lights_the_upper_half(place):
    rows = list(csv.DictReader((place[0] / "link" / "units.csv").read_text().splitlines()))
    change = {row["part"]: float(row["change"]) for row in rows if row["unit"] == "0"}
    assert change["upper third"] > 0.02 > change["lower third"]


def test_a_sweep_takes_nothing_but_the_folder(place, tmp_path, capsys):
    swept(place[0] / "link", tmp_path / "out", [0, 2])
    said = note(tmp_path / "out")
    assert [u["unit"] for u in said["units"]] == [0, 2] and said["link"]["trust"] == note(place[0] / "link")["trust"]
    kept = load_file(tmp_path / "out" / "sweeps.safetensors")
    assert kept["unit_0.images"].shape == (3, 4, 1, 8, 8) and kept["unit_0.measured"].shape == (3, 4)
    assert (kept["unit_0.measured"][:, -1] > kept["unit_0.measured"][:, 0]).all(), "the unit follows"
    assert (tmp_path / "out" / "unit_2.png").is_file()
    assert "unit 0 " in capsys.readouterr().out


def test_photos_are_cropped_to_what_the_generator_draws(place, tmp_path):
    values = np.zeros((40, 60, 3), np.uint8)
    values[:20] = 255
    Image.fromarray(values).save(tmp_path / "bright_above.png")
    swept(place[0] / "link", tmp_path / "out", [1], photos=[tmp_path / "bright_above.png"])
    start = load_file(tmp_path / "out" / "sweeps.safetensors")["starts"]
    assert start.shape == (1, 1, 8, 8) and start[0, 0, :4].mean() > 0.9 and start[0, 0, 4:].mean() < 0.1
    assert note(tmp_path / "out")["inputs"] == {"bright_above.png": sha256(tmp_path / "bright_above.png")}


@pytest.mark.parametrize("method", [Method.ray, Method.latent, Method.minimal])
def test_another_answer_is_reached_or_said_not_to_be(place, tmp_path, method):
    flipped(place[0] / "link", tmp_path / "out", method=method, count=4)
    said = note(tmp_path / "out")
    kept = load_file(tmp_path / "out" / "counterfactuals.safetensors")
    answers = kept["scores"].argmax(1)
    assert len(said["reached"]) == 3, "the picture that is of the target already is left out"
    assert [bool(a == 1) for a in answers] == said["reached"]
    if method in (Method.ray, Method.latent):
        assert all(said["reached"])
    assert "reached" in (tmp_path / "out" / "index.html").read_text()


def test_what_cannot_be_used_is_said(place, tmp_path):
    link = place[0] / "link"
    with pytest.raises(UsageError, match="no unit to sweep; give --unit"):
        swept(link, tmp_path / "out", [])
    with pytest.raises(UsageError, match="12"):
        swept(link, tmp_path / "out", [99])
    with pytest.raises(UsageError, match="--target: .*'nose'"):
        flipped(link, tmp_path / "out", "nose")
    with pytest.raises(FileNotFoundError, match="is not a folder; wanted one that xinc link wrote"):
        swept(tmp_path / "none", tmp_path / "out", [0])
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match=r"holds no link; wanted a folder that xinc link wrote, with manifest.json"):
        swept(tmp_path / "other", tmp_path / "out", [0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is left alone"):
        swept(link, tmp_path / "mine", [0])
    assert not (tmp_path / "out").exists()


def test_a_pickle_in_the_place_of_the_link_is_never_opened(place, tmp_path):
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "manifest.json").write_text((place[0] / "link" / "manifest.json").read_text())
    torch.save({"weight": torch.ones(2)}, tmp_path / "link" / "link.safetensors")
    with pytest.raises(UsageError, match=r"the link in .* cannot be used: .*pickle"):
        swept(tmp_path / "link", tmp_path / "out", [0])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"generator": "nobody"}, UsageError, "generator 'nobody' is not in the zoo; wanted one of mnist_generator"),
        ({"generator": "{}:faulty"}, UsageError, "int has no image_range"),
        ({"layer": "7"}, LayerError, "7"),
        ({"pairs": 4}, UsageError, "--pairs|pairs"),
        ({"real": "no/such/folder"}, UsageError, "--real no/such/folder is no folder"),
        ({"real": "mnist_digits"}, UsageError, "are grey, 28 x 28; the generator draws"),
        ({"model": "efficientnet_lite7"}, UsageError, "is no classifier of the zoo"),
    ],
)
def test_ends_that_cannot_be_linked_are_said(place, tmp_path, change, error, says):
    _, name = place
    given = {
        "model": f"{name}:net", "generator": f"{name}:draw", "layer": None, "variant": Variant.linear, "pairs": 60,
        "truncation": 0.7, "real": None, "seed": 0, "device": "cpu",
    } | {key: value.format(name) if isinstance(value, str) else value for key, value in change.items()}  # fmt: skip
    with pytest.raises(error, match=says):
        link_command(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_help_and_failures_of_the_commands():
    for words in (["link", "--help"], ["sweep", "--help"], ["counterfactual", "--help"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert isinstance(
        CliRunner().invoke(app, ["sweep", "nowhere", "--unit", "1", "--out", "x"]).exception, FileNotFoundError
    )
