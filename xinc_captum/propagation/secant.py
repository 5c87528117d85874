"""Secant: shares that add up to the output at every layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Batch
from ..units import Selector
from . import carried
from .carried import Carried
from .derivative import contributions, slopes
from .pairs import Pair, chosen, layer_input, linear_of, pick
from .tail import Tail


@dataclass(frozen=True)
class Secant:
    r"""Linear operations without their bias, pointwise ones by their secant, the rest in one slot.

    .. math:: \sigma:\; c_u \mapsto c_u \, \frac{\sigma(z) - \sigma(0)}{z}, \qquad \sum_u c_u + slot = y

    Symbols: z = Σ_u c_u + slot what enters a pointwise σ; the limit at z = 0 is σ'(0). The slot collects biases,
    σ(0) and whatever does not come from the layer. Exact at every layer for every net made of linear and pointwise
    operations; equals the tangent for ReLU.

    Source: the layer-wise redistribution idea of Bach et al. 2015 (LRP-0), applied to canvases of Padmanabhan et
    al. (CVPR 2024).

    Example:
        >>> from xinc_captum import NeuronCanvas
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.GELU(), torch.nn.Linear(4, 3))
        >>> x = torch.rand(5, 2)
        >>> shares = NeuronCanvas(model, "0", rule=Secant()).attribute(x)
        >>> bool(torch.allclose(shares.sum(1), model(x), atol=1e-6))
        True
    """

    slots = 1

    def prepared(self, tail: Tail, batch: Batch, size: int) -> "Secant":
        """Nothing to learn from the whole batch."""
        return self

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """(rows, k, *left); without a selector one more unit, the slot, comes last."""
        slots: list[Tensor] = []

        def finish(output: Tensor) -> Tensor:
            value, slot = carried.finish(output)
            if slot.shape[0] == batch.rows:
                slots.append(slot)
            return value

        shares = contributions(tail, batch, selector, carried.start, finish, per_eval)
        return shares if selector is not None else torch.cat([shares, slots[0][:, None]], dim=1)

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None) -> Tensor:
        """(rows, in + 1, out, *left), or (rows, k, *left) when selected.

        The last input row is the slot: each next unit's own bias stands with it, and what enters after the layer
        is shared equally, so that pairs sum to neurons over ``out`` and to the output over both.
        """
        layer = linear_of(tail)
        weight = layer.weight.detach()
        selected = chosen(weight, selector)
        x = layer_input(tail, batch)
        bias = torch.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.detach()
        slots: list[Tensor] = []

        def start(z: Tensor) -> Tensor:
            return Carried(z, bias.expand_as(z).clone())

        def finish(output: Tensor) -> Tensor:
            value, slot = carried.finish(output)
            slots.append(slot)
            return value

        _, output, slope = slopes(Tail(tail.forward_func, tail.layer, False, tail.output_fn), batch, start, finish)
        parts = pick(x[:, :, None] * weight.T, selected)
        if selected is not None:
            shares = parts[..., None] * slope[:, [j for _, j in selected]]
            return shares.reshape(*parts.shape, *output.shape[1:])
        own = bias[:, None] * slope
        after = (slots[0].reshape(own.shape[0], -1) - own.sum(1)) / own.shape[1]
        shares = torch.cat([parts[..., None] * slope[:, None], (own + after[:, None])[:, None]], dim=1)
        return shares.reshape(*shares.shape[:3], *output.shape[1:])

    def whole(self, tail: Tail, batch: Batch) -> Tensor:
        """What all units and the slot should add up to: the output."""
        with torch.no_grad():
            return tail.output(batch)
