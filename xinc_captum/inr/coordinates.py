"""Where the pixels of a picture lie, and when the frames of a video are shown."""

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


def pixel_centres(
    size: tuple[int, ...], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    r"""Coordinates of every pixel's centre where the picture's edges are at -1 and 1: (pixels, dims), row-major.

    .. math:: x_d = (2 i_d + 1) / size_d - 1

    Symbols: i_d the pixel's index along axis d. Every axis spans [-1, 1], whatever the picture's shape: the grid on
    which a :class:`xinc_captum.attributions.trans_inr.TransINR` draws.

    Args:
        size: (H, W), (L,) or (D, H, W); the axes of a coordinate come in this order.
        dtype: float dtype; None is torch's default.
        device: where to put it.

    Raises:
        ValueError: a side below 1.

    Example:
        >>> pixel_centres((2, 4))[-1]
        tensor([0.5000, 0.7500])

    Source: Chen & Wang (ECCV 2022), released code.
    """
    if not size or min(size) < 1:
        raise ValueError(f"size is {size}; wanted at least one side, each of at least 1 pixel.")
    dtype = dtype or torch.get_default_dtype()
    axes = [(2 * torch.arange(s, dtype=dtype, device=device) + 1) / s - 1 for s in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(size))


def times(frames: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    r"""When the frames of a video are shown: (frames, 1), from 0 for the first to 1 for the last.

    .. math:: t_i = i / (frames - 1)

    Args:
        frames: how many.
        dtype: float dtype; None is torch's default.
        device: where to put it.

    Raises:
        ValueError: no frames.

    Example:
        >>> times(5).flatten()
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}; wanted at least 1.")
    index = torch.arange(frames, dtype=dtype or torch.get_default_dtype(), device=device)
    return (index / max(frames - 1, 1))[:, None]
