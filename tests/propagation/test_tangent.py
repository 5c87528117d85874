"""The tangent is Captum's gradient x activation, for every output at once."""

import pytest
import torch
from captum.attr import LayerGradientXActivation

from xinc_captum import NeuronCanvas
from xinc_captum.inr import FourierMLP, coordinates


def test_tangent_equals_captum_channel_by_channel():
    model, x = FourierMLP(hidden=8), coordinates((5, 6))
    for name in ("encoding", "linear1", "activation2", "output"):
        ours = NeuronCanvas(model, name).attribute(x)
        for c in range(3):
            theirs = LayerGradientXActivation(model, getattr(model, name)).attribute(x, target=c)
            assert torch.allclose(ours[..., c], theirs, atol=1e-6)


@pytest.mark.parametrize("site", ["stem", "blocks.0.0", "blocks.0", "blocks.1.0", "blocks.1"])
def test_tangent_is_a_backward_pass_of_every_pixel(decoder, site):
    model, t = decoder
    model, t = model.float(), t.float()
    whole = NeuronCanvas(model, site).attribute(t)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        c, y, x = (int(torch.randint(n, (1,), generator=generator)) for n in (3, 8, 12))
        alone = NeuronCanvas(model, site).attribute(t, target=(c, y, x))  # one output: one backward pass
        assert (whole[:, :, c, y, x] - alone).abs().max() <= 1e-6
