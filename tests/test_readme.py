"""The code of the README runs, and its commands, names and images exist."""

import re
from functools import partialmethod
from pathlib import Path

import torchvision
from PIL import Image
from torchvision.models import resnet18

import xinc_captum
from xinc_captum import FeatureAccentuation

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_import_comes_early():
    lines = README.splitlines()
    assert next(i for i, line in enumerate(lines) if "import" in line) < 20


def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 64), "teal").save("photo.jpg")
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: resnet18())  # weights="DEFAULT" is a download
    few = partialmethod(FeatureAccentuation.accentuate, n_steps=2)  # where the README says no number; seconds each
    monkeypatch.setattr(FeatureAccentuation, "accentuate", few)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) >= 2
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


def test_commands_pictures_and_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)`", README):
        assert f"\n{target}:" in makefile, target
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in xinc_captum.__all__:
        if name not in ("__version__", "CarryError", "LayerError"):
            assert name in README, f"{name} is public but the README does not mention it"
    for folder in re.findall(r"^\s+([a-z_]+)/", README, re.M):
        places = ROOT, ROOT / "xinc_captum", ROOT / "xinc_captum" / "attributions"
        assert any((place / folder).is_dir() for place in places), folder
