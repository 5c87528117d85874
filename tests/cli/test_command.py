import json
import os
from pathlib import Path

import pytest
import torch

from xinc_captum import store
from xinc_captum.cli.canvas_results import RuleName
from xinc_captum.cli.command import UsageError, digest, find_device, machine, record_settings


@record_settings("joke", "source")
def command(source: str, out: Path, rule: RuleName, masks: Path | None, words: list[str], device: str = "auto") -> None:
    with store.bundle(out, {}) as folder:
        (folder / "a.txt").write_text(source, errors="replace")


def call(out):
    return json.loads((out / "manifest.json").read_text()).get("call")


def test_the_manifest_records_the_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(b"1")
    command("photo.png", Path("out"), RuleName.tangent, None, ["photo.png"])
    photo = str(tmp_path / "photo.png")
    assert call(tmp_path / "out") == {
        "command": "joke",
        "settings": {
            "source": photo,
            "rule": "tangent",
            "masks": None,
            "words": ["photo.png"],
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
        "files": {photo: store.sha256(photo)},
        "threads": torch.get_num_threads(),
        "machine": machine("cpu"),
    }


def test_names_stay_names_and_missing_files_are_left_to_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("sprite", Path("out"), RuleName.tangent, Path("nowhere"), [], device="cpu")
    found = call(tmp_path / "out")
    assert found["settings"]["source"] == "sprite" and found["settings"]["masks"] == str(tmp_path / "nowhere")
    assert found["files"] == {}


@record_settings("joke", "source")
def places(source: str, out: Path, folder: Path, photos: list[Path]) -> None:
    """Store the arguments in the manifest."""
    with store.bundle(out, {"seen": [source, str(folder), [str(one) for one in photos]]}):
        pass


def test_the_command_receives_absolute_paths(tmp_path, monkeypatch):
    here = tmp_path / "with space, ü and #?%"
    (here / "below").mkdir(parents=True)
    (here / "photo.png").write_bytes(b"1")
    (here / "link.png").symlink_to("photo.png")
    (tmp_path / "other way").symlink_to(here)
    absolute = [str(here / "photo.png"), str(here), [str(here / "link.png"), str(here / "gone.png")]]
    seen = []
    for folder, words in (
        (here, ("photo.png", ".", ["link.png", "gone.png"])),
        (here / "below", ("../photo.png", "..", ["../link.png", "../gone.png"])),
        (tmp_path, (f"{here.name}/photo.png", here.name, [f"other way/{name}" for name in ("link.png", "gone.png")])),
        (tmp_path, (absolute[0], absolute[1], absolute[2])),
    ):
        monkeypatch.chdir(folder)
        source, place, photos = words
        places(source, tmp_path / "out", Path(place), [Path(one) for one in photos])
        seen.append(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert [one["seen"] for one in seen] == [absolute] * 4
    assert all(one["call"] == seen[0]["call"] for one in seen)
    assert set(seen[0]["call"]["files"]) == {absolute[0], absolute[1], absolute[2][0]}


def test_the_working_directory_of_modules_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("module:function", Path("out"), RuleName.tangent, None, [])
    assert call(tmp_path / "out")["directory"] == str(tmp_path)
    command("sprite", Path("out"), RuleName.tangent, None, [])
    assert "directory" not in call(tmp_path / "out")


def test_names_that_are_not_utf_8_are_restored(tmp_path):
    photo = tmp_path / os.fsdecode(b"old\xff.png")
    photo.write_bytes(b"1")
    command(str(photo), tmp_path / "out", RuleName.tangent, None, [])
    assert call(tmp_path / "out")["settings"]["source"] == str(photo)
    assert digest(tmp_path)


def test_hidden_files_and_earlier_results_in_a_folder_do_not_count(tmp_path):
    (tmp_path / "a.png").write_text("1")
    before = digest(tmp_path)
    (tmp_path / ".DS_Store").write_text("2")
    with store.bundle(tmp_path / "out", {}) as folder:
        (folder / "b.png").write_text("3")
    assert digest(tmp_path) == before
    (tmp_path / "b.png").write_text("3")
    assert digest(tmp_path) != before


def test_inputs_are_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places("sprite", Path("made"), Path("gone"), [])
    for source, folder, photos in (
        ("sprite", "made", []),
        ("made/manifest.json", "gone", []),
        ("sprite", "gone", ["made"]),
    ):
        with pytest.raises(
            UsageError, match=r"--out made would replace .*made.*, which this command reads; give another"
        ):
            places(source, Path("made"), Path(folder), [Path(one) for one in photos])
        assert (tmp_path / "made" / "manifest.json").exists()
    places("sprite", Path("made/below"), Path("made"), [])


def test_results_saved_from_python_have_no_call(tmp_path):
    command("sprite", tmp_path / "out", RuleName.tangent, None, [])
    with store.bundle(tmp_path / "other", {}):
        pass
    assert call(tmp_path / "out") and call(tmp_path / "other") is None


def test_the_digest_of_a_folder_covers_names_and_contents(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("1")
    first = digest(tmp_path / "a")
    (tmp_path / "a" / "b" / "c").rename(tmp_path / "a" / "d")
    second = digest(tmp_path / "a")
    (tmp_path / "a" / "d").write_text("2")
    assert len({first, second, digest(tmp_path / "a")}) == 3


def test_the_digest_of_a_result_covers_its_outputs(tmp_path):
    with store.bundle(tmp_path / "out", {}) as folder:
        (folder / "a.txt").write_text("a")
    before = digest(tmp_path / "out")
    (tmp_path / "out" / "times.json").write_text("{}")
    (tmp_path / "out" / "below").mkdir()
    (tmp_path / "out" / "below" / "b.txt").write_text("b")
    assert digest(tmp_path / "out") == before
    (tmp_path / "out" / "a.txt").write_text("b")
    assert digest(tmp_path / "out") != before


def test_auto_selects_an_available_device():
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu9", "meta"])
def test_unusable_values_raise(name):
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used here .*try --device cpu"):
        find_device(name)
