import pytest
import torch
import torch.nn.functional as F

from xinc_captum.attributions.canvas.rules.frozen import max_pool


def test_the_slot_is_taken_where_the_value_is():
    value = torch.tensor([[[[1.0, 9.0], [3.0, 4.0]]]])
    slot = torch.tensor([[[[10.0, 20.0], [30.0, 40.0]]]])
    pooled, picked = max_pool("max_pool2d", value, slot, (2,), {"return_indices": False})
    assert (pooled.item(), picked.item()) == (9.0, 20.0)


@pytest.mark.parametrize("name", ["max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d"])
def test_every_kind_agrees_with_torch(name):
    dims = int(name[-2])
    value = torch.rand(2, 3, *[5, 4, 6][:dims])
    pooled, picked = max_pool(name, value, value * 2, (2,), {})
    assert torch.equal(pooled, getattr(F, name)(value, 2))
    assert torch.equal(picked, pooled * 2)
