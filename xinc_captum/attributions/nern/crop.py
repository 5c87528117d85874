"""Kernels of any size out of a predicted K x K: the centre, or an average or maximum of windows."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Crop = Literal["center", "average", "max"]
Size = tuple[int, int]


def crop(predicted: Tensor, size: Size, how: Crop = "center", *, chosen_by: Tensor | None = None) -> Tensor:
    r"""Cut (h, w) kernels out of predicted ones.

    .. math:: center: P_{o + i, o' + j} \qquad average, max: \mathrm{pool}_{(K-h+1) \times (K-w+1)}(P)_{i, j}

    Symbols: o = ⌊(K − h)/2⌋, o' likewise; the windows of the pools have stride 1. Linear in P, apart from "max", whose
    choice of taps is that of ``chosen_by``.

    Args:
        predicted: (…, kernels, K, K).
        size: (h, w), at most K.
        how: one of the three.
        chosen_by: (kernels, K, K), whose maxima decide which taps "max" takes; None: ``predicted`` itself.

    Returns:
        (…, kernels, h, w).

    Raises:
        ValueError: a size larger than K or below 1, or an unknown way.

    Example:
        >>> crop(torch.arange(9.0).view(1, 3, 3), (1, 1)).item()
        4.0

    Source: the released code of Ashkenazi et al. (ICLR 2023), where sizes above K silently come out wrong.
    """
    side = predicted.shape[-1]
    height, width = size
    if how not in get_args(Crop):
        raise ValueError(f"crop is {how!r}; wanted one of {', '.join(map(repr, get_args(Crop)))}.")
    if not (1 <= height <= side and 1 <= width <= side):
        raise ValueError(f"{height}x{width} kernels cannot be cut out of {side}x{side}; predict larger ones.")
    if size == (side, side):
        return predicted
    if how == "center":
        top, left = (side - height) // 2, (side - width) // 2
        return predicted[..., top : top + height, left : left + width]
    if how == "average":
        flat = F.avg_pool2d(predicted.reshape(-1, 1, side, side), (side - height + 1, side - width + 1), 1)
        return flat.reshape(*predicted.shape[:-2], height, width)
    taps = _largest(predicted if chosen_by is None else chosen_by, size)
    flat = predicted.flatten(-2).gather(-1, taps.flatten(-2).expand(*predicted.shape[:-2], -1))
    return flat.reshape(*predicted.shape[:-2], height, width)


def uncrop(weights: Tensor, side: int, how: Crop = "center", *, chosen_by: Tensor | None = None) -> Tensor:
    r"""The transpose of :func:`crop`: what a gradient towards cut kernels is towards the predicted ones.

    .. math:: \langle \mathrm{crop}(P), G \rangle = \langle P, \mathrm{uncrop}(G) \rangle

    Args:
        weights: (…, kernels, h, w).
        side: K.
        how: as in :func:`crop`.
        chosen_by: (kernels, K, K); needed by "max".

    Returns:
        (…, kernels, K, K).

    Raises:
        ValueError: "max" without ``chosen_by``.

    Example:
        >>> uncrop(torch.ones(1, 1, 1), 3)[0, 1].tolist()
        [0.0, 1.0, 0.0]
    """
    height, width = weights.shape[-2:]
    if (height, width) == (side, side):
        return weights
    if how == "center":
        top, left = (side - height) // 2, (side - width) // 2
        return F.pad(weights, (left, side - width - left, top, side - height - top))
    if how == "average":
        window = torch.ones(1, 1, side - height + 1, side - width + 1, dtype=weights.dtype, device=weights.device)
        flat = F.conv_transpose2d(weights.reshape(-1, 1, height, width), window / window.numel())
        return flat.reshape(*weights.shape[:-2], side, side)
    if chosen_by is None:
        raise ValueError("the transpose of the maximum needs chosen_by=, the predicted kernels whose maxima were cut.")
    taps = _largest(chosen_by, (height, width)).flatten(-2).expand(*weights.shape[:-2], -1)
    flat = torch.zeros(*weights.shape[:-2], side * side, dtype=weights.dtype, device=weights.device)
    return flat.scatter_add(-1, taps, weights.flatten(-2)).reshape(*weights.shape[:-2], side, side)


def _largest(predicted: Tensor, size: Size) -> Tensor:
    """Flat indices (…, kernels, h, w) of the maximum of each window."""
    side = predicted.shape[-1]
    window = (side - size[0] + 1, side - size[1] + 1)
    flat = predicted.detach().reshape(-1, 1, side, side)
    _, taps = F.max_pool2d(flat, window, 1, return_indices=True)
    return taps.reshape(*predicted.shape[:-2], *size)
