"""Resolve attribution methods and baselines by name."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..attributions.accentuation import FeatureAccentuation
from ..attributions.accentuation.activations import LayerOutput, ModelInputs, image_layers
from ..attributions.token_grid import tensor_of
from ..batch import Batch, select_output
from ..hooks import ForwardFunc, capture, untouched
from ..hooks.layers import search_once
from ..hooks.layout import parents_of, parents_once
from .methods import (
    Explain,
    Layer,
    Preprocess,
    after,
    centre_blob,
    edge_map,
    grad_cam,
    guided_grad_cam,
    integrated_gradients,
    pytorch_grad_cam,
    random_map,
    torchcam_grad_cam,
)


def last_map(model: ForwardFunc, images: Tensor, preprocess: Preprocess | None = None) -> nn.Module | None:
    """Return the last module whose activation is a map with more than one position, or None.

    A map is (N, channels, h, w) or (N, h, w, channels), as determined by :func:`xinc_captum.hooks.unit_axis`. Modules
    that the images (N, C, H, W) in [0, 1] do not pass through are ignored. Of nested modules with the same map, such as
    a block and its last activation function, the outermost is returned.

    Tokens (N, positions, channels) of a vision transformer count as maps where
    :func:`~xinc_captum.attributions.token_grid.token_layout` lays them out. Of those outside attention and MLPs, the
    last one at which the output has a gradient to the patches is returned: the norm before the last attention where the
    model classifies by its class token, because later patch tokens do not reach the output; the last norm where it
    averages the patches.

    The result is also None where most activations are tokens of unknown layout, and some of them come after the last
    map: the only map of such a model is that of its first layer.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> last_map(model, torch.rand(1, 3, 8, 8))
        ReLU()
    """
    with untouched(model), parents_once(), search_once():
        layers = image_layers(ModelInputs(model, preprocess), images, ())
        maps = [i for i, layer in enumerate(layers) if layer.map_size and layer.map_size[0] * layer.map_size[1] > 1]
        tokens = [i for i, layer in enumerate(layers) if len(layer.shape) == 3 and layer.shape[1] > 1]
        after_maps = [layers[i] for i in tokens if not maps or i > maps[-1]]
        blocks = [one for one in after_maps if one.tokens and not _inside_block(one.module, model)]
        if blocks:
            return _last_with_gradient(blocks, model, images, preprocess)
    if not maps or (len(maps) <= len(tokens) and tokens[-1] > maps[-1]):
        return None
    return layers[maps[-1]].module


def _inside_block(module: nn.Module, model: ForwardFunc) -> bool:
    """Return whether a module is inside an attention or an MLP of a transformer."""
    kinds = ("attention", "attn", "mlp", "mlpblock", "ffn", "feedforward", "intermediate")
    return any(type(parent).__name__.lower().endswith(kinds) for parent in parents_of(module, model))


def _last_with_gradient(
    blocks: Sequence[LayerOutput], model: ForwardFunc, images: Tensor, preprocess: Preprocess | None
) -> nn.Module:
    """Return the last module whose patch tokens have a gradient to the output; the last one if none has one."""
    blocks = blocks[-MAX_BLOCKS:]
    with torch.inference_mode(False), torch.enable_grad():
        with capture(model, [one.module for one in blocks]) as captured:
            output = after(preprocess, model)(images.detach().clone())
        try:
            scores = select_output(output, Batch.of(images, None, None), None)
            weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0)).to(scores)
            activations = [tensor_of(captured[one.module], one.module, model, len(images)) for one in blocks]
            slopes = torch.autograd.grad((scores * weights).sum(), activations, allow_unused=True)
        except (RuntimeError, TypeError, ValueError):  # no gradient, or an output that is no tensor
            return blocks[-1].module
    for one, slope in zip(reversed(blocks), reversed(slopes), strict=True):
        if slope is not None and one.tokens and bool(one.tokens.grid(slope).ne(0).any()):
            return one.module
    return blocks[-1].module


MAX_BLOCKS = 24  # number of last modules with tokens among which that with a gradient is searched
Methods = Mapping[str, Any] | Sequence[Any] | str  # names, Captum attributions, functions

LAYER_METHODS: dict[str, Callable[..., Explain]] = {
    "Grad-CAM": grad_cam,
    "Guided Grad-CAM": guided_grad_cam,
    "grad-cam": pytorch_grad_cam,
    "torchcam": torchcam_grad_cam,
}
INPUT_METHODS: dict[str, Callable[[ForwardFunc, Preprocess | None], Any]] = {
    "Integrated Gradients": integrated_gradients,
    "Feature Accentuation": lambda model, preprocess: FeatureAccentuation(model, preprocess=preprocess),
}
MODEL_INDEPENDENT: dict[str, Callable[[int], Explain]] = {
    "random map": random_map,
    "centre blob": lambda _: centre_blob(),
    "edge map": lambda _: edge_map(),
}
BASELINES = tuple(MODEL_INDEPENDENT)


def method_names() -> tuple[str, ...]:
    """Return all names of methods and baselines."""
    return (*LAYER_METHODS, *INPUT_METHODS, *MODEL_INDEPENDENT)


def model_independent(methods: Methods) -> list[str]:
    """Return the names of the methods whose maps do not depend on the model."""
    return [name for name, method in _by_title(methods).items() if isinstance(method, str) and method in BASELINES]


def by_name(
    methods: Methods,
    model: ForwardFunc,
    images: Tensor,
    preprocess: Preprocess | None,
    layer: Layer | None,
    seed: int,
    unit_axis: int | None = None,
) -> dict[str, Any]:
    """Return each method under its unique name: a function, or a Captum attribution.

    If ``layer`` is None, layer methods use :func:`last_map` of the first image.
    """
    titles = _by_title(methods)
    if not titles:
        raise ValueError("methods is empty; expected at least one: 'Grad-CAM', or {'mine': (images, target) -> map}.")
    resolved: dict[str, Any] = {}
    for name, method in titles.items():
        if isinstance(method, str):
            resolved[name] = _resolve(method, model, images, preprocess, layer, seed, unit_axis)
        elif callable(method) or hasattr(method, "attribute"):
            resolved[name] = method
        else:
            raise TypeError(
                f"method {name!r} is a {type(method).__name__}; expected a function (images, target) -> map, a Captum "
                f"attribution, or one of the names {', '.join(map(repr, method_names()))}."
            )
    return resolved


def _resolve(
    name: str,
    model: ForwardFunc,
    images: Tensor,
    preprocess: Preprocess | None,
    layer: Layer | None,
    seed: int,
    unit_axis: int | None,
) -> Any:
    if name in MODEL_INDEPENDENT:
        return MODEL_INDEPENDENT[name](seed)
    if name in INPUT_METHODS:
        return INPUT_METHODS[name](model, preprocess)
    if name not in LAYER_METHODS:
        similar = " or ".join(repr(known) for known in method_names() if _letters(name) in _letters(known))
        hint = f"did you mean {similar}? Known" if similar else "known"
        raise ValueError(f"no method is called {name!r}; {hint} are {', '.join(map(repr, method_names()))}.")
    layer = last_map(model, images[:1], preprocess) if layer is None else layer
    if layer is None:
        raise ValueError(
            f"{name} needs a layer, but no layer of this model has maps (N, channels, h, w) or (N, h, w, channels) of "
            "the images, or most layers have tokens of unknown layout. Give layer=, or a CAM object of "
            "pytorch-grad-cam with reshape_transform=xinc_captum.layer_to_grid."
        )
    return LAYER_METHODS[name](model, layer, preprocess, unit_axis=unit_axis)


def _by_title(methods: Methods) -> dict[str, Any]:
    methods = [methods] if isinstance(methods, str) else methods
    pairs = methods.items() if isinstance(methods, Mapping) else [(_title(method), method) for method in methods]
    by_title: dict[str, Any] = {}
    for title, method in pairs:
        numbered = (f"{title} {number}" for number in itertools.count(2))
        unique = next(name for name in itertools.chain([title], numbered) if name not in by_title)
        by_title[unique] = method
    return by_title


def _title(method: Any) -> str:
    if isinstance(method, str):
        return method
    if hasattr(method, "get_name"):
        return str(method.get_name())
    return str(getattr(method, "__name__", type(method).__name__))


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
