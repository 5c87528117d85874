import json
from pathlib import Path

import torch

from xinc_captum import store
from xinc_captum.cli.canvas import RuleName
from xinc_captum.cli.recorded import digest, recorded


@recorded("joke", "source")
def command(source: str, out: Path, rule: RuleName, masks: Path | None, words: list[str], device: str = "auto") -> None:
    with store.bundle(out, {}) as folder:
        (folder / "a.txt").write_text(source)


def call(out):
    return json.loads((out / "manifest.json").read_text()).get("call")


def test_the_manifest_says_what_was_asked(tmp_path, monkeypatch):
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
    }


def test_what_is_no_file_stays_a_name_and_what_is_missing_is_left_to_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command("sprite", Path("out"), RuleName.tangent, Path("nowhere"), [], device="cpu")
    found = call(tmp_path / "out")
    assert found["settings"]["source"] == "sprite" and found["settings"]["masks"] == str(tmp_path / "nowhere")
    assert found["files"] == {}


def test_nothing_is_said_of_results_that_python_saves(tmp_path):
    command("sprite", tmp_path / "out", RuleName.tangent, None, [])
    with store.bundle(tmp_path / "other", {}):
        pass
    assert call(tmp_path / "out") and call(tmp_path / "other") is None


def test_a_folder_is_its_names_and_contents(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("1")
    first = digest(tmp_path / "a")
    (tmp_path / "a" / "b" / "c").rename(tmp_path / "a" / "d")
    second = digest(tmp_path / "a")
    (tmp_path / "a" / "d").write_text("2")
    assert len({first, second, digest(tmp_path / "a")}) == 3


def test_of_an_earlier_result_only_the_outputs_count(tmp_path):
    with store.bundle(tmp_path / "out", {}) as folder:
        (folder / "a.txt").write_text("a")
    before = digest(tmp_path / "out")
    (tmp_path / "out" / "times.json").write_text("{}")
    (tmp_path / "out" / "below").mkdir()
    (tmp_path / "out" / "below" / "b.txt").write_text("b")
    assert digest(tmp_path / "out") == before
    (tmp_path / "out" / "a.txt").write_text("b")
    assert digest(tmp_path / "out") != before
