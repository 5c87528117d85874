"""Resolve attribution methods and baselines by name."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..attributions.accentuation import FeatureAccentuation
from ..hooks import ForwardFunc
from ..models import last_map
from .methods import (
    Explain,
    Layer,
    Preprocess,
    centre_blob,
    edge_map,
    grad_cam,
    guided_grad_cam,
    integrated_gradients,
    pytorch_grad_cam,
    random_map,
    torchcam_grad_cam,
)

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
