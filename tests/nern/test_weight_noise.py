import pytest
import torch

from xinc_captum.attributions.nern import with_noise


def test_of_the_size_asked_for_in_the_layers_asked_for(mixed, found):
    before = found(mixed)
    model = with_noise(mixed, 0.3, ["stem", "point"])
    assert before.differences(mixed) == []
    for name in ("stem", "point"):
        own, noisy = (m.get_submodule(name).weight for m in (mixed, model))
        assert ((noisy - own).norm() / own.norm()).item() == pytest.approx(0.3, rel=1e-5)
    assert torch.equal(model.wide.weight, mixed.wide.weight)
    same, other = with_noise(mixed, 0.3, ["stem"]), with_noise(mixed, 0.3, ["stem"], seed=1)
    assert torch.equal(same.stem.weight, model.stem.weight) and not torch.equal(other.stem.weight, model.stem.weight)
    assert torch.equal(with_noise(mixed, 0.0).stem.weight, mixed.stem.weight)


def test_negative(mixed):
    with pytest.raises(ValueError, match="relative is -1; wanted at least 0"):
        with_noise(mixed, -1)
