"""Resolve methods and baselines by name."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..attributions import FeatureAccentuation
from ..attributions.accentuation.activations import ImageModel, image_layers
from ..hooks import ForwardFunc, untouched
from .methods import (
    Explain,
    Preprocess,
    centre_blob,
    edge_map,
    grad_cam,
    guided_grad_cam,
    integrated_gradients,
    random_map,
)
from .peers import pytorch_grad_cam, torchcam_grad_cam


def last_map(model: ForwardFunc, images: Tensor, preprocess: Preprocess | None = None) -> nn.Module | None:
    """The last module whose activation is a map of the images with more than one place, or None.

    A map is (N, channels, h, w) or (N, h, w, channels), decided as :func:`xinc_captum.hooks.unit_axis` does; modules
    that the images do not reach, such as a branch for another input, are left out.

    None too where most of what the network hands on are tokens (N, places, channels) and some of them come after the
    last map: the only map of a vision transformer is that of its first layer. Of several that end with the same map,
    such as a block and the activation function at its end, it is the outermost.

    Args:
        model: the classifier, or any function around it.
        images: (N, C, H, W) in [0, 1].
        preprocess: what turns images in [0, 1] into the model's inputs.

    Example:
        >>> pool = torch.nn.AdaptiveAvgPool2d(1)
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), pool, torch.nn.Flatten())
        >>> last_map(model, torch.rand(1, 3, 8, 8))
        ReLU()
    """
    with untouched(model):
        ended = image_layers(ImageModel(model, preprocess), images, ())
    maps = [at for at, one in enumerate(ended) if one.map_size and one.map_size[0] * one.map_size[1] > 1]
    tokens = [at for at, one in enumerate(ended) if len(one.shape) == 3 and one.shape[1] > 1]
    if not maps or (len(maps) <= len(tokens) and tokens[-1] > maps[-1]):
        return None
    return ended[maps[-1]].module


Methods = Mapping[str, Any] | Sequence[Any] | str  # names, Captum attributions, functions
Layer = nn.Module | str | None
BASELINES = ("random map", "centre blob", "edge map")
AT_A_LAYER: dict[str, Callable[..., Explain]] = {
    "Grad-CAM": grad_cam,
    "Guided Grad-CAM": guided_grad_cam,
    "grad-cam": pytorch_grad_cam,
    "torchcam": torchcam_grad_cam,
}
ANYWHERE: dict[str, Callable[[ForwardFunc, Preprocess | None], Any]] = {
    "Integrated Gradients": integrated_gradients,
    "Feature Accentuation": lambda model, preprocess: FeatureAccentuation(model, preprocess=preprocess),
}
UNTRAINED: dict[str, Callable[[int], Explain]] = {
    "random map": random_map,
    "centre blob": lambda _: centre_blob(),
    "edge map": lambda _: edge_map(),
}


def known() -> tuple[str, ...]:
    """Every name that stands for a method.

    Example:
        >>> "Grad-CAM" in known()
        True
    """
    return (*AT_A_LAYER, *ANYWHERE, *UNTRAINED)


def untrained(methods: Methods) -> list[str]:
    """The names of those that know nothing of the model.

    Example:
        >>> untrained({"Grad-CAM": "Grad-CAM", "noise": "random map"})
        ['noise']
    """
    return [name for name, method in _titled(methods).items() if isinstance(method, str) and method in UNTRAINED]


def by_name(
    methods: Methods,
    model: ForwardFunc,
    images: Tensor,
    preprocess: Preprocess | None,
    layer: Layer,
    seed: int,
    unit_axis: int | None = None,
) -> dict[str, Any]:
    """Each method under its name: a function, or a Captum attribution.

    Args:
        methods: names, functions or attributions, with names of your own or without; or a single name.
        model: the classifier.
        images: (N, C, H, W), the first of which finds the layer where none is given.
        preprocess: what turns images in [0, 1] into the model's inputs.
        layer: where the methods of one layer look; None takes the last that still says where.
        seed: of the random map.
        unit_axis: which axis of that layer holds the channels; None determines it.

    Raises:
        TypeError: something that is none of these.
        ValueError: no methods, a name that is not known, or no layer to be found.
        ModuleNotFoundError: a peer that is not installed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> list(by_name(["Grad-CAM", "edge map"], model, torch.rand(1, 3, 8, 8), None, "0", 0))
        ['Grad-CAM', 'edge map']
    """
    given = _titled(methods)
    if not given:
        raise ValueError("methods is empty; give at least one: 'Grad-CAM', or {'mine': (images, target) -> map}.")
    found: dict[str, Any] = {}
    for name, method in given.items():
        if isinstance(method, str):
            found[name] = _called(method, model, images, preprocess, layer, seed, unit_axis)
        elif callable(method) or hasattr(method, "attribute"):
            found[name] = method
        else:
            raise TypeError(
                f"method {name!r} is a {type(method).__name__}; expected a function (images, target) -> map, a Captum "
                f"attribution, or one of the names {', '.join(map(repr, known()))}."
            )
    return found


def _called(
    name: str,
    model: ForwardFunc,
    images: Tensor,
    preprocess: Preprocess | None,
    layer: Layer,
    seed: int,
    unit_axis: int | None,
) -> Any:
    if name in UNTRAINED:
        return UNTRAINED[name](seed)
    if name in ANYWHERE:
        return ANYWHERE[name](model, preprocess)
    if name not in AT_A_LAYER:
        near = " or ".join(repr(one) for one in known() if _letters(name) in _letters(one))
        hint = f"did you mean {near}? Known" if near else "known"
        raise ValueError(f"no method is called {name!r}; {hint} are {', '.join(map(repr, known()))}.")
    place = last_map(model, images[:1], preprocess) if layer is None else layer
    if place is None:
        raise ValueError(
            f"{name} needs a layer, and no layer of this model has maps (N, channels, h, w) or (N, h, w, channels) of "
            "the images, or most have tokens, which are none; give layer=, or a CAM object of pytorch-grad-cam with "
            "reshape_transform=xinc_captum.layer_to_grid."
        )
    return AT_A_LAYER[name](model, place, preprocess, unit_axis=unit_axis)


def _titled(methods: Methods) -> dict[str, Any]:
    methods = [methods] if isinstance(methods, str) else methods
    pairs = methods.items() if isinstance(methods, Mapping) else [(_title(one), one) for one in methods]
    found: dict[str, Any] = {}
    for title, method in pairs:
        found[_new(title, found)] = method
    return found


def _title(method: Any) -> str:
    if isinstance(method, str):
        return method
    if hasattr(method, "get_name"):
        return str(method.get_name())
    return str(getattr(method, "__name__", type(method).__name__))


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _new(title: str, taken: Mapping[str, Any]) -> str:
    number = next(n for n in range(1, len(taken) + 2) if (title if n == 1 else f"{title} {n}") not in taken)
    return title if number == 1 else f"{title} {number}"
