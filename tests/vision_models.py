"""Small vision transformers and channels-last networks of timm, transformers and torchvision, with random weights."""

import pytest
import torchvision
from torch import nn


def timm_model(name, **options):
    timm = pytest.importorskip("timm", reason="timm is not installed (pip install '.[features]')")
    return timm.create_model(name, pretrained=False, num_classes=5, **options)


def timm_vit(name="vit_tiny_patch16_224", img_size=32, **options):
    return timm_model(name, img_size=img_size, patch_size=8, embed_dim=32, depth=2, num_heads=2, **options)


def timm_swin(name="swin_tiny_patch4_window7_224", img_size=64, depths=(1, 2)):
    heads = (1, 2, 2)[: len(depths)]
    return timm_model(name, img_size=img_size, window_size=4, embed_dim=8, depths=depths, num_heads=heads)


class Scores(nn.Module):
    """The scores of a model of transformers."""

    def __init__(self, model):
        super().__init__()
        self.hf = model

    def forward(self, x):
        output = self.hf(pixel_values=x)
        scores = getattr(output, "logits", None)
        return output.pooler_output if scores is None else scores


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
VIT |= {"image_size": 32, "patch_size": 8}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}


def hugging_face(model, config, **options):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return Scores(getattr(transformers, model)(getattr(transformers, config)(**options)))


def hf_vit(name, config=None, **options):
    config = config or f"{name.removesuffix('Model')}Config"
    model = name if name.endswith("Model") else f"{name}ForImageClassification"
    return hugging_face(model, config, **VIT, **options)


def segformer():
    sizes = {"hidden_sizes": [8, 12, 20, 24], "num_attention_heads": [1, 1, 2, 2]}
    return hugging_face("SegformerForImageClassification", "SegformerConfig", depths=[1, 1, 1, 1], **sizes)


def mobilevit(**options):
    sizes = {"hidden_sizes": [16, 16, 24], "neck_hidden_sizes": [8, 8, 12, 12, 16, 24, 32]}
    return hugging_face("MobileViTForImageClassification", "MobileViTConfig", image_size=64, **sizes, **options)


def torchvision_vit():
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 48, num_classes=5)


def torchvision_swin(depths=(1, 2)):
    heads = [1, 2, 2][: len(depths)]
    return torchvision.models.SwinTransformer([4, 4], 12, list(depths), heads, [4, 4], num_classes=5)


def torchvision_maxvit():
    return torchvision.models.MaxVit((64, 64), 12, 4, [12, 24], [1, 1], 12, 0.0, num_classes=5)


def torchvision_convnext():
    blocks = [
        torchvision.models.convnext.CNBlockConfig(12, 20, 1),
        torchvision.models.convnext.CNBlockConfig(20, None, 1),
    ]
    return torchvision.models.ConvNeXt(blocks, num_classes=5)


def mvit():
    return timm_model("mvitv2_tiny", img_size=64)
