import pytest
import torch

from xinc_captum.attributions.trans_inr import RayTransINR, TransINR
from xinc_captum.store import StoreError, read_tensors, write_tensors


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
    tensors, note = read_tensors(path, kind="trans-inr", writer="TransINR.save()")
    note["config"]["hidden"] = 12
    write_tensors(path, tensors, kind="trans-inr", metadata=note)
    with pytest.raises(StoreError, match=r"do not fit: .*mean_modulation1 has shape \(3, 6\), not \(3, 12\)"):
        TransINR.load(path)
    note["config"]["hidden"] = 6
    del tensors["tokens.places"]
    write_tensors(path, tensors, kind="trans-inr", metadata=note)
    with pytest.raises(StoreError, match="do not fit: tokens.places is missing"):
        TransINR.load(path)


def test_models_of_the_other_class(tiny, tmp_path):
    tiny.save(tmp_path / "model")
    with pytest.raises(StoreError, match="model holds a TransINR; wanted a RayTransINR, a file of RayTransINR.save"):
        RayTransINR.load(tmp_path / "model")
