"""Pairs of an input unit and a next unit of one Linear or convolution: weights and kernels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ....batch import Batch
from ....indices import python_index
from .derivative import Along, gradients, run, tail_activation
from .kernels import Kernels
from .linearised import Linearised
from .tail import Tail

Pair = tuple[int, int]


def kernels_of(tail: Tail) -> Kernels:
    """The tail's layer as a table of kernels.

    Raises:
        LayerError: it has no weight that pairs an input with an output.
    """
    return Kernels(tail.layer, tail.name)


def layer_input(tail: Tail, batch: Batch) -> Tensor:
    """What enters the layer, (rows, in) or (rows, in, *space)."""
    x = tail_activation(replace(tail, at_input=True), batch)
    return kernels_of(tail).check(x)


def behind(tail: Tail) -> Tail:
    """The tail from what leaves the layer."""
    return replace(tail, at_input=False)


def chosen(shape: tuple[int, int], selector: Pair | Sequence[Pair] | None) -> list[Pair] | None:
    """A selector of pairs as a checked list without negative numbers, or None for all.

    Raises:
        TypeError: not pairs.
        IndexError: out of range.
    """
    if selector is None:
        return None
    selector = python_index(selector)
    several: list[Any] = selector if isinstance(selector, list) else [selector]
    ins, outs = shape
    for pair in several:
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(i, int) for i in pair)):
            raise TypeError(f'neuron_selector {pair!r}: with unit="pair" wanted a tuple (in, out) or a list of them.')
        if not (-ins <= pair[0] < ins and -outs <= pair[1] < outs):
            raise IndexError(
                f"neuron_selector {pair!r} is out of range: the layer has {ins} inputs and {outs} outputs."
            )
    return [(i % ins, j % outs) for i, j in several]


def grouped(pairs: list[Pair]) -> dict[int, list[tuple[int, int]]]:
    """For each output unit: (position in the list, input unit)."""
    by_out: dict[int, list[tuple[int, int]]] = {}
    for at, (i, o) in enumerate(pairs):
        by_out.setdefault(o, []).append((at, i))
    return by_out


def shared_out(tail: Tail, batch: Batch, selector: Any, along: Along, per_eval: int | None, with_slot: bool) -> Tensor:
    """k_io carried to the output by a derivative: (rows, in, out, *left), or (rows, k, *left) when selected.

    With a slot, one more input row comes last: each next unit's own bias stands with it, and what enters after the
    layer is shared equally among the next units.
    """
    kernels = kernels_of(tail)
    selected = chosen(kernels.shape, selector)
    x, bias = layer_input(tail, batch), kernels.bias
    slot = bias.reshape(1, -1, *[1] * (x.dim() - 2)) if with_slot else None
    leaf, output, after, _ = run(behind(tail), batch, along, slot)
    if output[0].numel() <= 2 * kernels.shape[1]:
        return _backward(tail, kernels, x, leaf, output, after if selected is None else None, selected)
    del leaf, output
    made = Linearised(behind(tail), batch, along, slot, per_eval)
    if selected is not None:
        return pushed(made, kernels, x, selected)
    answer = x.new_empty((x.shape[0], kernels.shape[0] + with_slot, kernels.shape[1], *made.left))
    for o in range(kernels.shape[1]):
        answer[:, : kernels.shape[0], o] = made.push(kernels.parts(x, slice(o, o + 1))[:, :, 0], o)
    if with_slot:
        for o, share in enumerate(slot_shares(made, bias)):
            answer[:, -1, o] = share
    return answer


def slot_shares(made: Linearised, bias: Tensor, outs: Sequence[int] | None = None) -> Iterator[Tensor]:
    """For each next unit its own bias at the output and an equal share of what enters behind: (rows, *left) each."""
    everywhere = bias.reshape(1, -1, *[1] * (made.activation.dim() - 2)).expand_as(made.activation)
    if made.slot is None:
        raise RuntimeError("only the secant has a slot")
    after = (made.slot - made.push_all(everywhere)) / len(bias)
    for o in range(len(bias)) if outs is None else outs:
        yield made.push(everywhere[:, o : o + 1], o)[:, 0] + after


def pushed(made: Linearised, kernels: Kernels, x: Tensor, pairs: list[Pair]) -> Tensor:
    """Some pairs: (rows, k, *left)."""
    answer = x.new_empty((x.shape[0], len(pairs), *made.left), dtype=made.output.dtype)
    for o, members in grouped(pairs).items():
        parts = kernels.parts(x, slice(o, o + 1))[:, [i for _, i in members], 0]
        answer[:, [at for at, _ in members]] = made.push(parts, o)
    return answer


def _backward(
    tail: Tail,
    kernels: Kernels,
    x: Tensor,
    leaf: Tensor,
    output: Tensor,
    after: Tensor | None,
    selected: list[Pair] | None,
) -> Tensor:
    """By one backward pass for every output, where these are few."""
    flat = output.flatten(1) if output.dim() > 1 else output[:, None]
    shares: list[Tensor] = []
    for o, gradient in enumerate(gradients(tail, leaf, flat)):
        table = kernels.sums(x, gradient)
        if selected is not None:
            table = table[:, [i for i, _ in selected], [j for _, j in selected]]
        elif after is not None:
            own = kernels.bias * gradient.flatten(2).sum(2) if gradient.dim() > 2 else kernels.bias * gradient
            rest = (after.detach().reshape(len(x), -1)[:, o] - own.sum(1)) / kernels.shape[1]
            table = torch.cat([table, (own + rest[:, None])[:, None]], 1)
        shares.append(table)
    whole = torch.stack(shares, -1)
    return whole.reshape(*whole.shape[:-1], *output.shape[1:])
