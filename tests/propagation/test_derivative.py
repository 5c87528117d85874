"""Both directions of differentiation share an output out alike."""

import torch
from torch import nn

from xinc_captum import NeuronCanvas


def test_forward_mode_equals_backward_mode():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3), nn.Sigmoid())
    x = torch.rand(2, 2, 6, 7)
    for rule in ("tangent", "secant"):
        canvas = NeuronCanvas(model, "1", rule=rule)
        whole = canvas.attribute(x)  # (2, 3 or 4, 2, 4, 5): many outputs, few units
        for pixel in ((0, 1, 2), (1, 3, 4)):
            one = canvas.attribute(x, target=pixel)  # one output: backward
            assert torch.allclose(whole[(slice(None), slice(None), *pixel)], one, atol=1e-6)
