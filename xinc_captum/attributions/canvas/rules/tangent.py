"""Tangent: linearise the tail where the network is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ....batch import Batch
from ....units import Selector
from .contributions import contributions
from .derivative import Along
from .pairs import Pair, shared_out
from .site import Neurons, Pairs, Site
from .tail import Tail

TANGENT = Along("tangent", lambda activation, _slot: activation, lambda output: (output, None))


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
        return contributions(tail, batch, selector, TANGENT, per_eval)[0]

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None, per_eval: int | None) -> Tensor:
        """c_ij = (W_ji * x_i) · ∂y/∂z_j: (rows, in, out, *left), or (rows, k, *left) when selected."""
        return shared_out(tail, batch, selector, TANGENT, per_eval, with_slot=False)

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """These rows, linearised once."""
        return Pairs(tail, batch, TANGENT, per_eval, False) if pairs else Neurons(tail, batch, TANGENT, per_eval)

    def whole(self, tail: Tail, batch: Batch) -> Tensor:
        """What all units should add up to: y minus y with the layer at zero."""
        with torch.no_grad():
            without: Tensor = tail.edited(batch, torch.zeros_like)
            return tail.output(batch) - without
