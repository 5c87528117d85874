"""Files of weights: formats, nestings, prefixes, and errors that name the keys."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xinc_captum.models.weights import (
    ModelError,
    load_weights,
    number_of_classes,
    read_weights,
    without_prefixes,
)


def net(classes=3, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, classes))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("model_state",), ("checkpoint", "x")])
def test_state_dicts_are_found_below_the_names_of_training_loops(tmp_path, nest):
    state = net().state_dict()
    saved = state
    for key in reversed(nest):
        saved = {key: saved, "epoch": 3}
    torch.save(saved, tmp_path / "weights.pt")
    if "checkpoint" in nest:
        with pytest.raises(
            ModelError, match=r"holds keys \['checkpoint', 'epoch'\] and no tensors by name; expected a"
        ):
            read_weights(tmp_path / "weights.pt")
    else:
        assert same(read_weights(tmp_path / "weights.pt"), dict(state))


def test_safetensors_are_read(tmp_path):
    state = {key: value.contiguous() for key, value in net().state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    assert same(read_weights(tmp_path / "weights.safetensors"), state)


def test_a_pickle_of_a_model_is_refused_and_runs_no_code(tmp_path):
    torch.save(net(), tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"model.pt is a pickle that holds more than tensors, .* so it is not loaded"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ModelError, match=rf"{name} (cannot be read as weights|is a pickle)"):
        read_weights(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="holds a list and no tensors by name"):
        read_weights(tmp_path / "list.pt")
    with pytest.raises(ModelError, match=r"weights='.*nowhere.pt' is not a file; expected the path of a .safetensors"):
        read_weights(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module.model.", "_orig_mod.module."])
def test_a_prefix_that_all_keys_share_is_removed(prefix):
    state = net().state_dict()
    assert same(without_prefixes({prefix + k: v for k, v in state.items()}, state), dict(state))


def test_a_prefix_of_the_model_itself_stays():
    state = nn.ModuleDict({"model": net()}).state_dict()
    assert same(without_prefixes(dict(state), state), dict(state))
    partly = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert without_prefixes(partly, {}) is partly


def test_weights_of_another_architecture_name_the_first_keys_of_each_kind():
    model = net()
    state = {"0.weight": torch.ones(4, 3, 5, 5), "0.bias": torch.ones(4), "head.weight": torch.ones(2, 2)}
    before = model.state_dict()["0.bias"].clone()
    text = (
        r"the weights in other.pt do not fit timm:x. Keys: 6 missing \(1.weight \(4,\), 1.bias \(4,\), 1.running_mean "
        r"\(4,\) …\); 1 unexpected \(head.weight \(2, 2\)\); 1 of another shape \(0.weight \(4, 3, 5, 5\), expected \(4, "
        r"3, 3, 3\)\). Give weights of this architecture"
    )
    with pytest.raises(ModelError, match=text):
        load_weights(model, state, "other.pt", "timm:x")
    assert torch.equal(model.state_dict()["0.bias"], before), "nothing is loaded"


def test_fitting_weights_are_loaded_and_computed_buffers_may_be_missing():
    source, model = net(), net()
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k} | {"position_ids": torch.ones(1)}
    load_weights(model, state, "w.pt", "net")
    assert same(model.state_dict(), source.state_dict())


def test_the_number_of_classes_is_that_of_the_last_layer_alone():
    assert number_of_classes(net(7).state_dict(), net().state_dict()) == 7
    assert number_of_classes(net().state_dict(), net().state_dict()) is None
    assert number_of_classes(net(7, width=5).state_dict(), net().state_dict()) is None
    assert number_of_classes({**net(7).state_dict(), "more": torch.ones(1)}, net().state_dict()) is None
    head = {"head.weight": torch.ones(6, 4), "head.bias": torch.ones(6)}
    assert number_of_classes({**net().state_dict(), **head}, net().state_dict()) == 6, "the model has no head"
    assert number_of_classes({**net().state_dict(), "head.bias": torch.ones(6)}, net().state_dict()) is None
    two = {**net().state_dict(), **head, "neck.weight": torch.ones(6, 4)}
    assert number_of_classes(two, net().state_dict()) is None
