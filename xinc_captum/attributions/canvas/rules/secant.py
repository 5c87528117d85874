"""Secant: shares that add up to the output at every layer."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ....batch import Batch
from ....units import Selector
from . import carried
from .contributions import contributions
from .derivative import Along
from .pairs import Pair, shared_out
from .site import Neurons, Pairs, Site
from .tail import Tail

SECANT = Along("secant", carried.start, carried.finish)
HALVING = Along("secant", partial(carried.start, halves=True), carried.finish)


@dataclass(frozen=True)
class Secant:
    r"""Linear operations without their bias, pointwise ones by their secant, the rest in one slot.

    .. math:: \sigma:\; c_u \mapsto c_u \, \frac{\sigma(z) - \sigma(0)}{z}, \qquad \sum_u c_u + slot = y

    Symbols: z = Σ_u c_u + slot what enters a pointwise σ; the limit at z = 0 is σ'(0). The slot collects biases,
    σ(0) and whatever does not come from the layer. Exact at every layer for every net made of linear and pointwise
    operations; equals the tangent for ReLU. Max pooling is carried with its choice frozen: exact too, but no unit is
    credited for which input won; masks from comparisons (``x > 0``) are frozen likewise. What the network detaches or
    computes under ``torch.no_grad()`` is a constant, and so are tensors made in a shape (``zeros_like``, ``new_ones``):
    a constant multiplier is frozen, a constant summand goes to the slot.

    Args:
        products: what happens where two tensors that both come from the layer are multiplied element by element (a
            gate, or density and colour in a volume renderer). "refuse": a CarryError, because such a product has no
            shares of its own; "halves": each factor gets half, which keeps sums exact, by convention only. In a
            cumulative product (``cumprod``, the transmittance of a volume renderer) each of the i factors of the i-th
            result gets 1/i.

    .. math:: z_a z_b = \textstyle\sum_u (a_u z_b + z_a b_u) / 2 + slot

    Raises:
        ValueError: another word for ``products``.

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

    products: Literal["refuse", "halves"] = "refuse"

    slots = 1

    def __post_init__(self) -> None:
        if self.products not in ("refuse", "halves"):
            raise ValueError(f'products={self.products!r}; wanted "refuse" or "halves".')

    @property
    def _along(self) -> Along:
        return HALVING if self.products == "halves" else SECANT

    def prepared(self, tail: Tail, batch: Batch, size: int) -> "Secant":
        """Nothing to learn from the whole batch."""
        return self

    def neurons(self, tail: Tail, batch: Batch, selector: Selector, per_eval: int | None) -> Tensor:
        """(rows, k, *left); without a selector one more unit, the slot, comes last."""
        shares, slot = contributions(tail, batch, selector, self._along, per_eval)
        if selector is not None or slot is None:
            return shares
        return torch.cat([shares, slot[:, None]], dim=1)

    def pairs(self, tail: Tail, batch: Batch, selector: Pair | list[Pair] | None, per_eval: int | None) -> Tensor:
        """(rows, in + 1, out, *left), or (rows, k, *left) when selected.

        The last input row is the slot: each next unit's own bias stands with it, and what enters after the layer
        is shared equally, so that pairs sum to neurons over ``out`` and to the output over both.
        """
        return shared_out(tail, batch, selector, self._along, per_eval, with_slot=True)

    def site(self, tail: Tail, batch: Batch, pairs: bool, per_eval: int | None) -> Site:
        """These rows, linearised once."""
        return Pairs(tail, batch, self._along, per_eval, True) if pairs else Neurons(tail, batch, self._along, per_eval)

    def whole(self, tail: Tail, batch: Batch) -> Tensor:
        """What all units and the slot should add up to: the output."""
        with torch.no_grad():
            return tail.output(batch)
