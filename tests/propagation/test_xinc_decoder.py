"""The released kernel maps, recorded, on a plain module built here; and the same formula written out longhand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum import LayerError, NeuronCanvas

RECORDED = Path(__file__).parents[1] / "data" / "xinc_nerv.npz"


class Plain(nn.Module):
    """Functions for shuffles and activations, so that only running it shows what follows what."""

    def __init__(self, recorded):
        super().__init__()
        self.strides, self.low = [int(s) for s in recorded["strides"]], recorded["dec1"].shape[1:]
        state = {k.removeprefix("state/"): torch.from_numpy(recorded[k]) for k in recorded if k.startswith("state/")}
        parts = [state[k] for k in state]
        convs = [nn.Conv2d(w.shape[1], w.shape[0], w.shape[2], padding=w.shape[2] // 2) for w in parts[::2]]
        for conv, weight, bias in zip(convs, parts[::2], parts[1::2], strict=True):
            conv.load_state_dict({"weight": weight, "bias": bias})
        self.stem, self.block1, self.block2, self.block3, self.head = convs

    def forward(self, embedded):
        x = F.gelu(self.stem(embedded).reshape(-1, *self.low))
        for conv, stride in zip((self.block1, self.block2, self.block3), self.strides, strict=True):
            x = F.gelu(F.pixel_shuffle(conv(x), stride))
        return self.head(x)


def kernels(model, layer, x, **kwargs):
    method = NeuronCanvas(model, layer, rule="xinc", unit="pair")
    return method.attribute(x, attribute_to_layer_input=True, **kwargs)


def test_the_released_maps_are_reproduced():
    recorded = np.load(RECORDED)
    model, embedded = Plain(recorded), torch.from_numpy(recorded["embed"])
    close = lambda a, b: torch.testing.assert_close(a, torch.from_numpy(b), atol=2e-6, rtol=1e-5)
    close(model(embedded).detach(), recorded["img"])
    head = NeuronCanvas(model, "head", rule="xinc").attribute(embedded, attribute_to_layer_input=True)
    close(head[0], recorded["map/head"])
    close(head.sum(1), recorded["img"])
    close(kernels(model, "block3", embedded)[0], recorded["map/b3"])
    close(kernels(model, "block2", embedded)[0], recorded["map/b2"])
    close(kernels(model, "block1", embedded)[0, [0, 5]], recorded["map/b1"])


def longhand(model, i, o, x):
    """The map of one kernel of block 0, every stage on the full grid."""
    conv, later = model.blocks[0][0], model.blocks[1][0]
    h = torch.tanh(model.stem(x)).view(-1, 3, 2, 3)
    k = F.conv2d(h[:, i : i + 1], conv.weight[o, i][None, None], padding=1) + conv.bias[o] / 3
    fine = torch.zeros(len(x), 1, 4, 6, dtype=x.dtype)
    fine[:, :, o % 4 // 2 :: 2, o % 2 :: 2] = k
    box = lambda m, size: F.avg_pool2d(m, size, 1, size // 2)
    activation = model.blocks[0][2]
    m = box(activation(fine), later.kernel_size[0])
    m = box(activation(F.interpolate(m, scale_factor=2)), 3)
    return m[:, 0]


@pytest.mark.parametrize("activation", [nn.GELU, nn.Softplus, nn.Tanh])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_any_activation_and_kernel_size(make_decoder, activation, size):
    model, x = make_decoder(activation=activation).double(), torch.rand(2, 1, dtype=torch.float64)
    model.blocks[1][0] = nn.Conv2d(4, 8, size, padding=size // 2).double()
    maps = kernels(model, "blocks.0.0", x)
    assert maps.shape == (2, 3, 16, 8, 12)
    for i, o in ((0, 0), (2, 7), (1, 14)):
        torch.testing.assert_close(maps[:, i, o], longhand(model, i, o, x).detach())
        torch.testing.assert_close(kernels(model, "blocks.0.0", x, neuron_selector=(i, o))[:, 0], maps[:, i, o])


def test_targets_and_selectors_of_the_head(decoder):
    model, t = decoder
    method = NeuronCanvas(model, "head", rule="xinc")
    ask = lambda **kwargs: method.attribute(t, attribute_to_layer_input=True, **kwargs)
    whole = ask()
    assert whole.shape == (3, 2, 3, 8, 12)
    close = torch.testing.assert_close  # float64, convolutions with fewer channels
    close(ask(target=1), whole[:, :, 1])
    close(ask(target=(2, 0, slice(3, 5))), whole[:, :, 2, 0, 3:5])
    close(ask(target=(2, 0, 1), neuron_selector=[1]), whole[:, [1], 2, 0, 1])
    close(ask(neuron_selector=[1, 0]), whole[:, [1, 0]])


@pytest.mark.parametrize(
    ("layer", "kwargs", "unit", "error", "text"),
    [
        ("blocks.0.0", {}, "neuron", LayerError, "layer 'blocks.0.0' is an inner convolution.*unit=\"pair\""),
        ("blocks.0.0", {"target": 0}, "pair", ValueError, "target=0 has no meaning under rule 'xinc'"),
        ("blocks.0.0", {"attribute_to_layer_input": False}, "pair", LayerError, "attribute_to_layer_input=True"),
        ("stem", {}, "neuron", LayerError, "layer 'stem' is a Linear in front of convolutions"),
        ("blocks.0", {}, "pair", LayerError, "is a Sequential; pairs and the 'xinc' rule need"),
    ],
)
def test_what_the_released_rule_cannot_answer(decoder, layer, kwargs, unit, error, text):
    model, t = decoder
    with pytest.raises(error, match=text):
        NeuronCanvas(model, layer, rule="xinc", unit=unit).attribute(t, **{"attribute_to_layer_input": True, **kwargs})


def test_a_tail_that_it_cannot_follow_is_refused():
    skip = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Softmax(1), nn.Conv2d(4, 3, 1))
    with pytest.raises(LayerError, match="rule 'xinc' at layer '0' follows Conv2d.*met 'softmax'. Use rule='tangent'"):
        kernels(skip, "0", torch.rand(1, 1, 3, 3))
