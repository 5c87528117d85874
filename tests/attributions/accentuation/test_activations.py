import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer, resnet18
from vision_models import SWIN, hf_vit, hugging_face, mvit, segformer, timm_swin, timm_vit, torchvision_swin

from xinc_captum import FeatureAccentuation, LayerError, layer_to_grid
from xinc_captum.attributions.accentuation.activations import (
    MissingError,
    ModelInputs,
    early_layer,
    image_layers,
    late_layers,
)

X = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def read(model, *layers, to_output=True):
    return model.run(X, (), [model.module(layer) for layer in layers], to_output=to_output)


def test_activations_of_a_pass(conv):
    activations = read(ModelInputs(conv), "norm", "fc")
    assert torch.equal(activations("fc"), conv(X))
    assert torch.equal(activations("labels"), activations.output) and torch.equal(activations("input"), X)
    assert torch.equal(activations(conv.norm), conv.norm(conv.conv(X))), "not what the in-place ReLU made of it"
    assert activations.rows == 2
    second = activations.select(slice(1, 2))
    assert torch.equal(second("norm"), activations("norm")[1:]) and torch.equal(second.output, activations.output[1:])
    assert torch.equal(second("input"), X[1:]) and second.rows == 1


def test_a_layer_that_lucent_would_call_labels():
    net = nn.ModuleDict({"labels": nn.Conv2d(3, 2, 1), "fc": nn.Conv2d(2, 1, 1)})
    model = ModelInputs(lambda x: net["fc"](net["labels"](x)))
    assert read(model, "labels")("labels").shape[1] == 2


def test_preprocess_dtype_and_output_fn(conv):
    model = ModelInputs(lambda x: {"y": conv(x)}, lambda x: x * 2 - 1, lambda out: out["y"])
    torch.testing.assert_close(read(model).output, conv(X * 2 - 1))
    half = ModelInputs(conv.bfloat16(), dtype=torch.bfloat16)
    assert read(half).output.dtype == torch.bfloat16


def test_names_with_dots_underscores_and_modules():
    net = nn.Sequential()
    net.add_module("layer1", nn.Sequential(nn.Conv2d(3, 2, 1)))
    net.add_module("a_b", nn.ReLU())
    model = ModelInputs(net)
    assert model.module("layer1.0") is model.module("layer1_0") is model.module(net.layer1[0]) is net.layer1[0]
    assert model.module("a_b") is net.a_b
    with pytest.raises(LayerError, match="layer1_1"):
        model.module("layer1_1")


def test_layers_that_were_not_recorded_raise(conv):
    model = ModelInputs(conv)
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

    assert read(ModelInputs(Odd(lambda x: (x,))), "part")("part").shape == X.shape
    with pytest.raises(LayerError, match="layer 'part' returns 2 floating-point tensors; expected one"):
        read(ModelInputs(Odd(lambda x: (x, x))), "part")("part")
    with pytest.raises(LayerError, match=r"returns shape \(6, 36\) for 2 input rows; expected rows first"):
        read(ModelInputs(Odd(lambda x: x.reshape(6, 36))), "part")("part")


def test_tokens_without_a_unit_axis_raise():
    net = nn.Sequential(nn.Flatten(2), nn.Identity())  # (2, 3, 36): 36 tokens last
    with pytest.raises(
        LayerError, match=r"'1' returns shape \(2, 3, 36\), and which axis holds the units .*_axis=.*_grid="
    ):
        read(ModelInputs(net), "1").grid("1")
    laid = ModelInputs(net, layer_to_grid=lambda a: layer_to_grid(a, token_axis=2, channel_axis=1))
    assert torch.equal(read(laid, "1").grid("1"), X)


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


PHOTO = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet():
    return resnet18().eval()


@pytest.fixture(scope="module")
def vit():
    return VisionTransformer(32, 8, num_layers=5, num_heads=2, hidden_dim=16, mlp_dim=32).eval()


def test_early_layer_of_a_resnet_is_layer2(resnet):
    model = ModelInputs(resnet)
    assert model.name_of(early_layer(model, PHOTO, ())) == "layer2"
    assert model.name_of(early_layer(model, PHOTO, (), (resnet.layer2[0].conv1,))) == "layer1", "before what is raised"


def test_early_layer_of_a_transformer_ends_after_two_fifths(vit):
    model = ModelInputs(vit)
    ended = image_layers(model, torch.rand(1, 3, 32, 32), ())
    early = early_layer(model, torch.rand(1, 3, 32, 32), ())
    assert [one.module for one in ended].index(early) == 2 * len(ended) // 5, "not its patches, which are 1/8 of it"


def hf_swin():
    return hugging_face(
        "SwinForImageClassification", "SwinConfig", **SWIN | {"depths": [1, 1, 1], "num_heads": [1, 2, 2]}
    )


@pytest.mark.parametrize(
    ("build", "early"),
    [
        (lambda: timm_swin(depths=(1, 1, 1)), "layers.1"),
        (lambda: torchvision_swin((1, 1, 1)), "features.3"),
        (hf_swin, "hf.swin.encoder.layers.0.downsample"),
        (segformer, "hf.segformer.stages.1"),
        (mvit, "stages.1"),
    ],
    ids=["timm swin", "torchvision swin", "hf swin", "segformer", "mvit"],
)
def test_early_layer_of_a_pyramid_is_its_map_of_an_eighth(build, early):
    model, photo = build().eval(), torch.rand(1, 3, 64, 64)
    inputs = ModelInputs(model)
    found = early_layer(inputs, photo, ())
    assert inputs.name_of(found) == early
    (output,) = (one for one in image_layers(inputs, photo, ()) if one.module is found)
    assert (output.tokens.size if output.tokens else output.map_size) == (8, 8)


@pytest.mark.parametrize(
    ("build", "side"),
    [(timm_vit, 32), (lambda: hf_vit("ViT"), 32), (timm_swin, 64), (hf_swin, 64), (segformer, 64), (mvit, 64)],
    ids=["timm vit", "hf vit", "timm swin", "hf swin", "segformer", "mvit"],
)
def test_accentuation_of_transformers_needs_no_option(build, side):
    result = FeatureAccentuation(build().eval()).accentuate(torch.rand(1, 3, side, side), 1, n_steps=2, seed=0)
    assert result.distances.isfinite().all() and (result.images != result.seeds).any()


def test_without_earlier_modules_there_is_no_early_layer():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model = ModelInputs(net)
    assert early_layer(model, torch.rand(1, 3, 2, 2), (), (net[0],)) is None


def test_late_layers_are_evenly_spaced(resnet):
    model = ModelInputs(resnet)
    order = [one.module for one in image_layers(model, PHOTO, ())]
    indices = [order.index(module) for module in late_layers(model, PHOTO, ())]
    assert len(indices) == 4 and indices == sorted(indices) and indices[-1] > 0.7 * len(order)
    until = late_layers(model, PHOTO, (), (resnet.layer2,))
    assert len(until) == 4 and all(order.index(layer) < order.index(resnet.layer2) for layer in until)


@pytest.mark.parametrize("channels_last", [False, True])
def test_late_layers_have_at_least_four_units(channels_last):
    last = [Permuted(), nn.LayerNorm(8), nn.Linear(8, 2)] if channels_last else [nn.ReLU(), nn.Conv2d(8, 2, 1)]
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *last)
    wide = list(net)[:-1]
    assert set(late_layers(ModelInputs(net), PHOTO, ())) <= set(wide), "two maps of 62 x 62 pixels are two units"
    assert late_layers(ModelInputs(net), PHOTO, ())[-1] is wide[-1]


class Permuted(nn.Module):
    """Maps with their channels last."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def test_only_modules_that_run_once_with_float_rows(conv):
    conv.again = nn.Sequential(conv.relu, nn.Flatten(0), nn.Identity())
    forward = lambda x: (conv.again(conv.conv(x)), conv(x))
    order = [one.module for one in image_layers(ModelInputs(forward), torch.rand(2, 3, 6, 6), ())]
    assert conv.relu not in order and conv.conv not in order and conv.again not in order
    assert order == [conv.norm, conv.pool, conv.drop, conv.fc]
    assert not any(module._forward_hooks for module in conv.modules())


class Beside(nn.Module):
    """Two modules that pass for layers of one picture: a table with one row, and a branch for another input."""

    def __init__(self, detached=False):
        super().__init__()
        self.image, self.depth = nn.Sequential(nn.Conv2d(3, 4, 3, 8), nn.ReLU()), nn.Sequential(nn.Conv2d(1, 4, 3, 8))
        self.table, self.head, self.detached = nn.Sequential(nn.Linear(2, 4)), nn.Linear(4, 3), detached

    def forward(self, x, depth):
        with torch.set_grad_enabled(not self.detached):
            calls = self.image(x)
        bias = self.table(torch.ones(1, 7, 7, 2)).mean((1, 2))
        return self.head((calls + self.depth(depth)).mean((2, 3)) + bias)


def test_modules_independent_of_the_images_are_excluded():
    net, x, depth = Beside().eval(), torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    reached = [one.module for one in image_layers(ModelInputs(net), x, (depth,))]
    assert reached == [net.image[0], net.image[1], net.image, net.head]
    assert early_layer(ModelInputs(net), x, (depth,)) is net.image
    assert all(layer in reached for layer in late_layers(ModelInputs(net), x, (depth,)))
    with torch.no_grad():
        assert [one.module for one in image_layers(ModelInputs(net), x, (depth,))] == reached, (
            "whatever the caller switched off"
        )
    for p in net.parameters():
        p.requires_grad_(False)
    assert [one.module for one in image_layers(ModelInputs(net), x, (depth,))] == reached, (
        "frozen weights change nothing"
    )
    assert not any(module._forward_hooks for module in net.modules())


def test_without_gradients_other_images_decide():
    net, x, depth = Beside(detached=True).eval(), torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    model = ModelInputs(lambda x, d: net(x, d))
    assert [one.module for one in image_layers(model, x, (depth,))] == [net.image[0], net.image[1], net.image, net.head]
    assert early_layer(model, x, (depth,)) is None, "nothing there moves an image"


def test_a_layer_without_a_gradient_is_skipped():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.silent, self.head = nn.Conv2d(3, 4, 3, 8), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)
            nn.init.zeros_(self.silent.weight)

        def forward(self, x):
            a = self.first(x)
            return self.head((a + self.silent(a)).mean((2, 3)))

    net = Silent().eval()
    assert early_layer(ModelInputs(net), torch.rand(1, 3, 64, 64), ()) is net.first


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_modules_are_skipped():
    net = nn.Sequential(torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1))), nn.Conv2d(3, 4, 3, 8), nn.Flatten())
    assert [one.module for one in image_layers(ModelInputs(net), PHOTO, ())] == [net[1], net[2]]
    assert early_layer(ModelInputs(net), PHOTO, ()) is net[1]


def test_inputs_that_the_model_writes_into_and_tuples_between_layers():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.act = Part(), nn.ReLU(inplace=True)

        def forward(self, x):
            x -= 0.5
            return self.act(self.part(x)[0]).mean((2, 3))

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 8)

        def forward(self, x):
            return self.conv(x), None

    net = Writing()
    assert [one.module for one in image_layers(ModelInputs(lambda x: net(x.clone())), PHOTO, ())] == [
        net.part.conv,
        net.part,
        net.act,
    ]


def test_unit_axis_and_map_size():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3, 8), nn.LayerNorm(4)

        def forward(self, x):
            return self.norm(self.conv(F.interpolate(x, (32, 64))).permute(0, 2, 3, 1)).mean((1, 2))

    first, last = image_layers(ModelInputs(Last(), lambda x: F.interpolate(x, (32, 64))), PHOTO, ())
    assert (first.unit_axis, first.map_size) == (1, (4, 8)) and (last.unit_axis, last.map_size) == (3, (4, 8))


class Attending(nn.Module):
    """A block that computes its attention weights by a module: (rows, heads, tokens, tokens)."""

    def __init__(self, heads=2, width=8):
        super().__init__()
        self.heads, self.norm, self.qkv = heads, nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.soft, self.drop, self.proj = nn.Softmax(-1), nn.Dropout(), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, 2))
        weights = self.drop(self.soft(q @ k.mT))
        return x + self.proj((weights @ v).transpose(1, 2).flatten(2))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, 8, 16, 16), nn.Sequential(*[Attending() for _ in range(3)])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.blocks(self.patches(x).flatten(2).mT).mean(1))


def test_attention_weights_are_no_map_of_the_image():
    net = Attention().eval()
    model = ModelInputs(net)
    ended = {one.module: one for one in image_layers(model, PHOTO, ())}
    weights = [m for block in net.blocks for m in (block.soft, block.drop)]
    assert all(ended[m].shape == (1, 2, 16, 16) and ended[m].map_size == () for m in weights)
    assert ended[net.patches].map_size == (4, 4)
    assert early_layer(model, PHOTO, ()) not in weights


def test_mixed_heads_of_attention_weights_are_no_map_of_the_image():
    class Talking(Attending):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(self.heads, self.heads)

        def forward(self, x):
            q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, 2))
            weights = self.mix((q @ k.mT).softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return x + self.proj((weights @ v).transpose(1, 2).flatten(2))

    net = Attention()
    net.blocks = nn.Sequential(Talking(), Talking())
    ended = {one.module: one for one in image_layers(ModelInputs(net.eval()), PHOTO, ())}
    assert ended[net.blocks[0].mix].shape == (1, 16, 16, 2) and ended[net.blocks[0].mix].map_size == ()
    assert early_layer(ModelInputs(net), PHOTO, ()) not in [block.mix for block in net.blocks]


def test_attention_weights_are_no_map_where_blocks_also_have_convolutions():
    class Mixed(Attending):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(8, 8, 3, padding=1)

        def forward(self, x):
            return super().forward(self.conv(x.mT).mT)

    net = Attention()
    net.blocks = nn.Sequential(Mixed(), Mixed())
    ended = {one.module: one for one in image_layers(ModelInputs(net.eval()), PHOTO, ())}
    assert ended[net.blocks[0].soft].map_size == () and ended[net.blocks[1].drop].map_size == ()
    assert ended[net.patches].map_size == (4, 4)
