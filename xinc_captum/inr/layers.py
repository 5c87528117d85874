"""What the networks of this workshop are made of: activations by name, chains with named children, seeded weights."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..hooks import exclusive

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


def activation_maker(activation: str | Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """What makes the modules of an activation, given by name or as a class or function of no arguments.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> activation_maker("gelu")()
        GELU(approximate='none')
    """
    if not isinstance(activation, str):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is unknown; wanted one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[activation]


class Layers(nn.Sequential):
    """A Sequential whose constructor is its own, so that a slice is a plain Sequential."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)


class seeded:  # noqa: N801 - reads as a verb in a with statement
    """Draw from torch's global CPU generator as seeded, and put its state back; does nothing for None."""

    def __init__(self, seed: int | None) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        if self._seed is not None:
            self._turn = exclusive()  # the generator belongs to all threads
            self._turn.__enter__()
            self._state = torch.get_rng_state()
            torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        if self._seed is not None:
            torch.set_rng_state(self._state)
            self._turn.__exit__(None, None, None)
