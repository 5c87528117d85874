"""Captum neuron selectors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def python_index(index: Any) -> Any:
    """Return a target or selector with its NumPy integers as ints, and its 1-D integer arrays as lists.

    Everything else is returned unchanged, bools and floats too; the caller checks them.

    Example:
        >>> python_index(np.int64(3)), python_index(np.array([1, 2])), python_index([(np.int32(0), 4)])
        (3, [1, 2], [(0, 4)])
    """
    if isinstance(index, np.integer):
        return int(index)
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu" and index.ndim < 2:
        return index.tolist()
    if type(index) in (list, tuple):
        return type(index)(python_index(one) for one in index)
    return index


OneUnit = int | tuple[int | slice, ...] | Callable[[Tensor], Tensor]
Selector = OneUnit | Sequence[OneUnit] | None


def list_units(activation: Tensor, selector: Selector) -> list[OneUnit]:
    """Return the checked single selectors of a selector.

    ``None`` selects every unit of dim 1; an int selects one unit of dim 1; a tuple indexes the dims after the rows
    (slices are summed); a callable maps the activation to one value a row and must be linear; a list holds several.

    Args:
        activation: (rows, units, ...).
        selector: one of these.

    Raises:
        ValueError: the activation has no unit axis, or the list is empty.
        IndexError: a unit is out of range.
        TypeError: a selector of another kind.
    """
    selector = python_index(selector)
    if activation.dim() < 2:
        raise ValueError(
            f"the layer's activation has shape {tuple(activation.shape)}; expected (rows, units, ...), so that there "
            "is a unit to choose. Choose a layer with a unit axis."
        )
    if selector is None:
        return list(range(activation.shape[1]))
    singles = selector if isinstance(selector, list) else [selector]
    if not singles:
        raise ValueError("neuron_selector is an empty list; give at least one unit, or None for all of them.")
    return [_check_selector(activation, one) for one in singles]  # type: ignore[arg-type]


def _check_selector(activation: Tensor, one: OneUnit) -> OneUnit:
    shape = tuple(activation.shape[1:])
    if callable(one):
        return one
    if isinstance(one, bool) or not isinstance(one, int | tuple):
        raise TypeError(
            f"neuron_selector {one!r} is a {type(one).__name__}; expected an int, a tuple of ints and slices, a "
            "callable, a list of these, or None for every unit."
        )
    index = one if isinstance(one, tuple) else (one,)
    if isinstance(one, tuple) and len(one) != len(shape):
        raise IndexError(
            f"neuron_selector {one!r} has {len(one)} entries, but the layer has {len(shape)} dims after the rows "
            f"{shape}; give one int or slice for each."
        )
    for i, size in zip(index, shape, strict=False):
        if isinstance(i, int) and not -size <= i < size:
            raise IndexError(
                f"neuron_selector {one!r} is out of range: the layer's units are {shape}, so {i} must lie in [{-size}, "
                f"{size - 1}]."
            )
        if not isinstance(i, int | slice):
            raise TypeError(f"neuron_selector {one!r} holds a {type(i).__name__}; expected ints and slices.")
    return one


def _index(one: int | tuple[int | slice, ...]) -> tuple[int | slice, ...]:
    return (slice(None), *(one if isinstance(one, tuple) else (one,)))


def select(activation: Tensor, selector: Selector) -> Tensor:
    """Return the value of each selected unit, summed over its remaining dims: (rows, k).

    Args:
        activation: (rows, units, ...).
        selector: as in :func:`list_units`.

    Example:
        >>> select(torch.tensor([[1.0, 2.0, 3.0]]), [2, 0])
        tensor([[3., 1.]])
    """
    singles = list_units(activation, selector)
    if all(isinstance(one, int) for one in singles):
        summed = activation.flatten(2).sum(2) if activation.dim() > 2 else activation
        if selector is None:
            return summed
        return summed.index_select(1, torch.tensor([i % summed.shape[1] for i in singles], device=summed.device))  # type: ignore[operator]
    return torch.stack([_value(activation, one) for one in singles], dim=1)


def _value(activation: Tensor, one: OneUnit) -> Tensor:
    if not callable(one):
        return activation[_index(one)].reshape(activation.shape[0], -1).sum(1)
    value = one(activation)
    if not isinstance(value, Tensor) or value.shape != activation.shape[:1]:
        received = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"the neuron_selector function returned {received}; expected one value a row, shape "
            f"({activation.shape[0]},)."
        )
    return value


def replace_unit(activation: Tensor, one: OneUnit, baseline: Tensor) -> Tensor:
    """Return a copy of the activation in which one unit is set to its baseline.

    Args:
        activation: (rows, units, ...).
        one: a single selector. A callable weights each element by its gradient.
        baseline: broadcastable to the activation's shape.

    Example:
        >>> replace_unit(torch.tensor([[1.0, 2.0, 3.0]]), 1, torch.zeros(()))
        tensor([[1., 0., 3.]])
    """
    if callable(one):
        with torch.enable_grad():
            leaf = activation.detach().requires_grad_()
            (share,) = torch.autograd.grad(_value(leaf, one).sum(), leaf)
        return activation + share * (baseline - activation)
    new = activation.clone()
    new[_index(one)] = baseline.expand_as(activation)[_index(one)]
    return new
