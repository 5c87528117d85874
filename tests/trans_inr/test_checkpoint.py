import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from xinc_captum import inr
from xinc_captum.trans_inr import TransINR


def test_round_trip(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    tiny.fit(torch.rand(8, 3, 6, 6), steps=2, validation=None, show_progress=False)
    tiny.save(path)
    state = torch.get_rng_state()
    again = TransINR.load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.config == tiny.config and str(again) == str(tiny)
    for (name, a), b in zip(tiny.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype, name
    images = torch.rand(2, 3, 6, 6).double()
    assert torch.equal(again(images), tiny(images))
    assert all(p.requires_grad for p in again.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before, "equal models are equal bytes"


def test_single_vectors_and_patches_are_kept(tmp_path):
    model = TransINR(groups="vector", pixel_mask=True, padding=1, size=(8, 10))
    model.save(tmp_path / "model.safetensors")
    again = TransINR.load(tmp_path / "model.safetensors")
    assert again.config["size"] == (8, 10) and again.writer.groups == "vector" and again.tokens.pixel_mask


def test_checkpoints_of_another_configuration(tiny, tmp_path):
    path = tmp_path / "model.safetensors"
    tiny.save(path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        note = json.loads(file.metadata()["network"])
    note["config"]["hidden"] = 12
    save_file(tensors, path, metadata={"network": json.dumps(note)})
    with pytest.raises(
        ValueError, match=r"another configuration than it says: 'mean_modulation1' has shape \(3, 6\); wan"
    ):
        TransINR.load(path)
    note["config"]["hidden"] = 6
    del tensors["tokens.places"]
    save_file(tensors, path, metadata={"network": json.dumps(note)})
    with pytest.raises(ValueError, match=r"'tokens.places' has shape None; wanted \(1, 8, 2, 2\). 1 of \d+ tensors"):
        TransINR.load(path)


def test_folders_that_are_not_there(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder .*nowhere is not there; make it first, or give another"):
        tiny.save(tmp_path / "nowhere" / "model")


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="none is not a file; wanted a model written by TransINR.save"):
        TransINR.load(tmp_path / "none")
    (tmp_path / "half").write_bytes(b"half")
    with pytest.raises(ValueError, match="half is no whole safetensors file"):
        TransINR.load(tmp_path / "half")
    inr.save(inr.HypoNet(hidden=4), tmp_path / "one", size=(8, 8))
    with pytest.raises(
        ValueError, match=r"one holds 'HypoNet' of format 'xinc-captum-inr-1'; wanted 'TransINR' of for"
    ):
        TransINR.load(tmp_path / "one")
