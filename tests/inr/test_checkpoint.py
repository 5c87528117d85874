import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xinc_captum.inr import FourierMLP, Siren, load, save


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


def test_files_that_are_not_ours(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file; wanted a network written by"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        load(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is marked 'with nothing'; wanted 'xinc-captum-inr-1'"):
        load(tmp_path / "other.safetensors")
    whole = tmp_path / "whole.safetensors"
    save(FourierMLP(hidden=4), whole, size=(2, 2))
    (tmp_path / "half.safetensors").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load(tmp_path / "half.safetensors")


def test_other_models_are_refused(tmp_path):
    with pytest.raises(TypeError, match="model is a Linear; wanted one of FourierMLP, Siren"):
        save(nn.Linear(2, 2), tmp_path / "x.safetensors", size=(1, 1))
    assert not list(tmp_path.iterdir())
