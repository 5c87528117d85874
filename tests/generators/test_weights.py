import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xinc_captum.generators import load_weights


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def network(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def test_weights_come_back_to_the_bit(tmp_path):
    saved, fresh = network(), network()
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    assert load_weights(fresh, tmp_path / "w.safetensors") is fresh
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), fresh.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["stylegan.pkl", "weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_is_not_opened(tmp_path, name, kind):
    canary, path = tmp_path / "canary", tmp_path / name
    with path.open("wb") as file:
        (pickle.dump if kind == "pickle" else torch.save)({"G_ema": Evil(canary)}, file)
    with pytest.raises(ValueError, match=r"is a pickle, or a file around one: opening it would run whatever code") as e:
        load_weights(network(), path)
    assert not canary.exists()
    assert "safetensors.torch.save_file" in str(e.value) and "load_weights(network, 'weights.safetensors')" in str(
        e.value
    )


def test_a_pickle_by_name_alone(tmp_path):
    (tmp_path / "old.pkl").write_bytes(b"(lp0\n.")  # protocol 0 has no mark
    with pytest.raises(ValueError, match="is a pickle"):
        load_weights(network(), tmp_path / "old.pkl")


def test_safetensors_under_any_name_and_length(tmp_path):
    one = nn.Linear(1, 1)
    for pad in range(0, 256, 8):  # the first byte is the header's length, which may look like a pickle's
        save_file(one.state_dict(), tmp_path / "odd.pkl", metadata={"pad": "x" * pad})
        load_weights(nn.Linear(1, 1), tmp_path / "odd.pkl")


def test_what_does_not_fit_is_listed_and_nothing_changes(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"0.weight": torch.zeros(4, 2), "0.bias": torch.zeros(3), "extra": torch.zeros(1)}, path)
    fresh = network()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(
        ValueError,
        match=r"do not fit: 1.weight is missing; .*; 1.running_var is missing; 1.num_batches_tracked is missing; and 2 "
        r"more, in this Sequential. Build the network as it was",
    ):
        load_weights(fresh, path)
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())
    save_file({**before, "0.weight": torch.zeros(4, 2), "extra": torch.zeros(1)}, path)
    with pytest.raises(
        ValueError, match=r": extra is left over; 0.weight has shape \(4, 2\), not \(3, 2\), in this Seq"
    ):
        load_weights(fresh, path)


def test_missing_and_torn_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.safetensors is not a file; wanted the weights of Sequential in"):
        load_weights(network(), tmp_path / "no.safetensors")
    save_file(network().state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"is no whole safetensors file \(.*copy the file again"):
        load_weights(network(), tmp_path / "w.safetensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        load_weights(network(), tmp_path / "empty.safetensors")
