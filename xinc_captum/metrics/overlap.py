"""Whether two maps call the same pixels their strongest."""

import torch
from torch import Tensor

from .deletion import removal_order


def top_overlap(first: Tensor, second: Tensor, share: float = 0.1) -> Tensor:
    r"""Intersection over union of the strongest pixels of two maps, 1 where both choose the same: (N,).

    .. math:: \mathrm{IoU} = |T(a) \cap T(b)| \,/\, |T(a) \cup T(b)|

    Symbols: T the ``share`` of the pixels with the largest values, equal ones in reading order. Two maps that have
    nothing to do with each other come to share / (2 - share), .05 at a tenth. nan where a map is not finite.

    Args:
        first: (N, H, W).
        second: (N, H, W).
        share: of the pixels, above 0 and at most 1; at least one pixel is taken.

    Raises:
        ValueError: shapes differ or are not (N, H, W), or a share out of range.

    Example:
        >>> top_overlap(torch.tensor([[[4.0, 3.0, 0.0, 0.0]]]), torch.tensor([[[4.0, 0.0, 3.0, 0.0]]]), share=0.5)
        tensor([0.3333])

    Source: Jaccard 1901.
    """
    if first.shape != second.shape or first.dim() != 3:
        raise ValueError(
            f"maps have shapes {tuple(first.shape)} and {tuple(second.shape)}; wanted the same (N, H, W) twice."
        )
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; wanted a part of the pixels, above 0 and at most 1.")
    count = max(round(share * first.shape[1] * first.shape[2]), 1)
    one, other = (removal_order(maps) < count for maps in (first, second.to(first.device)))
    both, either = ((one & other).flatten(1).sum(1), (one | other).flatten(1).sum(1))
    known = (first.isfinite() & second.to(first.device).isfinite()).flatten(1).all(1)
    return (both.float() / either).masked_fill(~known, torch.nan)
