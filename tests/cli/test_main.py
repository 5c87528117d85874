import importlib
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import xinc_captum
from xinc_captum import zoo
from xinc_captum.cli.command import UsageError, app
from xinc_captum.cli.main import FAILURES, error_text, main
from xinc_captum.hooks import LayerError
from xinc_captum.images import PhotoError
from xinc_captum.store import StoreError

entry = importlib.import_module("xinc_captum.cli.main")  # the package names its function main too
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
        (("nern", "nobody"), "model 'nobody' is not known; expected torchvision:NAME"),
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
        (("nern", "mnist_convnet", "--layer", "head"), "layer 'head' is a Linear; expected an nn.Conv1d"),
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


def test_errors_of_the_user_are_listed():
    assert {UsageError, LayerError, PhotoError, StoreError, FileNotFoundError} <= set(FAILURES)
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, KeyError, OSError, MemoryError])
def test_bugs_keep_their_traceback(error):
    assert not issubclass(error, FAILURES)


def test_errors_of_the_operating_system_name_the_file():
    assert error_text(PermissionError(13, "Permission denied", "photo.png")) == "photo.png: Permission denied"
    assert error_text(OSError(36, "File name too long")) == "File name too long"
    assert error_text(OSError("no number: raised by a library")) is None
    assert error_text(RuntimeError("own mistake")) is None
    assert error_text(UsageError("first line\nsecond")) == "first line second"


def test_a_bug_of_the_package_keeps_its_traceback(monkeypatch):
    def fails():
        raise OSError("no number")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(OSError, match="no number"):
        entry.main()


@pytest.mark.parametrize("error", [FAILURES[0], FileNotFoundError])
def test_errors_are_one_red_line_and_status_one(error, monkeypatch, capsys):
    def fails():
        raise error("what was seen, what was expected, what to do")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert capsys.readouterr().err == "xinc: what was seen, what was expected, what to do\n"


def test_the_demo_runs_the_canvas_on_a_real_photo(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        entry, "photo_canvas", lambda photo, out, *rest: calls.append((photo.name, photo.stat().st_size, out))
    )
    entry.demo_command(tmp_path, [entry.Part.canvas], 0)
    assert calls == [("chelsea.png", 240512, tmp_path / "canvas")]
    assert (tmp_path / "chelsea.png").stat().st_size == 240512, "xinc replay reads it"


def test_the_demo_accentuates_two_features_and_prints_the_pages(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(entry, "accentuate_command", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(entry, "photo_canvas", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(entry, "video_canvas", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(entry, "_run_link", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(entry, "nern_command", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(entry, "trans_inr_command", lambda *given, **more: calls.append((*given, more)))
    entry.demo_command(tmp_path, list(entry.Part), 3)
    photo, out, more = calls[0]
    assert (photo, out, len(more["targets"])) == ("foolbox:00", tmp_path / "accentuate", 2)
    said = capsys.readouterr().out.splitlines()
    pages = ("accentuate", "canvas", "video/carphone_nerv", "video/sprite")
    pages += ("linked/link", "linked/units", "linked/another_answer")
    pages += ("nern", "transinr")
    assert said[-9:] == [f"  {tmp_path / page / 'index.html'}" for page in pages]


def test_the_video_part_takes_the_shipped_network_and_fits_a_known_clip(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(entry, "video_canvas", lambda *given, **more: calls.append((*given, more)))
    entry.demo_command(tmp_path, [entry.Part.video], 3)
    assert [given[:2] for given in calls] == [(clip, tmp_path / "video" / clip) for clip in ("carphone_nerv", "sprite")]
    assert calls[0][6] is None and calls[1][6] >= 100, "only the second is fitted"


def test_networks_that_write_networks_come_with_the_package(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(entry, "nern_command", lambda *given, **more: calls.append((*given, more)))
    monkeypatch.setattr(entry, "trans_inr_command", lambda *given, **more: calls.append((*given, more)))
    entry.demo_command(tmp_path, [entry.Part.nern, entry.Part.transinr], 3)
    nern, written = calls
    assert nern[:3] == ("mnist_convnet", tmp_path / "nern", "mnist_generator") and nern[-1]["fitted"] == "mnist_nern"
    assert written[:2] == (["mnist_digits"], tmp_path / "transinr")
    assert "model" not in written[-1], "by default the shipped model"


def test_without_the_photo_the_error_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(entry.resources, "files", lambda _name: (_ for _ in ()).throw(ModuleNotFoundError()))
    with pytest.raises(UsageError, match=r"pip install 'xinc-captum\[demo\]'"):
        entry.demo_command(tmp_path, [entry.Part.canvas], 0)


def test_the_linked_part_links_sweeps_and_flips(tmp_path, monkeypatch):
    calls = []
    for name in ("sweep_command", "counterfactual_command"):
        monkeypatch.setattr(entry, name, lambda *given, name=name, **more: calls.append((name, given)))

    def link_command(out, **more):
        out.mkdir(parents=True)
        verdicts = {4: "weak", 7: "holds", 9: "fails", 2: "holds", 5: "holds", 6: "fails"}
        units = [{"unit": unit, "verdict": verdict, "rank": 20 - unit} for unit, verdict in verdicts.items()]
        (out / "manifest.json").write_text(json.dumps({"units": units}))
        calls.append(("link_command", (out,)))

    monkeypatch.setattr(entry, "link_command", link_command)
    entry.demo_command(tmp_path, [entry.Part.linked], 3)
    assert [name for name, _ in calls] == ["link_command", "sweep_command", "counterfactual_command"]
    link, sweep, flip = (given for _, given in calls)
    assert link[0] == sweep[0] == flip[0] == tmp_path / "linked" / "link"
    assert sweep[2] == [7, 2, 6], "two that hold, and the worst one"


def test_the_units_shown_are_of_different_classes_and_the_failure_is_the_clearest(tmp_path):
    told = [("holds", 1), ("holds", 1), ("holds", 1), ("holds", 1), ("weak", 2), ("fails", 9), ("fails", 40)]
    units = [{"unit": i, "verdict": verdict, "rank": rank} for i, (verdict, rank) in enumerate(told)]

    def selected(units):
        (tmp_path / "manifest.json").write_text(json.dumps({"units": units}))
        return entry._select_units(tmp_path)

    assert selected(units) == [0, 2, 6]
    assert selected(units[3:]) == [3, 6]
    assert selected(units[:5]) == [0, 2, 4], "if none fails, a weak one"
    assert selected(units[4:5]) == [4], "a weak one if there is no other"
