import pytest
import torch
from torch import nn

from xinc_captum.attributions.canvas.finite import check_finite
from xinc_captum.batch import Batch


def test_each_place_is_named():
    layer, good, bad = nn.Linear(2, 2), torch.ones(2, 2), torch.tensor([[1.0, float("inf")], [0, 0]])
    check_finite(Batch.of(good), good, layer)
    with pytest.raises(ValueError, match="input 0 holds 1 NaN or infinite values"):
        check_finite(Batch.of(bad), good, layer)
    with pytest.raises(ValueError, match="the contributions of the first pixel"):
        check_finite(Batch.of(good), bad, layer)
    with torch.no_grad():
        layer.bias[0] = float("nan")
    with pytest.raises(ValueError, match="the layer's parameter 'bias' holds NaN"):
        check_finite(Batch.of(good), good, layer)
