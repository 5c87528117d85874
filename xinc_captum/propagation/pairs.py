"""Pairs of an input unit and a next unit of one linear layer."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..batch import Batch
from ..hooks import LayerError
from .derivative import tail_activation
from .tail import Tail

Pair = tuple[int, int]


def linear_of(tail: Tail) -> nn.Linear:
    """The tail's layer as a Linear.

    Raises:
        LayerError: it is another kind of module.
    """
    if not isinstance(tail.layer, nn.Linear):
        raise LayerError(
            f"layer {tail.name} is a {type(tail.layer).__name__}; pairs and the 'xinc' rule need a torch.nn.Linear, "
            "because they read its weight."
        )
    return tail.layer


def layer_input(tail: Tail, batch: Batch) -> Tensor:
    """What enters the Linear, (rows, in)."""
    x = tail_activation(Tail(tail.forward_func, tail.layer, True, tail.output_fn), batch)
    if x.dim() != 2:
        raise LayerError(
            f"layer {tail.name} takes inputs of shape {tuple(x.shape)}; pairs and the 'xinc' rule need (rows, units)."
        )
    return x


def chosen(weight: Tensor, selector: Pair | Sequence[Pair] | None) -> list[Pair] | None:
    """A selector of pairs as a checked list, or None for all.

    Raises:
        TypeError: not pairs.
        IndexError: out of range.
    """
    if selector is None:
        return None
    several: list[Any] = selector if isinstance(selector, list) else [selector]
    outs, ins = weight.shape
    for pair in several:
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(i, int) for i in pair)):
            raise TypeError(f'neuron_selector {pair!r}: with unit="pair" wanted a tuple (in, out) or a list of them.')
        if not (-ins <= pair[0] < ins and -outs <= pair[1] < outs):
            raise IndexError(
                f"neuron_selector {pair!r} is out of range: the layer has {ins} inputs and {outs} outputs."
            )
    return several


def pick(pairs: Tensor, selected: list[Pair] | None) -> Tensor:
    """Keep the selected pairs of (rows, in, out, ...) as (rows, k, ...)."""
    if selected is None:
        return pairs
    return pairs[:, [i for i, _ in selected], [j for _, j in selected]]
