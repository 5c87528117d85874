import io
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import xinc_captum
from xinc_captum import zoo
from xinc_captum.cli.main import app, main

COMMANDS = ("canvas", "accentuate", "link", "sweep", "counterfactual", "nern", "transinr", "explore", "replay", "demo")


@pytest.fixture
def called(monkeypatch, capsys):
    """Run the ``xinc`` command like its entry point; return the exit status and standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["xinc", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, capsys.readouterr().err

    return run


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"xinc-captum {xinc_captum.__version__}"


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_every_command_has_help(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("canvas", "none.png"), "none.png is not a file; expected a photo"),
        (("sweep", "nowhere", "--unit", "1"), "nowhere is not a folder; expected a result folder of xinc link"),
        (
            ("explore", "nowhere"),
            "nowhere is not a folder; expected a result folder of an xinc command or of Comparison.save",
        ),
        (
            ("counterfactual", "nowhere", "--target", "1"),
            "nowhere is not a folder; expected a result folder of xinc link",
        ),
        (("link", "--generator", "nobody"), "generator 'nobody' is not in the zoo"),
        (("nern", "nobody"), "model 'nobody' is no classifier of the zoo"),
        (
            ("nern", "mnist_cnn", "--nern", "mnist_nern"),
            "mnist_nern represents the convolutions of mnist_convnet, not of",
        ),
        (("transinr", "nowhere"), "nowhere is not a file or folder; expected small images"),
        (("canvas", "nan.tif"), "nan.tif holds NaN or infinity in 1 of 4 pixels; expected finite values"),
        (("accentuate", "text.png", "--target", "lion"), "text.png cannot be read as a photo"),
        (("transinr", "empty"), "empty holds no images; give a folder that does"),
        (("canvas", "empty"), "empty holds no photos; expected one file a frame"),
        (("accentuate", "empty", "--target", "lion"), "empty is not a file; expected a photo"),
        (("canvas", "x" * 300 + ".png"), "File name too long"),
        (("nern", "mnist_convnet", "--layer", "head"), "layer 'head' is a Linear; expected an nn.Conv2d"),
    ],
)
def test_foreseeable_errors_are_one_line_and_status_one(called, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.array([[0.5, np.nan], [0.5, 0.5]], np.float32)).save(tmp_path / "nan.tif")
    status, said = called(*words, "--out", "out")
    assert status == 1
    assert said.startswith("xinc: ") and says in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_one_line_with_the_command(called, tmp_path, monkeypatch):
    def missing(name):
        raise zoo.AssetError("timm is not installed. Run: pip install x")

    monkeypatch.setattr(zoo, "classifier", missing)
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    status, said = called("accentuate", tmp_path / "photo.png", "--target", "lion", "--out", tmp_path / "out")
    assert (status, said) == (1, "xinc: timm is not installed. Run: pip install x\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["file.txt", "file.txt/below", "foreign"])
@pytest.mark.parametrize(
    "words",
    [
        ("canvas", "photo.png"),
        ("accentuate", "photo.png", "--target", "lion"),
        ("link",),
        ("sweep", "nowhere", "--unit", "1"),
        ("counterfactual", "nowhere", "--target", "1"),
        ("nern", "mnist_convnet"),
        ("transinr", "mnist_digits"),
    ],
)
def test_other_files_and_folders_are_not_overwritten(called, tmp_path, monkeypatch, words, out):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("mine")
    status, said = called(*words, "--out", out)
    assert status == 1 and said.startswith("xinc: ") and said.count("\n") == 1
    assert (tmp_path / "file.txt").read_text() == (tmp_path / "foreign" / "thesis.tex").read_text() == "mine"


def test_a_seed_out_of_range_raises(called, tmp_path):
    status, said = called("canvas", "photo.png", "--seed", "9" * 20, "--out", tmp_path / "out")
    assert status == 2 and "--seed" in said


def test_a_terminal_without_unicode_does_not_stop_a_command(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(sys, "argv", ["xinc", "--version"])
    with pytest.raises(SystemExit):
        main()
    narrow.write("…")
    narrow.flush()


def test_a_success_is_status_zero(called):
    assert called("--version") == (0, "")
