import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerError, layer_to_grid
from xinc_captum.attributions.accentuation.activations import ImageModel, MissingError, lay_out_for, needs

X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def read(model, *layers, whole=True):
    return model.run(X, (), [model.module(layer) for layer in layers], to_output=whole)


def test_what_a_pass_shows(conv):
    seen = read(ImageModel(conv), "norm", "fc")
    assert torch.equal(seen("fc"), conv(X))
    assert torch.equal(seen("labels"), seen.output) and torch.equal(seen("input"), X)
    assert torch.equal(seen(conv.norm), conv.norm(conv.conv(X))), "not what the in-place ReLU made of it"
    assert seen.rows == 2
    assert torch.equal(seen.part(slice(1, 2))("norm"), seen("norm")[1:])


def test_a_layer_that_lucent_would_call_labels():
    net = nn.ModuleDict({"labels": nn.Conv2d(3, 2, 1), "fc": nn.Conv2d(2, 1, 1)})
    model = ImageModel(lambda x: net["fc"](net["labels"](x)))
    assert read(model, "labels")("labels").shape[1] == 2


def test_preprocess_dtype_and_output_fn(conv):
    model = ImageModel(lambda x: {"y": conv(x)}, lambda x: x * 2 - 1, lambda out: out["y"])
    torch.testing.assert_close(read(model).output, conv(X * 2 - 1))
    half = ImageModel(conv.bfloat16(), dtype=torch.bfloat16)
    assert read(half).output.dtype == torch.bfloat16


def test_names_with_dots_underscores_and_modules():
    net = nn.Sequential()
    net.add_module("layer1", nn.Sequential(nn.Conv2d(3, 2, 1)))
    net.add_module("a_b", nn.ReLU())
    model = ImageModel(net)
    assert model.module("layer1.0") is model.module("layer1_0") is model.module(net.layer1[0]) is net.layer1[0]
    assert model.module("a_b") is net.a_b
    with pytest.raises(LayerError, match="layer1_1"):
        model.module("layer1_1")


def test_layers_that_cannot_be_read(conv):
    model = ImageModel(conv)
    with pytest.raises(MissingError, match="pool"):
        read(model, "norm")("pool")
    with pytest.raises(MissingError, match="labels"):
        _ = read(model, "norm", whole=False).output

    class Odd(nn.Module):
        def __init__(self, hand):
            super().__init__()
            self.part, self.hand = nn.Identity(), hand
            self.part.register_forward_hook(lambda m, a, out: hand(out))

        def forward(self, x):
            self.part(x)
            return x.flatten(1)

    assert read(ImageModel(Odd(lambda x: (x,))), "part")("part").shape == X.shape
    with pytest.raises(LayerError, match="layer 'part' returns 2 floating-point tensors; expected one"):
        read(ImageModel(Odd(lambda x: (x, x))), "part")("part")
    with pytest.raises(LayerError, match=r"returns shape \(6, 36\) for 2 input rows; expected rows first"):
        read(ImageModel(Odd(lambda x: x.reshape(6, 36))), "part")("part")


def test_tokens_want_to_be_named():
    net = nn.Sequential(nn.Flatten(2), nn.Identity())  # (2, 3, 36): 36 tokens last
    with pytest.raises(
        LayerError, match=r"'1' returns shape \(2, 3, 36\), and which axis holds the units .*_axis=.*_grid="
    ):
        read(ImageModel(net), "1").grid("1")
    laid = ImageModel(net, layer_to_grid=lambda a: layer_to_grid(a, token_axis=2, channel_axis=1))
    assert torch.equal(read(laid, "1").grid("1"), X)


@pytest.mark.parametrize(
    ("objective", "layers", "whole"),
    [
        (lambda seen: seen.output[:, 0], [], True),
        (lambda seen: seen("norm").mean((1, 2, 3)), ["norm"], False),
        (lambda seen: seen("norm").mean((1, 2, 3)) + seen("pool").sum((1, 2, 3)), ["norm", "pool"], False),
        (lambda seen: seen("norm").mean((1, 2, 3)) * seen("labels")[:, 1], ["norm"], True),
        (lambda seen: -seen("input").mean((1, 2, 3)), [], True),
    ],
)
def test_needs_finds_out_by_trying(conv, objective, layers, whole):
    model = ImageModel(conv)
    assert needs(model, X, (), objective) == ([conv.get_submodule(name) for name in layers], whole)


def test_layers_that_run_twice_or_never(conv):
    conv.idle = nn.Linear(2, 2)
    twice = nn.Sequential(conv.conv, conv.relu, nn.Conv2d(4, 4, 1), conv.relu)
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        needs(ImageModel(conv), X, (), lambda seen: seen("idle"))
    with pytest.raises(LayerError, match="layer '1' runs more than once"):
        needs(ImageModel(twice), X, (), lambda seen: seen("1"))


def test_images_that_the_model_refuses(conv):
    with pytest.raises(ValueError, match=r"the model refuses images of shape \(2, 1, 6, 6\): .*channels.*preprocess="):
        needs(ImageModel(conv), X[:, :1], (), lambda seen: seen.output)


@pytest.mark.parametrize("error", [AssertionError, ValueError, RuntimeError])
def test_a_model_of_one_size_names_size(error):
    class Fixed(nn.Module):
        def forward(self, x):
            if x.shape[-1] != 8:
                raise error("Wrong image height! Expected 8 but got 6!")
            return x.flatten(1)

    method = FeatureAccentuation(Fixed())
    with pytest.raises(
        ValueError, match=r"Expected 8 but got 6.* reach it at 5 x 6 pixels: the size= of .* give it: size="
    ):
        method.accentuate(torch.rand(1, 1, 5, 6), 1, n_steps=1)
    found = FeatureAccentuation(Fixed(), size=8).accentuate(torch.rand(1, 1, 5, 6), 1, n_steps=1)
    assert found.images.shape == (1, 1, 5, 6)


def test_models_and_preprocessing_that_change_their_input_in_place():
    x = torch.rand(1, 3, 6, 6)
    given, net = x.clone(), nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    options = {"n_steps": 2, "transforms": ()}
    found = FeatureAccentuation(net, preprocess=lambda y: y.mul_(2)).accentuate(given, 1, **options)
    assert torch.equal(given, x), "the caller's images are not changed"
    apart = FeatureAccentuation(net, preprocess=lambda y: y * 2).accentuate(x, 1, **options)
    assert torch.equal(found.images, apart.images)
    inside = FeatureAccentuation(lambda y: net(y.sub_(0.5).mul_(2).add_(1))).accentuate(given, 1, **options)
    torch.testing.assert_close(inside.before, net(x * 2)[:, 1].detach())


@pytest.mark.parametrize(
    ("tokens", "kwargs", "size"),
    [
        (16, {}, (4, 4)),
        (17, {}, (4, 4)),
        (21, {"skip": 5}, (4, 4)),
        (12, {"size": (3, 4)}, (3, 4)),
        (13, {"size": (3, 4)}, (3, 4)),
        (1, {}, (1, 1)),
    ],
)
def test_patches_in_reading_order(tokens, kwargs, size):
    activation = torch.arange(2.0 * tokens * 3).reshape(2, tokens, 3)
    grid = layer_to_grid(activation, **kwargs)
    first = tokens - size[0] * size[1]
    assert grid.shape == (2, 3, *size)
    for patch in range(size[0] * size[1]):
        assert torch.equal(grid[:, :, patch // size[1], patch % size[1]], activation[:, first + patch])


def test_axes_are_named():
    activation = torch.rand(2, 17, 3)
    turned = layer_to_grid(activation.mT, token_axis=-1, channel_axis=1)
    assert torch.equal(turned, layer_to_grid(activation))


@pytest.mark.parametrize(
    ("shape", "kwargs", "text"),
    [
        ((2, 3, 4, 4), {}, r"returns \(2, 3, 4, 4\) and the axes are token_axis=1, channel_axis=2; expected"),
        ((2, 16, 3), {"token_axis": 2}, "two different axes after the rows"),
        ((2, 16, 3), {"token_axis": 0}, "two different axes after the rows"),
        ((2, 19, 3), {}, "has 19 tokens, and neither 19 nor 18 of them make a square; give skip= and size="),
        ((2, 19, 3), {"size": (2, 3)}, r"neither 19 nor 18 of them make a map of \(2, 3\)"),
        ((2, 19, 3), {"skip": 2}, "skip=2 leaves 17 of 19 tokens, which do not make a square; give size="),
        ((2, 19, 3), {"skip": 20}, "skip=20 leaves -1 of 19 tokens"),
    ],
)
def test_what_is_no_grid(shape, kwargs, text):
    with pytest.raises(ValueError, match=text):
        layer_to_grid(torch.rand(shape), **kwargs)


@pytest.mark.parametrize(
    ("tokens", "image", "size"),
    [
        (16, (128, 32), (8, 2)),
        (17, (32, 128), (2, 8)),
        (196, (224, 224), (14, 14)),
        (14 * 18 + 1, (231, 300), (14, 18)),
        (6 * 9, (90, 136), (6, 9)),
    ],
)
def test_the_shape_of_the_image_that_went_in(tokens, image, size):
    activation = torch.rand(2, tokens, 3)
    with lay_out_for(image):
        assert layer_to_grid(activation).shape[2:] == size
    assert torch.equal(layer_to_grid(activation, size=size).flatten(2), activation[:, -size[0] * size[1] :].mT)


def test_tokens_that_do_not_fit_the_image_are_asked_about():
    with (
        lay_out_for((128, 64)),
        pytest.raises(ValueError, match="do not make|make a map with the shape of the image, 128"),
    ):
        layer_to_grid(torch.rand(2, 64, 3))
    with lay_out_for((128, 64)):
        assert layer_to_grid(torch.rand(2, 64, 3), size=(8, 8)).shape == (2, 3, 8, 8)
    assert layer_to_grid(torch.rand(2, 64, 3)).shape == (2, 3, 8, 8), "the image is known inside the block only"
