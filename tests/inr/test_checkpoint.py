import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from xinc_captum.inr import FourierMLP, HNeRV, NeRV, Sine, Siren, load, save, times
from xinc_captum.store import StoreError, write_tensors


@pytest.mark.parametrize(
    "model",
    [
        FourierMLP(hidden=6, layers=4, activation="gelu", scale=3.0, out_features=1),
        FourierMLP(3, 2, hidden=6, encoding="nerf", features=5),
        Siren(1, 2, hidden=5, omega=20.0),
    ],
)
def test_round_trip(model, tmp_path):
    save(model, tmp_path / "net.safetensors", size=(5, 7))
    found, size = load(tmp_path / "net.safetensors")
    x = torch.rand(4, model.config["in_features"])
    assert size == (5, 7)
    assert torch.equal(found(x), model(x))
    assert found.config == model.config
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("half", [False, True])
def test_round_trip_of_video_networks(half, tmp_path):
    nerv = NeRV((8, 12), (3, 4, 5), (2, 2), kernel_sizes=(1, 3), stem=(4,), squash=True)
    hnerv = HNeRV((8, 12), (3, 4, 5), (2, 2), embedding=2, encoder_width=4)
    for model, rows in ((nerv, times(3)), (hnerv, torch.rand(3, 3, 8, 12))):
        path = tmp_path / "net.safetensors"
        save(model, path, size=(3, 8, 12), dtype=torch.float16 if half else None)
        found, size = load(path)
        assert size == (3, 8, 12)
        assert found.config == model.config
        assert found(rows).dtype == torch.float32
        torch.testing.assert_close(found(rows), model(rows), atol=5e-3 if half else 0, rtol=0)
    save(nerv, path, size=(1,), dtype=torch.float16)
    assert torch.equal(load(path).model.encoding.frequencies, nerv.encoding.frequencies), "times need all their digits"
    whole, halved = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    big = FourierMLP()
    save(big, whole, size=(1, 1))
    save(big, halved, size=(1, 1), dtype=torch.float16)
    assert halved.stat().st_size < 0.6 * whole.stat().st_size


def test_files_of_the_first_version_have_no_dtype(tmp_path):
    model = Siren(hidden=4).double()
    save(model, tmp_path / "net.safetensors", size=(2, 2))
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        note = json.loads(file.metadata()["xinc_captum"])["metadata"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert note.pop("dtype") == "float64"
    note["format"] = "xinc-captum-inr-1"
    save_file(tensors, tmp_path / "old.safetensors", metadata={"network": json.dumps(note)})
    with pytest.warns(UserWarning, match="has format version 1"):
        assert load(tmp_path / "old.safetensors").model.linear1.weight.dtype == torch.float64


def test_activations_without_a_name_are_refused(tmp_path):
    with pytest.raises(TypeError, match="the model's activation is .*Sine.*; expected the name of an activation"):
        save(NeRV((8, 8), (2, 2), (2,), activation=Sine), tmp_path / "x.safetensors", size=(1, 8, 8))
    assert not list(tmp_path.iterdir())


def test_other_models_are_refused(tmp_path):
    with pytest.raises(TypeError, match="model is a Linear; expected one of FourierMLP, Siren, NeRV, HNeRV"):
        save(nn.Linear(2, 2), tmp_path / "x.safetensors", size=(1, 1))
    assert not list(tmp_path.iterdir())


def test_files_of_unknown_classes_are_refused(tmp_path):
    write_tensors(tmp_path / "x", {}, kind="inr", metadata={"kind": "Other"})
    with pytest.raises(StoreError, match="holds a network of the class 'Other'; expected one of FourierMLP, Siren"):
        load(tmp_path / "x")
