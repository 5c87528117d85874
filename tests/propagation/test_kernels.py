import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.attributions.canvas.rules.kernels import Kernels

LAYERS = [
    (nn.Linear(4, 6), ()),
    (nn.Conv1d(4, 6, 3, bias=False), (5,)),
    (nn.Conv2d(4, 6, 3, padding=1, stride=2), (5, 6)),
    (nn.Conv2d(4, 6, 3, padding="same", groups=2, padding_mode="reflect"), (5, 6)),
    (nn.Conv2d(4, 4, 3, dilation=2, groups=4), (5, 6)),
    (nn.Conv3d(4, 2, 2), (3, 3, 3)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (5, 6)),
    (nn.ConvTranspose1d(4, 6, 3, groups=2), (5,)),
]


@pytest.mark.parametrize(("layer", "space"), LAYERS, ids=str)
def test_parts_add_up_to_the_layer_and_sums_to_their_weighted_places(layer, space):
    layer = layer.double()
    kernels, x = Kernels(layer, "l"), torch.rand(2, 4, *space, dtype=torch.float64)
    y = layer(x).detach()
    parts = kernels.parts(kernels.check(x), slice(None))
    assert parts.shape == (2, *kernels.shape, *y.shape[2:])
    bias = kernels.bias.reshape(1, -1, *[1] * len(space))
    torch.testing.assert_close(parts.sum(1) + bias, y)
    torch.testing.assert_close(kernels.parts(x, slice(1, 3)), parts[:, :, 1:3])
    g = torch.rand_like(y)
    expected = (parts * g[:, None]).reshape(2, *kernels.shape, -1).sum(3)
    torch.testing.assert_close(kernels.sums(x, g), expected)


def test_by_hand():
    conv = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([2.0, -3.0]).reshape(2, 1, 1, 1))
    parts = Kernels(conv, "c").parts(torch.full((1, 1, 1, 1), 5.0), slice(None))
    assert parts.flatten().tolist() == [10.0, -15.0]


def test_other_layers_and_inputs_are_refused():
    with pytest.raises(LayerError, match=r"layer act is a GELU; pairs and the 'xinc' rule need a torch.nn.Linear or a"):
        Kernels(nn.GELU(), "act")
    with pytest.raises(LayerError, match=r"takes inputs of shape \(2, 4, 5\); .* need \(rows, channels, ...\) with 4"):
        Kernels(nn.Conv2d(4, 2, 1), "c").check(torch.rand(2, 4, 5))
