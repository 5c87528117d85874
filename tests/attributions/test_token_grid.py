import re

import pytest
import torch
from torch import nn
from vision_models import (
    SWIN,
    VIT,
    hf_vit,
    hugging_face,
    mobilevit,
    segformer,
    timm_model,
    timm_swin,
    timm_vit,
    torchvision_convnext,
    torchvision_maxvit,
    torchvision_swin,
    torchvision_vit,
)

from xinc_captum import FeatureActivationMap, LayerError, capture, layer_to_grid
from xinc_captum.attributions.token_grid import TokenLayout, lay_out_for, token_layout, units_second
from xinc_captum.hooks.layout import parents_once


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


def test_token_and_channel_axis():
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
def test_tokens_that_do_not_fill_a_map_raise(shape, kwargs, text):
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
def test_the_map_has_the_shape_of_the_input_image(tokens, image, size):
    activation = torch.rand(2, tokens, 3)
    with lay_out_for(image):
        assert layer_to_grid(activation).shape[2:] == size
    assert torch.equal(layer_to_grid(activation, size=size).flatten(2), activation[:, -size[0] * size[1] :].mT)


def test_tokens_that_do_not_fit_the_image_raise():
    with (
        lay_out_for((128, 64)),
        pytest.raises(ValueError, match="do not make|make a map with the shape of the image, 128"),
    ):
        layer_to_grid(torch.rand(2, 64, 3))
    with lay_out_for((128, 64)):
        assert layer_to_grid(torch.rand(2, 64, 3), size=(8, 8)).shape == (2, 3, 8, 8)
    assert layer_to_grid(torch.rand(2, 64, 3)).shape == (2, 3, 8, 8), "the image is known inside the block only"


WIDE, SQUARE, LARGE, TALL = (32, 48), (32, 32), (64, 64), (64, 96)
BLOCK_0 = {"blocks.0": (4, 4), "blocks.1.mlp.act": (4, 4), "norm": (4, 4), "patch_embed": (4, 4)}
STAGES = {
    "layers.0.blocks.0": (16, 16),
    "layers.0.blocks.0.mlp.fc1": (16, 16),
    "layers.1.blocks.1": (8, 8),
    "norm": (8, 8),
}


def hf_layers(prefix, *names, size=(4, 4)):
    return {f"hf.{prefix}{name}": size for name in names}


HF_SWIN = {"embeddings": (16, 16), "encoder.layers.0.blocks.0": (16, 16), "encoder.layers.1.blocks.1.mlp.fc1": (8, 8)}
# Model, size of its input, and layers with the (h, w) of their maps.
EXACT = {  # attention is switched off, so that a patch changes its own position only
    "timm vit": (timm_vit, SQUARE, BLOCK_0),
    "timm vit, wide": (lambda: timm_vit(img_size=WIDE), WIDE, {"blocks.0": (4, 6), "blocks.1.mlp.act": (4, 6)}),
    "timm vit, any size": (lambda: timm_vit(dynamic_img_size=True), (56, 32), {"blocks.0": (7, 4), "norm": (7, 4)}),
    "timm vit, registers": (lambda: timm_vit("vit_base_patch14_reg4_dinov2"), SQUARE, BLOCK_0),
    "timm vit, no class token": (lambda: timm_vit(class_token=False, global_pool="avg"), SQUARE, BLOCK_0),
    "timm deit, distilled": (lambda: timm_vit("deit_tiny_distilled_patch16_224"), SQUARE, BLOCK_0),
    "timm beit": (lambda: timm_vit("beit_base_patch16_224"), SQUARE, BLOCK_0 | {"blocks.1.norm2": (4, 4)}),
    "timm eva": (lambda: timm_vit("eva02_tiny_patch14_224"), SQUARE, {"blocks.0": (4, 4), "blocks.1.norm2": (4, 4)}),
    "timm cait": (
        lambda: timm_vit("cait_xxs24_224"),
        SQUARE,
        {"blocks.1": (4, 4), "blocks_token_only.0.norm1": (4, 4)},
    ),
    "timm swin": (timm_swin, LARGE, STAGES),
    "timm swin, wide": (
        lambda: timm_swin(img_size=TALL),
        TALL,
        {"layers.0": (16, 24), "layers.1.blocks.1.mlp.act": (8, 12)},
    ),
    "timm swinv2": (lambda: timm_swin("swinv2_tiny_window8_256"), LARGE, STAGES),
    "timm mixer": (lambda: timm_model("mixer_s32_224", img_size=128), (128, 128), {"blocks.0": (4, 4), "norm": (4, 4)}),
    "torchvision vit": (torchvision_vit, SQUARE, {"encoder.layers.encoder_layer_1": (4, 4), "encoder.ln": (4, 4)}),
    "torchvision swin": (
        torchvision_swin,
        TALL,
        {"features.1.0.mlp.0": (16, 24), "features.3": (8, 12), "norm": (8, 12)},
    ),
    "hf vit": (
        lambda: hf_vit("ViT"),
        SQUARE,
        hf_layers("vit.", "embeddings", "layers.0", "layers.1.mlp.activation_fn"),
    ),
    "hf deit": (lambda: hf_vit("DeiT"), SQUARE, hf_layers("deit.", "embeddings", "layers.1", "layernorm")),
    "hf dinov2": (
        lambda: hf_vit("Dinov2"),
        (40, 64),
        hf_layers("dinov2.", "encoder.layer.1", "layernorm", size=(5, 8)),
    ),
    "hf dinov2, registers": (
        lambda: hf_vit("Dinov2WithRegisters", num_register_tokens=4),
        SQUARE,
        hf_layers("dinov2_with_registers.", "embeddings", "encoder.layer.1", "layernorm"),
    ),
    "hf clip": (lambda: hf_vit("CLIPVisionModel"), SQUARE, hf_layers("encoder.layers.", "0", "1.mlp.fc1")),
    "hf siglip": (lambda: hf_vit("SiglipVisionModel"), SQUARE, hf_layers("", "encoder.layers.1", "post_layernorm")),
    "hf swin": (
        lambda: hugging_face("SwinForImageClassification", "SwinConfig", **SWIN),
        TALL,
        {"hf.swin.encoder.layers.0.blocks.0": (16, 24), "hf.swin.encoder.layers.1.blocks.1.mlp": (8, 12)},
    ),
    "hf swinv2": (
        lambda: hugging_face("Swinv2ForImageClassification", "Swinv2Config", **SWIN),
        LARGE,
        {"hf.swinv2.encoder.layers.1.blocks.1.output": (8, 8), "hf.swinv2.layernorm": (8, 8)},
    ),
}
NEAR = {  # convolutions mix neighbours
    "timm maxvit": (
        lambda: timm_model("maxvit_rmlp_pico_rw_256", img_size=64),
        LARGE,
        {"stem": (32, 32), "stages.0.blocks.0.conv": (16, 16)},
    ),
    "timm nest": (
        lambda: timm_model("nest_tiny", img_size=64),
        LARGE,
        {"patch_embed": (16, 16), "levels.1.pool": (8, 8)},
    ),
    "timm convnext": (
        lambda: timm_model("convnext_atto", dims=(8, 12, 20, 24), depths=(1, 1, 1, 1)),
        (128, 96),
        {"stem": (32, 24), "stages.0.blocks.0.mlp.fc1": (32, 24)},
    ),
    "timm efficientvit": (lambda: timm_model("efficientvit_b0"), LARGE, {"stem": (32, 32), "stages.0": (16, 16)}),
    "timm pvt": (
        lambda: timm_model("pvt_v2_b0"),
        LARGE,
        {"stages.0.blocks.0.norm1": (16, 16), "stages.1.blocks.0.norm1": (8, 8)},
    ),
    "torchvision maxvit": (torchvision_maxvit, LARGE, {"stem": (32, 32), "blocks.0": (16, 16)}),
    "torchvision convnext": (torchvision_convnext, LARGE, {"features.1.0.block.3": (16, 16), "features.0": (16, 16)}),
    "hf segformer": (
        segformer,
        LARGE,
        {"hf.segformer.stages.0.blocks.0.layernorm_before": (16, 16), "hf.segformer.stages.1.blocks.0": (8, 8)},
    ),
    "hf mobilevit": (mobilevit, LARGE, {"hf.mobilevit.conv_stem": (32, 32), "hf.mobilevit.encoder.layer.0": (32, 32)}),
}
MIXES = re.compile(r"(Attention|AttentionCl|Attn)$")


def switch_off(module, _args, output):
    return (
        tuple(torch.zeros_like(v) if torch.is_tensor(v) else v for v in output)
        if isinstance(output, tuple)
        else output * 0
    )


def maps_of_markers(build, size, layers):
    """Yield each layer with its maps of an image and of one with another patch, and the first pixel and size of the patch."""
    torch.manual_seed(0)
    model, (height, width) = build().eval(), size
    for parameter in model.parameters():
        if not parameter.any():  # layer scales and biases that start at zero
            nn.init.normal_(parameter, std=0.1)
    for name, module in model.named_modules():
        if MIXES.search(type(module).__name__) or name.endswith("mlp_tokens"):
            module.register_forward_hook(switch_off)
    coarsest = [max(side // of[i] for of in layers.values()) for i, side in enumerate(size)]
    down, across = (
        side // 2 // cell * cell + (side // 4 // cell) * cell * i
        for i, (side, cell) in enumerate(zip(size, coarsest, strict=True))
    )
    pair = torch.rand(1, 3, height, width).repeat(2, 1, 1, 1)
    pair[1, :, down : down + coarsest[0], across : across + coarsest[1]] += 1
    with torch.no_grad(), capture(model, list(layers)) as captured:
        model(pair)
    with parents_once():
        for name, grid in layers.items():
            module = model.get_submodule(name)
            yield (
                name,
                units_second(captured[module], module, model, tuple(pair.shape), None, None),
                grid,
                (down, across),
                coarsest,
            )


@pytest.mark.parametrize("name", EXACT)
def test_a_patch_changes_its_own_position_of_the_map(name):
    build, size, layers = EXACT[name]
    for layer, maps, (h, w), (down, across), cell in maps_of_markers(build, size, layers):
        assert maps.shape[2:] == (h, w), layer
        change = (maps[1] - maps[0]).abs().sum(0)
        changed = (change > 1e-5 * change.max()).nonzero()
        per = size[0] // h, size[1] // w
        expected = torch.cartesian_prod(
            *(torch.arange(start // p, (start + c) // p) for start, c, p in zip((down, across), cell, per, strict=True))
        )
        assert changed.tolist() == expected.tolist(), layer


@pytest.mark.parametrize("name", NEAR)
def test_a_patch_changes_the_map_around_its_position(name):
    build, size, layers = NEAR[name]
    for layer, maps, (h, w), starts, cell in maps_of_markers(build, size, layers):
        assert maps.shape[2:] == (h, w), layer
        change = (maps[1] - maps[0]).abs().sum(0)
        for axis, (start, width, count, side) in enumerate(zip(starts, cell, (h, w), size, strict=True)):
            centre = (change.sum(1 - axis) * (torch.arange(count) + 0.5)).sum() / change.sum()
            assert abs(centre - (start + width / 2) * count / side) < count / 8, layer


class Blocks(nn.Module):
    """A transformer of one's own: ``tokens`` before the patches, which a convolution or a reshape cuts out."""

    def __init__(self, tokens, patch=8, convolution=False, name="first", width=24):
        super().__init__()
        self.patch, self.convolution = patch, convolution
        self.embed = nn.Conv2d(3, width, patch, patch) if convolution else nn.Linear(3 * patch**2, width)
        if tokens:
            self.register_parameter(name, nn.Parameter(torch.rand(1, tokens, width)))
            self.tokens = lambda: getattr(self, name)
        else:
            self.tokens = lambda: torch.zeros(1, 0, width)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Identity())
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.plain = nn.Sequential(nn.Identity())
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.embed(x) if self.convolution else nn.functional.pixel_unshuffle(x, self.patch)
        x = x.flatten(2).mT if self.convolution else self.embed(x.flatten(2).mT)
        x = torch.cat([self.tokens().expand(len(x), -1, -1), x], 1)
        x = self.plain(self.block(x))
        return self.head((x + self.attention(x, x, x)[0])[:, 0])


def layout(model, layer, size, rows=1):
    model = model.eval()
    images = torch.rand(rows, 3, *size)
    with torch.no_grad(), capture(model, layer) as captured:
        model(images)
    module = model.get_submodule(layer)
    return token_layout(captured[module].shape, module, model, images.shape)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        (lambda: Blocks(1), (32, 32), TokenLayout(1, (4, 4))),
        (lambda: Blocks(1), (64, 64), TokenLayout(1, (8, 8))),
        (lambda: Blocks(0), (64, 64), TokenLayout(0, (8, 8))),
        (lambda: Blocks(1), (64, 96), TokenLayout(1, (8, 12))),
        (lambda: Blocks(2, convolution=True), (32, 64), TokenLayout(2, (4, 8))),
        (lambda: Blocks(4, name="register_tokens"), (32, 32), TokenLayout(4, (4, 4))),
        (lambda: Blocks(5, name="cls_token"), (40, 40), TokenLayout(5, (5, 5))),
    ],
)
def test_models_of_ones_own(model, size, expected):
    assert layout(model(), "plain", size) == expected


def test_a_model_that_resizes_its_input():
    """The tokens are those of the size for which the model was made."""
    vit = torchvision_vit()
    net = nn.Sequential(nn.Upsample((32, 32)), vit)
    assert layout(net, "1.encoder.layers.encoder_layer_1", (50, 60)) == TokenLayout(1, (4, 4))


@pytest.mark.parametrize(
    ("model", "layer", "size", "text"),
    [
        (
            lambda: Blocks(0),
            "plain",
            (40, 40),
            r"25 tokens fit several maps: layer_to_grid=functools.partial\(layer_to_grid, skip=0\) or "
            r"layer_to_grid=functools.partial\(layer_to_grid, skip=9\)",
        ),
        (
            lambda: Blocks(17, name="cls_token", convolution=True, patch=4),
            "plain",
            (33, 33),
            r"81 tokens fit several maps: .*skip=0\) or .*skip=17\)",
        ),
        (lambda: Blocks(3), "plain", (64, 64), "67 tokens, without 0 to 9 of them, make no map of the 64 x 64 input"),
        (
            lambda: Blocks(3, convolution=True, name="prompts"),
            "plain",
            (64, 64),
            "Blocks has 8 x 8 = 64 patches of the 64 x 64 input and 0 or 1 or .* tokens before them, and the layer has 67",
        ),
        (
            lambda: hugging_face("ViTMAEModel", "ViTMAEConfig", **VIT).hf,
            "layers.0",
            (32, 32),
            "ViTMAEModel has 4 x 4 = 16 patches of the 32 x 32 input and 0 or 1 tokens before them, and the layer has 5",
        ),
        (
            lambda: timm_model("hiera_tiny_224", img_size=LARGE, embed_dim=8),
            "blocks.0",
            LARGE,
            "Hiera orders its tokens",
        ),
        (
            lambda: timm_model("mixer_s32_224", img_size=128),
            "blocks.0.mlp_tokens",
            (128, 128),
            "MlpMixer has 4 x 4 = 16 patches of the 128 x 128 input and .* tokens before them, and the layer has 512",
        ),
        (
            lambda: hugging_face("SwinForImageClassification", "SwinConfig", **SWIN),
            "hf.swin.pooler",
            LARGE,
            "Its class has the channels on axis 1",
        ),
    ],
)
def test_what_is_refused(model, layer, size, text):
    assert re.search(text, layout(model(), layer, size))


@pytest.mark.parametrize(
    ("model", "layer", "size", "text"),
    [
        (
            timm_swin,
            "layers.0.blocks.0.attn.proj",
            LARGE,
            r"\(32, 16, 8\) for 2 samples: it runs on windows: first axis",
        ),
        (
            torchvision_maxvit,
            "blocks.0.layers.0.layers.window_attention.attn_layer.0",
            LARGE,
            r"\(2, 16, 16, 12\) for 2 samples: it runs on windows: positions are windows, and places in a window",
        ),
        (lambda: timm_model("nest_tiny", img_size=64), "levels.0.transformer_encoder.0", LARGE, "it runs on windows"),
        (mobilevit, "hf.mobilevit.encoder.layer.2.transformer", LARGE, "for 2 samples: it runs on windows: first axis"),
    ],
)
def test_windows_are_refused(model, layer, size, text):
    net = model().eval()
    with pytest.raises(LayerError, match=text):
        FeatureActivationMap(net, layer, torch.rand(1, 12)).attribute(torch.rand(2, 3, *size))


def test_errors_name_the_layer_and_the_cure():
    images, net = torch.rand(2, 3, 40, 40), Blocks(0).eval()
    with pytest.raises(
        ValueError,
        match=r"layer 'plain' returns shape \(2, 25, 24\); expected maps .*25 tokens fit several maps: .*skip=0.* Give "
        "layer_to_grid=xinc_captum.layer_to_grid",
    ):
        FeatureActivationMap(net, "plain", torch.rand(1, 24)).attribute(images)
    with pytest.raises(LayerError, match=r"which axis holds the units .* 25 tokens fit several maps: .*skip=9\)"):
        units_second(torch.rand(2, 25, 24), net.plain, net, images.shape, None, None)
    assert units_second(torch.rand(2, 25, 24), net.plain, net, images.shape, None, -1).shape == (2, 24, 25)
    maps = FeatureActivationMap(net, "plain", torch.rand(1, 24), layer_to_grid=lambda a: layer_to_grid(a, skip=9))
    assert maps.attribute(images).shape == (2, 1, 4, 4)


def test_layers_that_are_no_tokens_of_an_image():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Blocks(1)

        def forward(self, x):
            return self.inner(x)

    assert "decoder" in layout(Decoder(), "inner.plain", (64, 64))
    without = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.Identity())
    assert layout(without, "1", (8, 8)) == "", "neither attention nor patches"
    clip = pytest.importorskip("transformers", reason="transformers is not installed")
    text = clip.CLIPTextModel(clip.CLIPTextConfig(**{k: v for k, v in VIT.items() if "size" in k or "num" in k}))
    block = next(m for name, m in text.named_modules() if name.endswith("layers.0"))
    assert token_layout((2, 50, 32), block, text, (2, 3, 56, 56)) == "The layer reads text"


def test_feature_activation_map_of_tokens_needs_no_option():
    net, x = torchvision_vit().eval(), torch.rand(2, 3, 32, 32)
    layer = "encoder.layers.encoder_layer_1"
    found = FeatureActivationMap(net, layer, x[:1]).attribute(x)
    with torch.no_grad(), capture(net, layer) as captured:
        net(x)
    tokens = captured[net.get_submodule(layer)][:, 1:]
    maps = tokens.mT.unflatten(2, (4, 4))
    f = tokens.mean(1)
    f = f / f.norm(dim=1, keepdim=True)
    by_hand = (maps * (f.abs() * f[:1])[:, :, None, None]).sum(1, keepdim=True).relu()
    torch.testing.assert_close(found, by_hand)
