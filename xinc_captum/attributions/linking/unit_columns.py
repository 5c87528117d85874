"""Which columns of a linked representation a neuron selector names."""

from typing import Any

import torch
from torch import Tensor

from ...indices import python_index


def columns(selector: Any, shape: tuple[int, ...], alive: Tensor) -> list[int]:
    """Columns of the representation.

    An int is a column; a tuple indexes the layer's own dims after the rows, where these were flattened, and else the
    columns.

    Args:
        selector: an int, or a tuple of ints and slices.
        shape: of the layer's activation, without the rows.
        alive: which columns varied over the link's pairs, (units,).

    Raises:
        TypeError: another kind of selector.
        IndexError: out of range, or a tuple of another length.
        ValueError: a dead unit.

    Example:
        >>> columns((1, slice(0, 2)), (3, 4), torch.ones(12))
        [4, 5]
    """
    selector, units = python_index(selector), len(alive)
    kept = shape if torch.Size(shape).numel() == units else (units,)
    index = selector if isinstance(selector, tuple) else (selector,)
    if isinstance(selector, list):
        raise TypeError(f"neuron_selector is a list of {len(selector)}; give one unit here, and a list to sweeps().")
    if any(isinstance(i, bool) or not isinstance(i, int | slice) for i in index) or isinstance(selector, slice):
        raise TypeError(
            f"neuron_selector {selector!r} is a {type(selector).__name__}; wanted an int, which is a unit of the "
            "linked representation, or a tuple of ints and slices, which index the layer's own dims."
        )
    dims = kept if isinstance(selector, tuple) else (units,)
    if len(index) != len(dims):
        raise IndexError(f"neuron_selector {selector!r} has {len(index)} entries; the linked dims are {dims}.")
    for i, size in zip(index, dims, strict=True):
        if isinstance(i, int) and not -size <= i < size:
            raise IndexError(
                f"neuron_selector {selector!r} is out of range: the linked dims are {dims}, so {i} must lie in "
                f"[{-size}, {size - 1}]."
            )
    found: list[int] = torch.arange(units).view(dims)[index].flatten().tolist()
    if not found:
        raise IndexError(f"neuron_selector {selector!r} names no unit of {dims}.")
    dead = [u for u in found if not bool(alive[u])]
    if dead:
        raise ValueError(
            f"unit {dead[0]} is dead: it never varied over the pairs that the link was fitted to, so nothing is known "
            "of what it draws. link.alive tells the others."
        )
    return found


def one_column(selector: Any, shape: tuple[int, ...], alive: Tensor) -> int:
    """As :func:`columns`, for a single unit.

    Raises:
        ValueError: several units.
    """
    found = columns(selector, shape, alive)
    if len(found) > 1:
        raise ValueError(
            f"neuron_selector {selector!r} names {len(found)} units, and a value is set to one; name one of them."
        )
    return found[0]
