"""Freeze a forward function: the same calls later, whatever has happened to the model meanwhile."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import refuse_sharded
from .models import ForwardFunc, modules_behind


class _Held(nn.Module):
    """Gives ``functional_call`` one module to swap weights in, around any function."""

    holds_roots = True

    def __init__(self, roots: list[nn.Module], forward_func: ForwardFunc) -> None:
        super().__init__()
        self.roots = nn.ModuleList(roots)
        object.__setattr__(self, "forward_func", forward_func)  # not a submodule: the roots already are

    def forward(self, *args: Any) -> Any:
        forward: ForwardFunc = self.__dict__["forward_func"]
        return forward(*args)


def snapshot(
    forward_func: ForwardFunc, *also: nn.Module, change: Callable[[Tensor], Tensor] | None = None
) -> Callable[..., Any]:
    """A function that answers as ``forward_func`` does now, also after the model was trained further.

    Parameters and buffers are copied once; each call swaps the copies in and the user's tensors back. Train
    flags are those of now. Modules that cannot be seen behind ``forward_func`` are used live. ``change`` is applied to
    every copied parameter, which gives, for example, a model with shuffled weights beside the user's own.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> frozen, before = snapshot(model), model(torch.ones(1, 1))
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> bool(frozen(torch.ones(1, 1)) == before)
        True
    """
    roots = list({id(m): m for m in (*modules_behind(forward_func), *also)}.values())
    refuse_sharded(roots, "a copy of its weights (a canvas, or the shuffled control of .trust)")
    held = _Held(roots, forward_func)
    state: dict[str, Tensor] = {}
    copied: set[int] = set()  # functional_call ties the other names of a shared tensor itself
    parameters = dict(held.named_parameters())
    for name, tensor in (*parameters.items(), *held.named_buffers()):
        if id(tensor) not in copied:
            copied.add(id(tensor))
            with torch.inference_mode(False):  # ordinary copies even of weights made under inference mode
                copy = tensor.detach().clone()
                state[name] = change(copy) if change is not None and name in parameters else copy
    flags = [(module, module.training) for root in roots for module in root.modules()]

    def frozen(*args: Any) -> Any:
        now = [(module, module.training) for module, _ in flags]
        try:
            for module, training in flags:
                module.training = training
            return torch.func.functional_call(held, state, args)
        finally:
            for module, training in now:
                module.training = training

    return frozen
