import json

import pytest
import torch
from safetensors.torch import save_file

from xinc_captum import store
from xinc_captum.cli.bundle import bundle_at
from xinc_captum.cli.failures import UsageError


@pytest.fixture
def folder(tmp_path):
    with store.bundle(tmp_path / "result", {"seed": 3}) as work:
        save_file({"a": torch.arange(3)}, work / "a.safetensors")
        (work / "b.json").write_text('{"c": [1]}')
    return tmp_path / "result"


def test_what_was_written_is_read(folder):
    bundle = bundle_at(folder)
    assert bundle.note["seed"] == 3 and bundle.has("b.json") and not bundle.has("c.json")
    assert bundle.tensors("a.safetensors")["a"].tolist() == [0, 1, 2]
    assert bundle.json("b.json") == {"c": [1]}


def test_a_file_that_is_missing_or_changed(folder):
    (folder / "b.json").write_text('{"c": [2]}')
    (folder / "a.safetensors").unlink()
    with pytest.raises(UsageError, match="damaged: b.json is not what was written. Make the result again"):
        bundle_at(folder).json("b.json")
    with pytest.raises(UsageError, match="damaged: a.safetensors is missing"):
        bundle_at(folder).tensors("a.safetensors")
    with pytest.raises(UsageError, match="damaged: never.json is missing"):
        bundle_at(folder).json("never.json")


def test_a_file_that_was_never_right(tmp_path):
    with store.bundle(tmp_path / "result", {}) as work:
        (work / "a.safetensors").write_bytes(b"no")
        (work / "b.json").write_text("{")
    with pytest.raises(UsageError, match="a.safetensors cannot be read"):
        bundle_at(tmp_path / "result").tensors("a.safetensors")
    with pytest.raises(UsageError, match="b.json cannot be read"):
        bundle_at(tmp_path / "result").json("b.json")


@pytest.mark.parametrize("said", [None, "{", "[]", "{}", '{"format": "other", "outputs": {}}'])
def test_no_manifest_of_ours(tmp_path, said):
    if said is not None:
        (tmp_path / "manifest.json").write_text(said)
    with pytest.raises(UsageError, match="holds no manifest.json of ours; wanted a folder that an xinc command"):
        bundle_at(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; wanted one that"):
        bundle_at(tmp_path / "none")


def test_the_manifest_outlives_other_notes(folder):
    note = json.loads((folder / "manifest.json").read_text())
    note["format"] = "xinc-captum-result-9"
    (folder / "manifest.json").write_text(json.dumps(note))
    with pytest.raises(UsageError, match="of ours"):
        bundle_at(folder)
