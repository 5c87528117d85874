import errno
import json
import os
import tempfile
from pathlib import Path

import pytest

from xinc_captum.store import StoreError, bundle, check_folder, sha256


def write(path, text="one", **note):
    with bundle(path, note) as folder:
        (folder / "a.txt").write_text(text)
        (folder / "times.json").write_text("{}")


def test_a_bundle_appears_whole_with_its_manifest(tmp_path):
    write(tmp_path / "deep" / "result", seed=3)
    result = tmp_path / "deep" / "result"
    manifest = json.loads((result / "manifest.json").read_text())
    assert manifest["outputs"] == {"a.txt": sha256(result / "a.txt")}
    assert manifest["seed"] == 3
    assert manifest["versions"]["torch"]
    assert manifest["command"]
    assert (result / "a.txt").stat().st_mode & 0o777 == 0o644


def test_an_earlier_result_is_replaced_whole(tmp_path):
    write(tmp_path / "result")
    write(tmp_path / "result", "two")
    assert sorted(p.name for p in (tmp_path / "result").iterdir()) == ["a.txt", "manifest.json", "times.json"]
    assert (tmp_path / "result" / "a.txt").read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_earlier_result(tmp_path, fault):
    write(tmp_path / "result")
    with pytest.raises(fault), bundle(tmp_path / "result", {}) as folder:
        (folder / "a.txt").write_text("half")
        raise fault
    assert (tmp_path / "result" / "a.txt").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("fault", [OSError, KeyboardInterrupt])
def test_a_failure_at_the_last_step_puts_the_earlier_result_back(tmp_path, monkeypatch, fault):
    write(tmp_path / "result")
    rename = Path.rename

    def fails(self, target):
        if self.name.startswith(".result.") and Path(target).name == "result":
            raise fault
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(fault):
        write(tmp_path / "result", "two")
    assert (tmp_path / "result" / "a.txt").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_a_folder_beside_it_is_never_removed(tmp_path):
    write(tmp_path / "result")
    (tmp_path / ".result.old").mkdir()
    (tmp_path / ".result.old" / "thesis.tex").write_text("mine")
    write(tmp_path / "result", "two")
    assert (tmp_path / ".result.old" / "thesis.tex").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".result.old", "result"]


def test_a_file_that_is_put_there_meanwhile_is_not_lost(tmp_path):
    write(tmp_path / "result")
    with pytest.raises(StoreError, match=r"'notes.txt' in it is not ours"), bundle(tmp_path / "result", {}):
        (tmp_path / "result" / "notes.txt").write_text("mine")
    assert (tmp_path / "result" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "result" / "a.txt").read_text() == "one"


def test_places_that_cannot_take_a_result(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file; give a folder"):
        check_folder(tmp_path / "file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(StoreError, match="is a file; give a folder"):
            check_folder(tmp_path / "pipe")
    with pytest.raises(StoreError, match="file is a file, so no folder can be made below it"):
        check_folder(tmp_path / "file" / "below")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    for other in (None, '{"my": "web app"}', "no json"):
        if other:
            (foreign / "manifest.json").write_text(other)
        with pytest.raises(
            StoreError, match=r"holds files but no manifest.json of ours, so it is not an earlier result"
        ):
            check_folder(foreign)
    assert (foreign / "thesis.tex").exists()

    def refused(**_kwargs):  # a stand-in for a read-only place: root may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(StoreError, match=r"cannot be written to \(Permission denied\); give a folder that you own"):
        check_folder(tmp_path / "new")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where nobody can make files")
def test_a_place_where_even_root_cannot_write():
    with pytest.raises(StoreError, match="/proc cannot be written to"):
        check_folder("/proc/result")


def test_checking_leaves_nothing(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_users_file_inside_an_earlier_result_is_not_lost(tmp_path):
    write(tmp_path / "result")
    (tmp_path / "result" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="'notes.txt' in it is not ours and would be lost"):
        write(tmp_path / "result", "two")
    assert (tmp_path / "result" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "result" / "a.txt").read_text() == "one"


def test_a_link_to_a_result_is_followed(tmp_path):
    write(tmp_path / "result")
    (tmp_path / "link").symlink_to(tmp_path / "result")
    write(tmp_path / "link", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "result" / "a.txt").read_text() == "two"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "result"]


def test_an_empty_folder_is_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert (tmp_path / "empty" / "manifest.json").exists()


def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path):
    with bundle(tmp_path / "out", {}) as folder:
        (folder / "a.txt").write_text("first")
    full = OSError(errno.ENOSPC, "No space left on device")
    text = r"no room for .*out \(No space left on device\); nothing was written"
    with pytest.raises(StoreError, match=text), bundle(tmp_path / "out", {}):
        raise full
    assert (tmp_path / "out" / "a.txt").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(PermissionError), bundle(tmp_path / "out", {}):
        raise PermissionError(errno.EACCES, "other errors go through")
