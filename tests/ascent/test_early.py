import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from xinc_captum.ascent.early import early_layer, name_of, passed, spaced_layers
from xinc_captum.ascent.reading import Reader

X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    return resnet18().eval()


@pytest.fixture(scope="module")
def vit():
    return VisionTransformer(32, 8, num_layers=5, num_heads=2, hidden_dim=16, mlp_dim=32).eval()


def test_in_a_resnet_it_is_layer2(resnet):
    reader = Reader(resnet)
    assert name_of(reader, early_layer(reader, X, ())) == "layer2"
    assert name_of(reader, early_layer(reader, X, (), (resnet.layer2[0].conv1,))) == "layer1", "before what is raised"


def test_in_a_transformer_it_ends_after_two_fifths(vit):
    reader = Reader(vit)
    ended = passed(reader, torch.rand(1, 3, 32, 32), ())
    early = early_layer(reader, torch.rand(1, 3, 32, 32), ())
    place = [one.module for one in ended].index(early)
    assert early is vit.conv_proj or place == 2 * len(ended) // 5


def test_without_anything_before_there_is_none():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    reader = Reader(net)
    assert early_layer(reader, torch.rand(1, 3, 2, 2), (), (net[0],)) is None


def test_spaced_layers_lie_along_the_way(resnet):
    reader = Reader(resnet)
    order = [one.module for one in passed(reader, X, ())]
    places = [order.index(module) for module in spaced_layers(reader, X, ())]
    assert len(places) == 4 and places == sorted(places) and places[-1] > 0.7 * len(order)
    until = spaced_layers(reader, X, (), (resnet.layer2,), count=2)
    assert len(until) == 2 and all(order.index(layer) < order.index(resnet.layer2) for layer in until)


def test_only_modules_that_ran_once_with_rows_of_floats(conv):
    conv.again = nn.Sequential(conv.relu, nn.Flatten(0), nn.Identity())
    forward = lambda x: (conv.again(conv.conv(x)), conv(x))
    order = [one.module for one in passed(Reader(forward), torch.rand(2, 3, 6, 6), ())]
    assert conv.relu not in order and conv.conv not in order and conv.again not in order
    assert order == [conv.norm, conv.pool, conv.drop, conv.fc]
    assert not any(module._forward_hooks for module in conv.modules())
