"""Where the pixels of a picture lie."""

import torch
from torch import Tensor


def coordinates(
    size: tuple[int, ...], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    r"""Coordinates of every pixel, row-major: (pixels, dims).

    .. math:: x_d = 2 i_d / (\max(size) - 1) - 1

    Symbols: i_d the pixel's index along axis d. Pixel centres; every axis is divided by the *longer* side, so that
    pixels are square: the longer axis spans [-1, 1], the shorter one starts at -1 and ends early (as XINC's released
    code does). The same picture asked for at twice the size covers the same range.

    Args:
        size: (H, W), (L,) or (D, H, W); the axes of a coordinate come in this order.
        dtype: float dtype; None is torch's default.
        device: where to put it.

    Raises:
        ValueError: a side below 1.

    Example:
        >>> coordinates((2, 3))[-1]
        tensor([0., 1.])
    """
    if not size or min(size) < 1:
        raise ValueError(f"size is {size}; wanted at least one side, each of at least 1 pixel.")
    span = max(max(size) - 1, 1)
    axes = [torch.arange(s, dtype=dtype or torch.get_default_dtype(), device=device) / span * 2 - 1 for s in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(size))
