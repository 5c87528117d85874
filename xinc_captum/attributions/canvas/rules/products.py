"""Products of tensors that all come from the layer, shared equally among their factors."""

from collections.abc import Sequence

import torch
from torch import Tensor


def product(values: Sequence[Tensor], slots: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return z_a z_b with half of its derivative by way of each factor, and its slot.

    Σ_u (a_u z_b + z_a b_u) / 2 and the slots likewise are all of the product.

    Example:
        >>> values, slots = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0])
        >>> [t.item() for t in product(values.unbind(), slots.unbind())]
        [6.0, 1.5]
    """
    (a, b), (slot_a, slot_b) = values, slots
    value = (a * b.detach() + a.detach() * b) / 2
    with torch.no_grad():
        return value, (slot_a * b + a * slot_b) / 2


def cumulative_product(z: Tensor, slot: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    r"""Return the cumulative product along ``dim`` with an equal part of its derivative by way of each factor.

    .. math:: p_i = \prod_{j \le i} z_j, \qquad
              c_{u,i} = \frac{1}{i} \sum_{j \le i} c_{u,j} \prod_{k \le i,\, k \ne j} z_k

    Symbols: i counts from 1. The slot is shared in the same way, so that Σ_u c_{u,i} + slot_i = p_i. Zeros among the
    factors are allowed.

    Example:
        >>> [t.tolist() for t in cumulative_product(torch.tensor([2.0, 3.0]), torch.tensor([2.0, 0.0]), 0)]
        [[2.0, 6.0], [2.0, 3.0]]
    """
    whole = z.cumprod(dim)
    counts = [1] * z.dim()
    counts[dim] = z.shape[dim]
    share = 1 / torch.arange(1, z.shape[dim] + 1, dtype=z.dtype, device=z.device).reshape(counts)
    value = whole.detach() + (whole - whole.detach()) * share
    with torch.no_grad():
        moved: list[Tensor] = []
        before = torch.ones_like(z.detach().select(dim, 0))
        rise = torch.zeros_like(before)
        for factor, own in zip(z.detach().unbind(dim), slot.unbind(dim), strict=True):
            rise, before = rise * factor + before * own, before * factor
            moved.append(rise)
        return value, torch.stack(moved, dim) * share
