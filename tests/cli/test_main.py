import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

import xinc_captum
from xinc_captum.cli.main import app


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"xinc-captum {xinc_captum.__version__}"


@pytest.mark.parametrize("words", [["--help"], ["canvas", "--help"], ["accentuate", "--help"], ["demo", "--help"]])
def test_help_says_what_it_does(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_foreseeable_failures_are_one_line_and_status_one(tmp_path):
    command = [sys.executable, "-c", "from xinc_captum.cli import main; main()", "canvas"]
    done = subprocess.run(
        [*command, str(tmp_path / "none.png"), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("xinc: ") and "is not a file; wanted a photo" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_one_line_with_the_command(tmp_path):
    code = (
        "from xinc_captum import zoo; from xinc_captum.cli import main; "
        "zoo.classifier = lambda name: (_ for _ in ()).throw(zoo.AssetError('timm is not installed. Run: pip install x'));"
        "main()"
    )
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    words = ["accentuate", str(tmp_path / "photo.png"), "--target", "lion", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "xinc: timm is not installed. Run: pip install x\n"
    assert not (tmp_path / "out").exists()
