"""Lists of layers and default layers, known by construction or from the literature."""

import pytest
import torch
from torch import nn

from xinc_captum import ImageModel
from xinc_captum.image_model import Normalise
from xinc_captum.models import default_layer, list_layers
from xinc_captum.models.layers import choose_layer

PLAIN = Normalise((0.0,) * 3, (1.0,) * 3)


def image_model(network, size=16):
    return ImageModel("net", network.eval(), PLAIN, size, ())


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x):
        y = self.norm(x)
        return x + self.attn(y, y, y, need_weights=False)[0]


class AttentionPool(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query, self.kv = nn.Parameter(torch.randn(1, 1, width)), nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, x):
        kv = self.kv(x)
        return ((self.query @ kv.mT).softmax(-1) @ kv)[:, 0]


class Transformer(nn.Module):
    """A small vision transformer; ``pool`` is "class" for a class token, "mean" for the mean of the patches.

    "patches" is the mean of the scores of each patch, and "attention" an attention over the patches.
    """

    def __init__(self, pool, width=8):
        super().__init__()
        self.pool = pool
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.head, self.attention_pool = nn.Linear(width, 5), AttentionPool(width)

    def forward(self, images):
        x = self.patches(images).flatten(2).mT
        if self.pool == "class":
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.pool == "patches":
            return self.head(x).mean(1)
        if self.pool == "attention":
            return self.head(self.attention_pool(x))
        return self.head(x[:, 0] if self.pool == "class" else x.mean(1))


def test_layers_are_listed_in_their_order_with_shapes():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    rows = list_layers(net, size=8)
    assert rows == [
        ("0", "Conv2d", (1, 4, 6, 6)),
        ("1", "ReLU", (1, 4, 6, 6)),
        ("2.0", "AdaptiveAvgPool2d", (1, 4, 1, 1)),
        ("2.1", "Flatten", (1, 4)),
        ("2", "Sequential", (1, 4)),
    ]
    assert list_layers(image_model(net, 5))[0].shape == (1, 4, 3, 3)
    assert not any(module._forward_hooks for module in net.modules())


def test_modules_without_tensors_and_unused_modules_are_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.twice, self.text = nn.ReLU(), nn.ReLU(), Text()

        def forward(self, x):
            return self.twice(self.twice(x)), self.text(x)

    assert [row.name for row in list_layers(Net(), size=4)] == ["twice"]


class Text(nn.Module):
    def forward(self, x):
        return "text"


def test_the_last_map_of_a_convolutional_network():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert default_layer(image_model(net)) == "3"
    resnet = pytest.importorskip("torchvision").models.resnet18(weights=None)
    assert default_layer(image_model(resnet, 64)) == "layer4"


def test_the_map_before_the_classes_of_a_segmentation_model():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1), nn.Upsample(scale_factor=2))
    assert default_layer(image_model(net)) == "1"


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("class", ("blocks.2.norm", "4 x 4 patches after 1 other token, 8 channels")),
        ("mean", ("norm", "4 x 4 patches, 8 channels")),
        ("patches", ("norm", "4 x 4 patches, 8 channels")),
        ("attention", ("norm", "4 x 4 patches, 8 channels")),
    ],
)
def test_the_last_block_of_tokens_that_the_output_depends_on(pool, expected):
    """Behind the last block, a class token alone reaches the output, so a gradient map there is zero."""
    torch.manual_seed(0)
    model = image_model(Transformer(pool))
    assert choose_layer(model) == expected
    assert default_layer(model) == expected[0]


def test_a_network_without_maps_or_tokens_has_no_default_layer():
    assert default_layer(image_model(nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 4)))) is None
