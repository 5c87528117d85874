"""Call a forward function with other weights in some places, and the user's own everywhere else."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .models import ForwardFunc, modules_behind
from .snapshot import _Held


def exchange(forward_func: ForwardFunc) -> Callable[[Mapping[str, Tensor]], ForwardFunc]:
    """``exchange(f)(weights)`` answers as ``f`` would if its one module had these weights; gradients reach them.

    Nothing is copied: for the length of a call the given tensors are swapped in, then the user's own come back, also
    after an exception. Weights and buffers made under inference mode take part as ordinary copies.

    Args:
        forward_func: a module, or a function around exactly one.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> exchange(model)({"weight": torch.full((1, 1), 3.0)})(torch.ones(2, 1)).tolist()
        [[3.0], [3.0]]
    """
    held = _Held(modules_behind(forward_func), forward_func)
    with torch.inference_mode(False):
        ordinary = {
            name: tensor.detach().clone()
            for name, tensor in (*held.named_parameters(), *held.named_buffers())
            if tensor.is_inference()
        }

    def using(weights: Mapping[str, Tensor]) -> ForwardFunc:
        state = ordinary | {f"roots.0.{name}": weight for name, weight in weights.items()}

        def call(*args: Any) -> Any:
            return torch.func.functional_call(held, state, args)

        return call

    return using
