"""What is pushed forward and what is pulled back belong to one linear map, whichever way it was found."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.linearised import Linearised
from xinc_captum.attributions.canvas.rules.secant import SECANT
from xinc_captum.attributions.canvas.rules.tangent import TANGENT
from xinc_captum.batch import Batch


class Skip(nn.Module):
    """No chain: the layer's output is used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        h = self.first(x)
        return self.last(F.gelu(h) + h)


def made(decoder, kind, along):
    if kind == "chain":
        model, x = decoder
        layer = model.blocks[0][0]
    else:
        torch.manual_seed(2)
        model, x = Skip().double(), torch.rand(3, 2, 4, 5, dtype=torch.float64)
        layer = model.first
    one = Linearised(Tail(model, layer), Batch.of(x), along, per_eval=2)
    assert (one._chain is None) is (kind == "skip")
    return one, model(x).detach()


@pytest.mark.parametrize("kind", ["chain", "skip"])
@pytest.mark.parametrize("along", [TANGENT, SECANT], ids=["tangent", "secant"])
def test_pulling_is_the_transpose_of_pushing(decoder, kind, along):
    one, output = made(decoder, kind, along)
    torch.testing.assert_close(one.output, output)
    weights = torch.rand(2, *output.shape, dtype=torch.float64)
    pulled = one.pull(weights)
    assert pulled.shape == (2, *one.activation.shape)
    parts = torch.rand(3, 5, *one.activation.shape[2:], dtype=torch.float64)
    pushed = one.push(parts, 1)
    assert pushed.shape == (3, 5, *one.left)
    left = torch.einsum("nrchw,rkchw->nrk", weights, pushed)
    torch.testing.assert_close(left, torch.einsum("nrhw,rkhw->nrk", pulled[:, :, 1], parts))


@pytest.mark.parametrize("kind", ["chain", "skip"])
@pytest.mark.parametrize("along", [TANGENT, SECANT], ids=["tangent", "secant"])
def test_all_channels_at_once_are_their_sum(decoder, kind, along):
    one, output = made(decoder, kind, along)
    a = one.activation
    alone = torch.stack([one.push(a[:, u : u + 1], u)[:, 0] for u in range(a.shape[1])])
    torch.testing.assert_close(one.push_all(a), alone.sum(0))
    if along is SECANT:
        torch.testing.assert_close(alone.sum(0) + one.slot, output)
    else:
        assert one.slot is None
