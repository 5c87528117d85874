"""The README: its code runs, its size is limited, its commands, names, links and pictures exist."""

import re
from functools import partial, partialmethod
from pathlib import Path

from PIL import Image

import xinc_captum
from xinc_captum import FeatureAccentuation

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_size_is_limited():
    assert len(README.encode()) <= 10_000


def test_first_import_is_near_the_top():
    assert next(i for i, line in enumerate(README.splitlines()) if "import" in line) < 40


def test_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 64), "teal").save("photo.jpg")
    random = partial(xinc_captum.load_model, weights="random")  # the default downloads
    monkeypatch.setattr(xinc_captum, "load_model", random)
    short = partialmethod(FeatureAccentuation.accentuate, n_steps=2)  # the default takes too long for a test
    monkeypatch.setattr(FeatureAccentuation, "accentuate", short)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) >= 2
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


def test_commands_pictures_and_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", README, re.M):
        assert f"\n{target}:" in makefile, target
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in xinc_captum.__all__:
        if name != "__version__":
            assert name in README, f"{name} is public but the README does not mention it"


def test_layout_of_the_contributing_page_exists():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parents = ROOT, ROOT / "xinc_captum", ROOT / "xinc_captum" / "attributions"
    folders = re.findall(r"^\s*([a-z_]+)/", contributing, re.M)
    assert len(folders) >= 17
    for folder in folders:
        assert any((parent / folder).is_dir() for parent in parents), folder
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", contributing, re.M):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target
