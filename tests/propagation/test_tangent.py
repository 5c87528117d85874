"""The tangent is Captum's gradient x activation, for every output at once."""

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
