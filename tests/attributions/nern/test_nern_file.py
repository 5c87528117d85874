import copy

import pytest
import torch
from safetensors import safe_open
from torch import nn

from xinc_captum import WeightContribution
from xinc_captum.attributions.nern import NeRN


@pytest.mark.parametrize("permutation", ["cross-filter", "in-filter", "none"])
def test_round_trip_into_other_weights(mixed, make_mixed, permutation, tmp_path):
    nern = NeRN(mixed, ["wide", "stem", "depthwise"], hidden=7, levels=5, permutation=permutation, crop="average")
    nern.fit(torch.rand(9, 2, 6, 6), steps=2, show_progress=False)
    assert nern.save(tmp_path / "a.safetensors") == tmp_path / "a.safetensors"
    other = make_mixed().eval()
    before = copy.deepcopy(other.state_dict())
    again = NeRN.load(tmp_path / "a.safetensors", other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert again.config == nern.config and again.layers == nern.layers
    x = torch.rand(3, 2, 6, 6)
    assert torch.equal(again.rebuild().eval()(x), nern.rebuild()(x)), "biases, statistics and classifier are the file's"
    nern.save(tmp_path / "b.safetensors")
    again.save(tmp_path / "c.safetensors")
    contents = {(tmp_path / f"{name}.safetensors").read_bytes() for name in "abc"}
    assert len(contents) == 1, "equal NeRNs are equal bytes"
    assert len(list(tmp_path.iterdir())) == 3


def test_half_and_double_precision(mixed, tmp_path):
    nern = NeRN(mixed.double(), hidden=7)
    nern.save(tmp_path / "half.safetensors", dtype=torch.float16)
    again = NeRN.load(tmp_path / "half.safetensors", mixed)
    assert next(again.predictor.parameters()).dtype == torch.float64
    torch.testing.assert_close(again.weights()["stem"], nern.weights()["stem"], atol=2e-3, rtol=0)


def test_shared_weights_are_stored_once(tmp_path):
    conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
    model = nn.Sequential(conv, nn.ReLU(), conv)
    nern = NeRN(model, hidden=4)
    nern.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert not [name for name in file.keys() if name.startswith("kept.")]  # noqa: SIM118
    x = torch.rand(1, 2, 5, 5)
    assert torch.equal(NeRN.load(tmp_path / "a.safetensors", model).rebuild()(x), nern.rebuild()(x))


def test_targets_of_another_architecture_are_refused(mixed, make_mixed, tmp_path):
    NeRN(mixed, hidden=4).save(tmp_path / "a.safetensors")
    other = make_mixed()
    other.point = nn.Conv2d(6, 7, 1)
    with pytest.raises(
        ValueError, match=r"another network than this Mixed: it has point.weight \(7, 6, 1, 1\) instead of"
    ):
        NeRN.load(tmp_path / "a.safetensors", other)
    with pytest.raises(ValueError, match=r"it has stem.weight missing instead of \(4, 2, 5, 5\); .*and \d+ more"):
        NeRN.load(tmp_path / "a.safetensors", nn.Linear(1, 1))
    more = make_mixed()
    more.extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(ValueError, match=r"extra.weight \(2, 2\) that is not in the file"):
        NeRN.load(tmp_path / "a.safetensors", more)


def test_target_can_be_a_single_convolution(tmp_path):
    conv = nn.Conv2d(2, 3, 3)
    nern = NeRN(conv, hidden=4)
    nern.fit(torch.rand(6, 2, 5, 5), steps=1, show_progress=False)
    nern.save(tmp_path / "a.safetensors")
    again = NeRN.load(tmp_path / "a.safetensors", nn.Conv2d(2, 3, 3))
    x = torch.rand(1, 2, 5, 5)
    assert torch.equal(again.rebuild()(x), nern.rebuild()(x))
    found = WeightContribution(again, "", mode="gradient").attribute(x, target=(1, 2, 2))
    assert found.shape == (1, 5, 1) and found.abs().sum() > 0
