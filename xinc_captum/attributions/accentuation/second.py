"""A second model beside the first: what counts as one, and how it reads the same images."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...hooks import ForwardFunc, modules_behind, preprocesses
from .feature import UnitFeature
from .lucent import is_lucent
from .objectives import Objective
from .reading import Reader


def beside(reader: Reader, model: ForwardFunc, call: ForwardFunc | None = None) -> Reader:
    """The reader of a second model: like the first, without ``preprocess`` where the model has its own."""
    preprocess = None if preprocesses(model) else reader.preprocess
    return replace(reader, forward_func=model, call=call, preprocess=preprocess)


def is_model(thing: Any, feature: Any, probe: Callable[[], tuple[Tensor, tuple[Any, ...]]]) -> bool:
    """Whether ``contrast=`` is a second model, and not an objective, a target or a selector.

    Modules, zoo classifiers, and methods and partials of modules are models. Any other function is a model where it
    takes images: functions of the layers and of an activation fail on them. Beside a unit's feature it must also hold
    a module, because the unit's layer is looked up in it.

    Args:
        thing: what was given.
        feature: the feature that is raised.
        probe: an image and the additional forward arguments to try a function on.
    """
    if isinstance(thing, nn.Module) or preprocesses(thing):
        return True
    if not callable(thing) or isinstance(thing, Objective) or is_lucent(thing):
        return False
    owner = thing.func if isinstance(thing, functools.partial) else getattr(thing, "__self__", None)
    if isinstance(owner, nn.Module):
        return True
    if isinstance(feature, UnitFeature) and not modules_behind(thing):
        return False
    images, args = probe()
    try:
        with torch.no_grad():
            output = thing(images, *args)
    except (TypeError, AttributeError):
        return False
    except Exception:  # a model that refuses the image: reading it raises the error that says so
        return True
    return not (isinstance(feature, UnitFeature) and isinstance(output, Tensor) and output.dim() < 2)
