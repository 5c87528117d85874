"""Share an output out by a derivative: backward where outputs are few, forward where units are few."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from ..batch import Batch, chunks
from ..hooks import LayerError
from ..units import OneUnit, Selector, listed, replace, select
from .chain import Slope, chain
from .forward import Forward, UnsupportedError
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


def run(tail: Tail, batch: Batch, along: Along, slot: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Activation (a leaf), output, and its slot, with ``start`` put in at the layer and ``finish`` taken behind."""
    leaves: list[Tensor] = []

    def begin(activation: Tensor) -> Tensor:
        leaves.append(activation.detach().requires_grad_())
        return along.start(leaves[0].clone(), slot)

    output, arrived = along.finish(tail.edited(batch, begin))
    if not output.requires_grad:
        raise independent(tail)
    return leaves[0], output, arrived


def independent(tail: Tail) -> LayerError:
    """The error for a layer that leads nowhere."""
    return LayerError(
        f"the output does not depend on layer {tail.name} (no gradient flows between them); choose a layer that "
        "leads to the selected target."
    )


def contributions(
    tail: Tail, batch: Batch, selector: Selector, along: Along, per_eval: int | None
) -> tuple[Tensor, Tensor | None]:
    """c_u = a_u · ∂y/∂a_u for every selected unit and every output, (rows, k, *left), and the slot (rows, *left).

    One backward pass per output serves all units; one forward pass of the derivative per unit serves all outputs.
    The cheaper way is taken: a channel of a convolutional tail is carried alone until a convolution mixes it;
    otherwise the backward pass is transposed; where that is not differentiable, rows are expanded and run in forward
    mode; what has no forward mode either is left to backward passes.
    """
    with _GradModes() as modes:
        activation, output, slot = run(tail, batch, along)
    singles = listed(activation, selector)
    if output[0].numel() > 2 * len(singles):
        if all(isinstance(one, int) for one in singles) and activation.dim() > 2:
            made = chain(tail, batch, along.slope)
            if made is not None:
                a = made.activation
                units = [int(one) % a.shape[1] for one in singles]  # type: ignore[arg-type]
                return torch.cat([made.carry(a[:, u : u + 1], u) for u in units], 1), slot
        try:
            return _forward(activation, output, singles, per_eval or len(singles)), slot
        except UnsupportedError:
            pass
        try:
            if not modes.toggled:
                return _expanded(tail, batch, singles, along, per_eval or len(singles)), slot
        except NotImplementedError:  # an operation without a forward-mode derivative
            pass
    return _reverse_mode(tail, activation, output, selector), slot


class _GradModes(TorchFunctionMode):
    """Notes whether a model switches gradients off inside: forward mode would walk through, backward does not."""

    toggled = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.toggled = self.toggled or getattr(func, "__name__", "") == "_set_grad_enabled"
        return func(*args, **(kwargs or {}))


def _reverse_mode(tail: Tail, activation: Tensor, output: Tensor, selector: Selector) -> Tensor:
    flat = output.flatten(1) if output.dim() > 1 else output[:, None]
    whole = select(activation.detach(), selector)
    shares = whole.new_empty((*whole.shape, flat.shape[1]))
    for o, gradient in enumerate(gradients(tail, activation, flat)):
        shares[..., o] = select(activation.detach() * gradient, selector)
    return shares.reshape(*whole.shape, *output.shape[1:])


def gradients(tail: Tail, activation: Tensor, flat: Tensor) -> Iterator[Tensor]:
    """∂y_o/∂a for every column o of (rows, outputs)."""
    last = flat.shape[1] - 1
    for o in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(flat[:, o].sum(), activation, retain_graph=o < last, allow_unused=True)
        if gradient is None:
            raise independent(tail)
        yield gradient


def _forward(activation: Tensor, output: Tensor, singles: list[OneUnit], per_eval: int) -> Tensor:
    forward, a = Forward(activation, output), activation.detach()
    zero = a.new_zeros(())
    shares = a.new_empty((len(singles), *output.shape), dtype=output.dtype)
    for first, last in chunks(len(singles), per_eval):
        shares[first:last] = forward(torch.stack([a - replace(a, unit, zero) for unit in singles[first:last]]))
    return shares.movedim(0, 1)


def _expanded(tail: Tail, batch: Batch, singles: list[OneUnit], along: Along, per_eval: int) -> Tensor:
    """Forward mode over copies of the rows, each with one unit's part as its tangent."""
    shares: list[Tensor] = []
    for first, last in chunks(len(singles), per_eval):
        group = singles[first:last]
        repeated = batch.repeat(len(group))

        def begin(activation: Tensor, group: list[OneUnit] = group) -> Tensor:
            copies = activation.detach().chunk(len(group))
            zero = copies[0].new_zeros(())
            parts = torch.cat([a - replace(a, unit, zero) for a, unit in zip(copies, group, strict=True)])
            return along.start(forward_ad.make_dual(activation.detach(), parts), None)

        with torch.no_grad(), forward_ad.dual_level():
            dual, _ = along.finish(tail.edited(repeated, begin))
            tangent = forward_ad.unpack_dual(dual).tangent
            tangent = torch.zeros_like(dual) if tangent is None else tangent
        shares.append(tangent.reshape(len(group), batch.rows, *tangent.shape[1:]))
    return torch.cat(shares).movedim(0, 1)


def tail_activation(tail: Tail, batch: Batch) -> Tensor:
    """The activation alone, outside any graph."""
    kept: list[Tensor] = []

    def keep(activation: Tensor) -> Tensor:
        kept.append(activation.detach().clone())
        return activation

    with torch.no_grad():
        tail.edited(batch, keep)
    return kept[0]
