"""A tail's derivative: one run, and a table of every unit's part from one backward pass for every output."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ....batch import Batch
from ....hooks import LayerError
from ....units import Selector, select
from .chain import Slope
from .grad_modes import GradModes
from .tail import Tail


@dataclass(frozen=True)
class Along:
    """Which derivative.

    Attributes:
        slope: its name.
        start: what is put in at the layer, given the activation and what of it no unit holds (None: nothing).
        finish: from what arrives to the output and what of it no unit holds (None: not asked).
    """

    slope: Slope
    start: Callable[[Tensor, Tensor | None], Tensor]
    finish: Callable[[Tensor], tuple[Tensor, Tensor | None]]


class Run(NamedTuple):
    """One run of a tail.

    Attributes:
        activation: a leaf, (rows, units, ...).
        output: in its graph, (rows, *left).
        slot: what of the output no unit holds; None where nobody asked.
        switches_gradients: the model switches gradients off or on somewhere inside.
    """

    activation: Tensor
    output: Tensor
    slot: Tensor | None
    switches_gradients: bool


def run(tail: Tail, batch: Batch, along: Along, slot: Tensor | None = None) -> Run:
    """Run rows with ``start`` put in at the layer and ``finish`` taken at the output."""
    if tail.together is not None and slot is None:
        shared: Run = tail.together.run(tail, batch, along)
        return shared
    leaves: list[Tensor] = []

    def begin(activation: Tensor) -> Tensor:
        leaves.append(activation.detach().requires_grad_())
        return along.start(leaves[0].clone(), slot)

    with GradModes() as modes:
        output, arrived = along.finish(tail.edited(batch, begin))
    if not output.requires_grad:
        raise independent(tail)
    return Run(leaves[0], output, arrived, modes.toggled)


def independent(tail: Tail) -> LayerError:
    """The error for a layer that leads nowhere."""
    return LayerError(
        f"the output does not depend on layer {tail.name} (no gradient flows between them); choose a layer that "
        "leads to the selected target. Where it does, remove torch.no_grad(), torch.inference_mode() and int8 modules "
        'from the forward function, or give rule="ablation", which needs no gradients.'
    )


def by_backward(tail: Tail, activation: Tensor, output: Tensor, selector: Selector) -> Tensor:
    """c_u from one backward pass for every output: (rows, k, *left)."""
    flat = output.flatten(1) if output.dim() > 1 else output[:, None]
    whole = select(activation.detach(), selector)
    shares = whole.new_empty((*whole.shape, flat.shape[1]))
    for o, gradient in enumerate(gradients(tail, activation, flat, keep=tail.together is not None)):
        shares[..., o] = select(activation.detach() * gradient, selector)
    return shares.reshape(*whole.shape, *output.shape[1:])


def gradients(tail: Tail, activation: Tensor, flat: Tensor, keep: bool = False) -> Iterator[Tensor]:
    """∂y_o/∂a for every column o of (rows, outputs); the graph is freed at the end unless it is kept."""
    last = flat.shape[1] - 1
    for o in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(
            flat[:, o].sum(), activation, retain_graph=keep or o < last, allow_unused=True
        )
        if gradient is None:
            raise independent(tail)
        yield gradient


def tail_activation(tail: Tail, batch: Batch) -> Tensor:
    """The activation alone, outside any graph."""
    kept: list[Tensor] = []

    def keep(activation: Tensor) -> Tensor:
        kept.append(activation.detach().clone())
        return activation

    with torch.no_grad():
        tail.edited(batch, keep)
    return kept[0]
