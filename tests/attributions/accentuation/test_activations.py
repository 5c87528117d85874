import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, LayerError, layer_to_grid
from xinc_captum.attributions.accentuation.activations import ImageModel, MissingError, find_required_layers

X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def read(model, *layers, to_output=True):
    return model.run(X, (), [model.module(layer) for layer in layers], to_output=to_output)


def test_activations_of_a_pass(conv):
    activations = read(ImageModel(conv), "norm", "fc")
    assert torch.equal(activations("fc"), conv(X))
    assert torch.equal(activations("labels"), activations.output) and torch.equal(activations("input"), X)
    assert torch.equal(activations(conv.norm), conv.norm(conv.conv(X))), "not what the in-place ReLU made of it"
    assert activations.rows == 2
    second = activations.select(slice(1, 2))
    assert torch.equal(second("norm"), activations("norm")[1:]) and torch.equal(second.output, activations.output[1:])
    assert torch.equal(second("input"), X[1:]) and second.rows == 1


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


def test_layers_that_were_not_recorded_raise(conv):
    model = ImageModel(conv)
    with pytest.raises(MissingError, match="pool"):
        read(model, "norm")("pool")
    with pytest.raises(MissingError, match="labels"):
        _ = read(model, "norm", to_output=False).output

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


def test_tokens_without_a_unit_axis_raise():
    net = nn.Sequential(nn.Flatten(2), nn.Identity())  # (2, 3, 36): 36 tokens last
    with pytest.raises(
        LayerError, match=r"'1' returns shape \(2, 3, 36\), and which axis holds the units .*_axis=.*_grid="
    ):
        read(ImageModel(net), "1").grid("1")
    laid = ImageModel(net, layer_to_grid=lambda a: layer_to_grid(a, token_axis=2, channel_axis=1))
    assert torch.equal(read(laid, "1").grid("1"), X)


@pytest.mark.parametrize(
    ("objective", "layers", "to_output"),
    [
        (lambda activations: activations.output[:, 0], [], True),
        (lambda activations: activations("norm").mean((1, 2, 3)), ["norm"], False),
        (
            lambda activations: activations("norm").mean((1, 2, 3)) + activations("pool").sum((1, 2, 3)),
            ["norm", "pool"],
            False,
        ),
        (lambda activations: activations("norm").mean((1, 2, 3)) * activations("labels")[:, 1], ["norm"], True),
        (lambda activations: -activations("input").mean((1, 2, 3)), [], True),
    ],
)
def test_required_layers_are_determined_by_a_trial_run(conv, objective, layers, to_output):
    model = ImageModel(conv)
    assert find_required_layers(model, X, (), objective) == (
        tuple(conv.get_submodule(name) for name in layers),
        to_output,
    )


def test_layers_that_run_twice_or_never_raise(conv):
    conv.idle = nn.Linear(2, 2)
    twice = nn.Sequential(conv.conv, conv.relu, nn.Conv2d(4, 4, 1), conv.relu)
    with pytest.raises(LayerError, match="layer 'idle' never ran"):
        find_required_layers(ImageModel(conv), X, (), lambda activations: activations("idle"))
    with pytest.raises(LayerError, match="layer '1' runs more than once"):
        find_required_layers(ImageModel(twice), X, (), lambda activations: activations("1"))


def test_images_that_the_model_cannot_process_raise(conv):
    with pytest.raises(
        ValueError, match=r"the model cannot process images of shape \(2, 1, 6, 6\): .*channels.*preprocess="
    ):
        find_required_layers(ImageModel(conv), X[:, :1], (), lambda activations: activations.output)


@pytest.mark.parametrize("error", [AssertionError, ValueError, RuntimeError])
def test_a_model_of_one_size_names_size(error):
    class Fixed(nn.Module):
        def forward(self, x):
            if x.shape[-1] != 8:
                raise error("Wrong image height! Expected 8 but got 6!")
            return x.flatten(1)

    method = FeatureAccentuation(Fixed())
    with pytest.raises(
        ValueError, match=r"Expected 8 but got 6.* receives them at 5 x 6 pixels: the size= .* give it: size="
    ):
        method.accentuate(torch.rand(1, 1, 5, 6), 1, n_steps=1)
    result = FeatureAccentuation(Fixed(), size=8).accentuate(torch.rand(1, 1, 5, 6), 1, n_steps=1)
    assert result.images.shape == (1, 1, 5, 6)


def test_models_and_preprocessing_that_change_their_input_in_place():
    x = torch.rand(1, 3, 6, 6)
    inputs, net = x.clone(), nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    options = {"n_steps": 2, "transforms": ()}
    result = FeatureAccentuation(net, preprocess=lambda y: y.mul_(2)).accentuate(inputs, 1, **options)
    assert torch.equal(inputs, x), "the caller's images are not changed"
    apart = FeatureAccentuation(net, preprocess=lambda y: y * 2).accentuate(x, 1, **options)
    assert torch.equal(result.images, apart.images)
    inside = FeatureAccentuation(lambda y: net(y.sub_(0.5).mul_(2).add_(1))).accentuate(inputs, 1, **options)
    torch.testing.assert_close(inside.before, net(x * 2)[:, 1].detach())
