"""Every unit's part of every output, the cheapest exact way."""

import torch
from torch import Tensor

from ....batch import Batch, chunks
from ....units import Selector, listed, replace
from .chain import chain
from .derivative import Along, Run, by_backward, run
from .push import NoForwardError, Push
from .tail import Tail


def contributions(
    tail: Tail, batch: Batch, selector: Selector, along: Along, per_eval: int | None
) -> tuple[Tensor, Tensor | None]:
    """c_u = a_u · ∂y/∂a_u for every selected unit and every output, (rows, k, *left), and the slot (rows, *left).

    One backward pass per output serves all units; one pushed part per unit serves all outputs. The cheaper way is
    taken, and a channel of a convolutional tail is pushed alone until a convolution mixes it.
    """
    ran = run(tail, batch, along)
    shares = _shares(tail, batch, selector, along, per_eval, ran)
    if tail.together is not None and along.slope == "secant" and selector is None:
        return shares, ran.output.detach() - shares.sum(1)  # a shared run carries no slot but the first one
    return shares, ran.slot


def _shares(tail: Tail, batch: Batch, selector: Selector, along: Along, per_eval: int | None, ran: Run) -> Tensor:
    activation, output = ran.activation, ran.output
    singles = listed(activation, selector)
    if output[0].numel() <= 2 * len(singles):
        return by_backward(tail, activation, output, selector)
    if all(isinstance(one, int) for one in singles) and activation.dim() > 2:
        made = chain(tail, batch, along.slope)
        if made is not None:
            a = made.activation
            units = [int(one) % a.shape[1] for one in singles]  # type: ignore[arg-type]
            return torch.cat([made.carry(a[:, u : u + 1], u) for u in units], 1)
    push, a = Push(tail, batch, along, ran), activation.detach()
    zero = a.new_zeros(())
    shares = a.new_empty((len(singles), *output.shape), dtype=output.dtype)
    try:
        for first, last in chunks(len(singles), per_eval or len(singles)):
            shares[first:last] = push.quick(torch.stack([a - replace(a, one, zero) for one in singles[first:last]]))
    except NoForwardError:
        return by_backward(tail, activation, output, selector)
    return shares.movedim(0, 1)
