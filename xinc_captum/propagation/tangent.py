"""Tangent: linearise the tail where the network is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Batch
from ..units import Selector
from .derivative import contributions, slopes
from .pairs import Pair, chosen, layer_input, linear_of, pick
from .tail import Tail


def _as_is(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Tangent:
    r"""Gradient x activation towards every output.

    .. math:: c_u = a_u \, \partial y / \partial a_u

    Symbols: a_u the unit's activation, y an output. Closest of all rules to ablation at zero; its sum over units
    equals y only for a piecewise-linear tail without biases.

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), whose last-layer map this is
    without the bias share; Shrikumar et al. 2016 for gradient x input.

    Example:
        >>> from xinc_captum import NeuronCanvas
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> NeuronCanvas(model, "1", rule=Tangent()).attribute(torch.rand(5, 2)).shape
        torch.Size([5, 4, 3])
    """

    slots = 0

    def prepared(self, tail: Tail, batch: Batch, size: int) -> "Tangent":
        """Nothing to learn from the whole batch."""
        return self

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """(rows, k, *left)."""
        return contributions(tail, batch, selector, _as_is, _as_is, per_eval)

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None) -> Tensor:
        """c_ij = W_ji x_i ∂y/∂z_j: (rows, in, out, *left), or (rows, k, *left) when selected."""
        weight = linear_of(tail).weight.detach()
        selected = chosen(weight, selector)
        x = layer_input(tail, batch)
        _, output, slope = slopes(Tail(tail.forward_func, tail.layer, False, tail.output_fn), batch, _as_is, _as_is)
        parts = pick(x[:, :, None] * weight.T, selected)
        slope = slope[:, None] if selected is None else slope[:, [j for _, j in selected]]
        shares: Tensor = parts[..., None] * slope
        return shares.reshape(*parts.shape, *output.shape[1:])

    def whole(self, tail: Tail, batch: Batch) -> Tensor:
        """What all units should add up to: y minus y with the layer at zero."""
        with torch.no_grad():
            without: Tensor = tail.edited(batch, torch.zeros_like)
            return tail.output(batch) - without
