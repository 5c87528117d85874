"""Share an output out by a derivative: backward where outputs are few, forward where units are few."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from ..batch import Batch, chunks
from ..hooks import LayerError
from ..units import Selector, listed, replace, select
from .tail import Tail

Start = Callable[[Tensor], Tensor]
Finish = Callable[[Tensor], Tensor]


def run(tail: Tail, batch: Batch, start: Start, finish: Finish) -> tuple[Tensor, Tensor]:
    """Activation (a leaf) and output, with ``start`` put in at the layer and ``finish`` taken at the output."""
    leaves: list[Tensor] = []

    def begin(activation: Tensor) -> Tensor:
        leaves.append(activation.detach().requires_grad_())
        return start(leaves[0].clone())

    output = finish(tail.edited(batch, begin))
    if not output.requires_grad:
        raise independent(tail)
    return leaves[0], output


def independent(tail: Tail) -> LayerError:
    """The error for a layer that leads nowhere."""
    return LayerError(
        f"the output does not depend on layer {tail.name} (no gradient flows between them); choose a layer that "
        "leads to the selected target."
    )


def contributions(
    tail: Tail, batch: Batch, selector: Selector, start: Start, finish: Finish, per_eval: int | None
) -> Tensor:
    """c_u = a_u · ∂y/∂a_u for every selected unit and every output: (rows, k, *left).

    One backward per output serves all units; one forward-mode pass per unit serves all outputs. The cheaper
    mode is taken (a forward-mode pass repeats the head too, hence the factor 2).
    """
    with _GradModes() as modes:
        activation, output = run(tail, batch, start, finish)
    count = len(listed(activation, selector))
    if output[0].numel() > 2 * count and not modes.toggled:
        try:
            return _forward_mode(tail, batch, selector, start, finish, per_eval or count)
        except NotImplementedError:  # an operation without a forward-mode derivative
            pass
    return _reverse_mode(tail, activation, output, selector)


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
    for o, gradient in enumerate(_gradients(tail, activation, flat)):
        shares[..., o] = select(activation.detach() * gradient, selector)
    return shares.reshape(*whole.shape, *output.shape[1:])


def _gradients(tail: Tail, activation: Tensor, flat: Tensor) -> Iterator[Tensor]:
    last = flat.shape[1] - 1
    for o in range(flat.shape[1]):
        (gradient,) = torch.autograd.grad(flat[:, o].sum(), activation, retain_graph=o < last, allow_unused=True)
        if gradient is None:
            raise independent(tail)
        yield gradient


def slopes(tail: Tail, batch: Batch, start: Start, finish: Finish) -> tuple[Tensor, Tensor, Tensor]:
    """Activation (rows, units), output (rows, *left) and ∂y/∂a as (rows, units, prod(left))."""
    activation, output = run(tail, batch, start, finish)
    flat = output.flatten(1) if output.dim() > 1 else output[:, None]
    return activation.detach(), output.detach(), torch.stack(list(_gradients(tail, activation, flat)), dim=-1)


def _forward_mode(tail: Tail, batch: Batch, selector: Selector, start: Start, finish: Finish, per_eval: int) -> Tensor:
    shares: list[Tensor] = []
    units = listed(tail_activation(tail, batch), selector)
    for first, last in chunks(len(units), per_eval):
        group = units[first:last]
        repeated = batch.repeat(len(group))

        def begin(activation: Tensor, group: list = group) -> Tensor:  # type: ignore[type-arg]
            copies = activation.detach().chunk(len(group))
            zero = copies[0].new_zeros(())
            parts = torch.cat([a - replace(a, unit, zero) for a, unit in zip(copies, group, strict=True)])
            return start(forward_ad.make_dual(activation.detach(), parts))

        with torch.no_grad(), forward_ad.dual_level():
            dual = finish(tail.edited(repeated, begin))
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
