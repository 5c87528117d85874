import importlib.util

import pytest
import torch
from captum.attr import Saliency
from torch import nn
from vision_models import (
    SWIN,
    hf_vit,
    hugging_face,
    timm_model,
    timm_swin,
    timm_vit,
    torchvision_maxvit,
    torchvision_swin,
    torchvision_vit,
)

from xinc_captum.comparison import as_maps, compare, grad_cam, last_map
from xinc_captum.comparison.registry import BASELINES, by_name, method_names, model_independent

PHOTOS = torch.rand(2, 3, 8, 8)
PEERS = {"grad-cam": "pytorch_grad_cam", "torchcam": "torchcam"}


def test_names_are_resolved(conv):
    found = by_name(["Grad-CAM", "Integrated Gradients", *BASELINES], conv, PHOTOS, None, "conv", 3)
    for name, method in found.items():
        assert as_maps(method(PHOTOS, 1), PHOTOS, (8, 8)).shape == (2, 8, 8), name
    assert torch.equal(found["Grad-CAM"](PHOTOS, 1), grad_cam(conv, "conv")(PHOTOS, 1))


def test_objects_have_titles_and_duplicates_are_numbered(conv):
    def mine(images, target):
        return images

    assert list(by_name([Saliency(conv), mine, mine], conv, PHOTOS, None, None, 0)) == ["Saliency", "mine", "mine 2"]
    assert list(by_name({"a": "edge map"}, conv, PHOTOS, None, None, 0)) == ["a"]
    assert list(by_name("edge map", conv, PHOTOS, None, None, 0)) == ["edge map"]


def test_the_layer_is_determined_or_required(conv):
    assert by_name(["Grad-CAM"], conv, PHOTOS, None, None, 0)["Grad-CAM"](PHOTOS, 1).shape[2:] == (2, 2)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(ValueError, match=r"Grad-CAM needs a layer, but no layer of this model has maps .* Give layer="):
        by_name(["Grad-CAM"], flat, PHOTOS, None, None, 0)


def test_wrong_methods_are_rejected(conv):
    with pytest.raises(
        ValueError, match="no method is called 'saliency'; known are 'Grad-CAM', 'Guided Grad-CAM', 'grad-cam'"
    ):
        by_name(["saliency"], conv, PHOTOS, None, None, 0)
    with pytest.raises(ValueError, match="'accentuation'; did you mean 'Feature Accentuation'. Known are 'Grad-CAM'"):
        by_name("accentuation", conv, PHOTOS, None, None, 0)
    with pytest.raises(ValueError, match="did you mean 'Grad-CAM' or 'Guided Grad-CAM' or 'grad-cam'. Known"):
        by_name(["grad_cam"], conv, PHOTOS, None, None, 0)
    assert {"Grad-CAM", "torchcam", "edge map"} <= set(method_names())


def test_model_independent_methods_are_recognised_by_type(conv):
    assert model_independent({"noise": "random map", "edge map": Saliency(conv), "Grad-CAM": "Grad-CAM"}) == ["noise"]
    assert model_independent(["edge map", "Grad-CAM", "edge map"]) == ["edge map", "edge map 2"]


def test_last_map_of_a_convolutional_network(conv):
    assert last_map(conv, torch.rand(1, 3, 8, 8)) is conv.drop, "its pool keeps 2 x 2 places"
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU()), nn.AdaptiveAvgPool2d(1))
    assert last_map(net, torch.rand(1, 3, 8, 8)) is net[1], "a block, not what is at its end"


def test_networks_without_maps_have_no_last_map(conv):
    assert last_map(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 3, 2, 2)) is None
    assert last_map(lambda x: x, torch.rand(1, 3, 2, 2)) is None


class Tokens(nn.Module):
    """A vision transformer's build: one convolution, then blocks of tokens."""

    def __init__(self, convolutions, blocks):
        super().__init__()
        self.maps = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(convolutions)))
        self.blocks = nn.Sequential(*(nn.Linear(3, 3) for _ in range(blocks)))

    def forward(self, x):
        return self.blocks(self.maps(x).flatten(2).transpose(1, 2)).mean(1)


def test_transformers_have_no_last_map():
    assert last_map(Tokens(1, 4), torch.rand(1, 3, 8, 8)) is None
    late = Tokens(4, 1)
    assert last_map(late, torch.rand(1, 3, 8, 8)) is late.maps


class Windows(nn.Module):
    """As timm's Swin: within a block maps (N, h, w, channels) are tokens (N, places, channels) for most modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 2, 2), nn.LayerNorm(4), nn.Linear(4, 3)
        self.mlp = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))

    def forward(self, x):
        z = self.conv(x).permute(0, 2, 3, 1)
        return self.head(self.norm(z + self.mlp(z.flatten(1, 2)).view(z.shape)).mean((1, 2)))


def test_tokens_before_the_last_map_are_ignored():
    net = Windows().eval()
    assert last_map(net, torch.rand(1, 3, 8, 12)) is net.norm


def test_last_map_uses_preprocessing_and_restores_the_model(conv, found):
    images, seen = torch.rand(1, 3, 8, 8), []
    before = found(conv)
    last_map(conv, images, lambda x: seen.append(x.shape) or x - 0.5)
    assert set(seen) == {(1, 3, 8, 8)}
    assert before.differences(conv) == []


class Last(nn.Module):
    """As a Swin or a VOLO: maps (N, h, w, channels), and a table of position biases of as many rows as images."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 2, 2), nn.LayerNorm(6)
        self.bias, self.head = nn.Sequential(nn.Linear(2, 1)), nn.Linear(6, 3)

    def forward(self, x):
        z = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return self.head((z + self.bias(torch.ones(1, *z.shape[1:3], 2))).mean((1, 2)))


def test_last_map_accepts_channels_last_and_ignores_unused_modules():
    net = Last().eval()
    assert last_map(net, torch.rand(1, 3, 8, 12)) is net.norm


def test_last_map_without_gradients():
    net = Last().eval()
    with torch.no_grad():
        assert last_map(net, torch.rand(1, 3, 8, 12)) is net.norm
    assert last_map(net, torch.rand(1, 3, 8, 12), lambda x: x.detach()) is net.norm
    frozen = lambda x: net.head(torch.no_grad()(lambda x: net.conv(x))(x).mean((2, 3)))
    assert last_map(frozen, torch.rand(1, 3, 8, 12)) is net.conv


def test_last_map_restores_batch_norm_statistics(found):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten()).train()
    images, before = torch.rand(2, 3, 8, 8), found(net)
    assert last_map(net, images) is net[2]
    assert before.differences(net) == []


LAST = {  # model, side of its input, and the default layer of Grad-CAM
    "class token": (timm_vit, 32, "blocks.1.norm1"),
    "mean of patches": (lambda: timm_vit(class_token=False, global_pool="avg"), 32, "blocks"),
    "registers": (lambda: timm_vit("vit_base_patch14_reg4_dinov2", global_pool="token"), 32, "blocks.1.norm1"),
    "torchvision vit": (torchvision_vit, 32, "encoder.layers.encoder_layer_1.ln_1"),
    "hf vit": (lambda: hf_vit("ViT"), 32, "hf.vit.layers.1.layernorm_before"),
    "hf clip": (lambda: hf_vit("CLIPVisionModel"), 32, "hf.encoder.layers.1.layer_norm1"),
    "hf siglip": (lambda: hf_vit("SiglipVisionModel"), 32, "hf.post_layernorm"),
    "hf dinov2": (lambda: hf_vit("Dinov2"), 32, "hf.dinov2.layernorm"),
    "hf swin": (lambda: hugging_face("SwinForImageClassification", "SwinConfig", **SWIN), 64, "hf.swin.layernorm"),
    "timm swin": (timm_swin, 64, "norm"),
    "torchvision swin": (torchvision_swin, 64, "permute"),
    "torchvision maxvit": (torchvision_maxvit, 64, "blocks.1"),
    "timm convnext": (lambda: timm_model("convnext_atto", dims=(8, 12, 20, 24), depths=(1, 1, 1, 1)), 64, "stages"),
}


@pytest.mark.parametrize("name", LAST)
def test_grad_cam_at_the_default_layer(name):
    """The maps of the three implementations agree and are not constant."""
    build, side, layer = LAST[name]
    model, photos = build().eval(), torch.rand(2, 3, side, side)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    place = last_map(model, photos[:1])
    assert place is model.get_submodule(layer)
    assert last_map(lambda x: model(x), photos[:1]) is place
    coarse = torch.stack([grad_cam(model, place)(photos, target) for target in range(model(photos).shape[1])])
    spread = coarse.amax((3, 4)) - coarse.amin((3, 4))
    target = int(spread.amin((1, 2)).argmax())  # ReLU leaves nothing of a class whose evidence is negative everywhere
    assert spread[target].min() > 0
    names = [name for name, package in PEERS.items() if importlib.util.find_spec(package)]
    result = compare(
        ["Grad-CAM", *names], model, photos, target, rounds=1, steps=2, baselines=(), metrics=("sparseness",)
    )
    assert all(row.error == "" for row in result.table)
    ours = result.maps["Grad-CAM"].flatten(1)
    for peer in names:
        theirs = result.maps[peer].flatten(1)
        assert all(torch.corrcoef(torch.stack(pair))[0, 1] > 0.99 for pair in zip(ours, theirs, strict=True))


def test_tokens_without_a_gradient():
    """torchvision's head begins at zero: the last tokens are returned."""
    net = torchvision_vit().eval()
    assert not net.heads.head.weight.any()
    assert last_map(net, torch.rand(1, 3, 32, 32)) is net.encoder


def test_last_map_of_an_image_tower():
    open_clip = pytest.importorskip("open_clip.model", reason="open_clip is not installed")
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
    text = {"context_length": 17, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(32, vision_cfg=vision, text_cfg=text).eval()
    photos = torch.rand(2, 3, 32, 32)
    layer = last_map(clip.encode_image, photos[:1])
    assert layer is clip.visual.transformer.resblocks[1].ln_1
    assert grad_cam(clip.encode_image, layer)(photos, 1).shape == (2, 1, 4, 4)
