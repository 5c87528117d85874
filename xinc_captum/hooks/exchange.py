"""Call a forward function with other weights in some places, and the user's own everywhere else."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .models import ForwardFunc, modules_behind
from .snapshot import modules_below, swapped, tensor_places


def exchange(forward_func: ForwardFunc) -> Callable[[Mapping[str, Tensor]], ForwardFunc]:
    """Return a function of weights: ``exchange(f)(weights)`` computes ``f`` with these weights; gradients reach them.

    Nothing is copied: during a call the given tensors take the places of the model's own, under every name that a
    shared module or a tied weight has; then the model's own objects come back, also after an exception. Weights and
    buffers made under inference mode take part as ordinary copies.

    Args:
        forward_func: a module, or a function around exactly one.

    Raises:
        KeyError: a name that is no parameter or buffer of the model.
        ValueError: one tensor of the model gets two different replacements under two of its names.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> exchange(model)({"weight": torch.full((1, 1), 3.0)})(torch.ones(2, 1)).tolist()
        [[3.0], [3.0]]
    """
    roots = modules_behind(forward_func)
    root, modules = roots[0], modules_below(roots)
    with torch.inference_mode(False):
        ordinary = {id(t): t.detach().clone() for _, _, t in tensor_places(modules) if t.is_inference()}

    def using(weights: Mapping[str, Tensor]) -> ForwardFunc:
        named = dict(root.named_parameters(remove_duplicate=False)) | dict(root.named_buffers(remove_duplicate=False))
        unknown = [name for name in weights if name not in named]
        if unknown:
            raise KeyError(f"{unknown[0]!r} is not a parameter or buffer of {type(root).__name__}.")
        replacements = dict(ordinary)
        given: dict[int, str] = {}
        for name, weight in weights.items():
            own = id(named[name])
            if own in given and weights[given[own]] is not weight:
                raise ValueError(f"{given[own]!r} and {name!r} are one tensor of the model; give it one replacement.")
            given[own], replacements[own] = name, weight
        places = [
            (slots, name, replacements[id(t)]) for slots, name, t in tensor_places(modules) if id(t) in replacements
        ]

        def call(*args: Any) -> Any:
            with swapped(places, modules):
                return forward_func(*args)

        return call

    return using
