"""The axis of the units: by the caller, the layer's class, the input's shape, the modules inside; else an error."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.convnext import LayerNorm2d

from xinc_captum import FeatureAccentuation, LayerError, NeuronFeatureAccentuation
from xinc_captum.attributions.linking import Encoder
from xinc_captum.hooks import (
    check_preprocess,
    crop_of,
    fits,
    image_size,
    layout,
    modules_behind,
    preprocesses,
    unit_axis,
)
from xinc_captum.hooks.layers import search_once
from xinc_captum.image_model import ImageModel, Normalise


class Mixing(nn.Module):
    """A block of a transformer over maps (N, h, w, channels)."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.linear(self.norm(x))


class Convolving(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()

    def forward(self, x):
        return x + self.act(self.norm(self.conv(x)))


class Custom(nn.Module):
    """Without modules of torch inside."""

    def forward(self, x):
        return x


class NewLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x)


def axis(shape, layer, model=None, entered=(), **kwargs):
    return unit_axis(shape, layer, layer if model is None else model, entered=entered, **kwargs)


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((2, 7), Custom(), 1),
        ((2, 6, 9), nn.Conv1d(3, 6, 1), 1),
        ((2, 6, 9), nn.BatchNorm1d(6), 1),
        ((2, 6, 9), nn.AvgPool1d(2), 1),
        ((2, 9, 6), nn.Linear(3, 6), 2),
        ((2, 9, 6), nn.LayerNorm(6), 2),
        ((2, 9, 6), nn.TransformerEncoderLayer(6, 2, batch_first=True), 2),
        ((1, 50, 6), nn.Sequential(nn.Linear(2, 6), nn.ReLU()), 2),
        ((2, 6, 9), nn.Sequential(nn.Linear(9, 9), nn.Conv1d(3, 6, 1), nn.Dropout(), nn.GELU()), 1),
        ((2, 5, 5, 6), nn.Linear(3, 6), 3),
        ((2, 6, 5, 5), LayerNorm2d(6), 1),
        ((2, 5, 5, 6), NewLinear(3, 6), 3),
        ((2, 6, 4, 5, 5), nn.Conv3d(1, 6, 1), 1),
    ],
)
def test_by_class(shape, layer, expected):
    assert axis(shape, layer) == expected


def test_activation_functions_are_as_the_module_before_them():
    points = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Sequential(nn.Dropout(), nn.Tanh()))
    signal = nn.Sequential(nn.Conv1d(1, 6, 3), nn.Dropout(), nn.ReLU())
    assert axis((1, 50, 6), points[1], points) == axis((1, 50, 6), points[2][1], points) == 2
    assert axis((2, 6, 9), signal[2], signal) == 1
    assert axis((2, 6, 9), signal[2], signal, at_input=True) == 1
    assert axis((1, 50, 6), points[1], lambda x: points(x), at_input=True) == 2


@pytest.mark.parametrize("layer", [Custom(), Mixing(6), nn.ReLU(), nn.Sequential(nn.Linear(6, 6), Custom())])
def test_three_axes_are_never_guessed(layer):
    with pytest.raises(
        LayerError, match=r"returns shape \(2, 9, 6\), and which axis holds the units cannot be .*unit_axis=-1"
    ):
        axis((2, 9, 6), layer)
    assert axis((2, 9, 6), layer, requested=-1) == 2 and axis((2, 9, 6), layer, requested=1) == 1


def test_distances_read_three_axes_off_the_modules_inside_and_around():
    assert axis((2, 9, 6), Mixing(6), loose=True) == 2
    block = Mixing(6)
    block.act = nn.GELU()
    assert axis((2, 9, 6), block.act, block, loose=True) == 2
    with pytest.raises(LayerError):
        axis((2, 9, 6), Custom(), loose=True)
    with pytest.raises(LayerError):
        axis((2, 9, 6), head := Custom(), nn.Sequential(head, nn.Flatten(), nn.Linear(54, 3)), loose=True)


@pytest.mark.parametrize("kind", [Custom, lambda: Mixing(96), nn.Identity])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (224, 320), (65, 97)])
def test_four_axes_by_the_inputs_height_and_width(kind, height, width):
    rows, image = (2, 3, height, width), (-(-height // 8), -(-width // 8))
    assert axis((2, *image, 96), kind(), entered=rows) == 3
    if kind is not Custom and kind is not nn.Identity:
        return
    assert axis((2, 96, *image), kind(), entered=rows) == 1


def test_two_possible_unit_axes_raise_unless_the_modules_decide():
    square = (2, 3, 64, 64)
    with pytest.raises(LayerError, match="64 pixels high and 64 wide; both unit_axis=1 and unit_axis=-1 leave axes"):
        axis((2, 8, 8, 8), Custom(), entered=square)
    assert axis((2, 8, 8, 8), Convolving(8), entered=square) == 1
    assert axis((2, 8, 8, 8), Mixing(8), entered=square) == 3
    block = Convolving(8)
    assert axis((2, 8, 8, 8), block.act, block, entered=square) == 1


def test_no_possible_unit_axis_raises_unless_the_modules_decide():
    with pytest.raises(LayerError, match="neither unit_axis=1 nor unit_axis=-1 leaves axes with that height : width"):
        axis((2, 16, 49, 96), Custom(), entered=(2, 3, 224, 224))
    assert axis((2, 16, 49, 96), Mixing(96), entered=(2, 3, 224, 224)) == 3, "blocks x tokens x channels"
    assert axis((2, 16, 1, 26), Convolving(16), entered=(2, 3, 32, 100)) == 1, "a network that pools its height away"
    with pytest.raises(LayerError, match="which fits unit_axis=-1, but the modules inside the layer do not"):
        axis((2, 8, 8, 96), Convolving(8), entered=(2, 3, 64, 64))
    assert axis((2, 8, 8, 96), Convolving(96), entered=(2, 3, 64, 64)) == 3, "its convolutions have as many channels"


def test_without_an_image_the_modules_decide():
    assert axis((2, 6, 4, 4), Custom(), entered=(2, 16)) == 1, "torch's own order"
    assert axis((2, 4, 4, 6), Mixing(6), entered=(2, 16)) == 3
    mlp = nn.ModuleDict({"first": nn.Linear(2, 6), "act": nn.ReLU()})
    with pytest.raises(LayerError, match="do not decide"):
        axis((1, 30, 40, 6), mlp["act"], mlp, entered=(1, 30, 40, 2))
    both = nn.ModuleList([Mixing(6), Convolving(6)])
    with pytest.raises(LayerError, match="the modules in and around it do not decide"):
        axis((2, 4, 4, 6), both, entered=(2, 16))
    assert image_size((1, 30, 40, 2)) is None, "a grid of coordinates is no picture of 30 channels"


@pytest.mark.parametrize("requested", [0, 3, -4, True, 1.0, "last"])
def test_axes_that_are_none(requested):
    with pytest.raises(
        ValueError, match=r"unit_axis is .* for a layer of shape \(2, 9, 6\); expected an axis behind the rows"
    ):
        axis((2, 9, 6), Custom(), requested=requested)


def test_maps_may_deviate_by_the_rounding_of_strides():
    assert axis((2, 16, 8, 8), Mixing(16), entered=(2, 3, 64, 64)) == 1, "tokens that were laid out as a map at the end"
    assert fits((7, 7), (224, 224)) and fits((4, 7), (64, 107)) and not fits((8, 96), (64, 64))


def test_the_axis_of_a_recurrent_layer_is_its_steps():
    lstm = nn.LSTM(6, 5, batch_first=True)
    assert axis((3, 7, 6), lstm, at_input=True) == 1


NORMALISE = Normalise((0.5,), (0.5,))
NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2))
CLASSIFIER = ImageModel("small", NET, NORMALISE, 6, ("a", "b"))


def test_classifiers_preprocess_and_modules_do_not():
    assert preprocesses(CLASSIFIER)
    assert not any(map(preprocesses, (NET, NET.forward, lambda x: NET(x), None)))
    check_preprocess(CLASSIFIER, None)
    check_preprocess(NET, NORMALISE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureAccentuation(CLASSIFIER, preprocess=NORMALISE),
        lambda: NeuronFeatureAccentuation(CLASSIFIER, "0", preprocess=NORMALISE),
        lambda: Encoder(CLASSIFIER, "2", preprocess=NORMALISE),
    ],
)
def test_normalising_twice_is_refused(make):
    with pytest.raises(ValueError, match="preprocess is given, and small has its own preprocess, so images would"):
        make()


def test_a_sequential_alone_follows_its_modules():
    x = torch.rand(1, 1, 6, 6)
    options = {"n_steps": 1, "transforms": ()}
    alone = FeatureAccentuation(CLASSIFIER).perturb(x, 1, **options)
    assert torch.equal(alone, FeatureAccentuation(NET, preprocess=NORMALISE).perturb(x, 1, **options))


def test_crop_of_returns_the_used_rows_and_columns():
    x = torch.rand(2, 3, 40, 20)
    assert crop_of(lambda y: y[..., 6:-3, 5:], x) == ((6, 36), (5, 19))
    assert crop_of(lambda y: y[..., 6:-3, 5:].mul_(2), x) == ((6, 36), (5, 19))
    for whole in (
        lambda y: (y - 0.5) / 0.2,
        lambda y: nn.functional.avg_pool2d(y, 2),
        lambda y: y.detach(),
        lambda y: 3,
    ):
        assert crop_of(whole, x) is None


def test_a_cropping_preprocess_warns_and_its_mask_is_correct():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    x, options = torch.rand(1, 3, 20, 20), {"n_steps": 2, "transforms": ()}
    crop = lambda y: y[..., 4:16, 4:16]
    text = "preprocess uses only rows 4 to 15 and columns 4 to 15 of images of 20 x 20 pixels"
    with pytest.warns(UserWarning, match=text):
        found = FeatureAccentuation(net, preprocess=crop).accentuate(x, 1, **options)
    assert torch.equal(found.masks[..., 4:16, 4:16] > 0, torch.ones(1, 3, 12, 12, dtype=torch.bool))
    assert float(found.masks.sum()) == pytest.approx(float(found.masks[..., 4:16, 4:16].sum()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureAccentuation(net, preprocess=lambda y: y * 2, size=12).accentuate(x, 1, **options)


def test_numpy_integers_are_axes():
    assert axis((2, 7, 7, 96), nn.Identity(), requested=np.int64(-1)) == 3
    assert axis((2, 96, 7), nn.Identity(), requested=np.int64(1)) == 1


def test_parents_are_searched_once_in_a_block(monkeypatch):
    inner = nn.Linear(3, 3)
    net = nn.Sequential(nn.Sequential(inner), nn.ReLU())
    searches = []
    monkeypatch.setattr(layout, "modules_behind", lambda function: searches.append(function) or [net])
    with layout.parents_once():
        assert layout.parents_of(inner, net) == [net[0], net]
        assert layout.parents_of(net[1], net) == [net] and layout.parents_of(net, net) == []
    assert len(searches) == 1
    assert layout.parents_of(inner, net) == [net[0], net] and len(searches) == 2


def test_searches_are_kept_in_a_block_only():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    holder = {"net": first}
    function = lambda x: holder["net"](x)
    with search_once():
        assert modules_behind(function) == [first]
        holder["net"] = second
        assert modules_behind(function) == [first]
    assert modules_behind(function) == [second]
