"""Amounts: how much each unit paints at each pixel. What all analyses of canvases take.

One convention for all: a[u, p] ≥ 0, **units before pixels, frames before units**. A picture is (units, *size) with
size (H, W), (L,) or (D, H, W); a clip is (frames, units, H, W). Masks follow the same order: (regions, *size), and
(frames, objects, H, W). Answers keep the order of what is left.
"""

import torch
from torch import Tensor


def magnitudes(canvas: Tensor) -> Tensor:
    r"""Amounts from signed contributions: the channels' magnitudes added up.

    .. math:: a_{u,p} = \Sigma_{ch} \, |c_{u,ch,p}|

    Magnitudes first, so that a unit which adds red and takes blue away is not taken for one that does nothing.
    Leave the secant's slot out: it is no unit (``canvas.to_tensor()[: canvas.units]``).

    Args:
        canvas: (units, channels, H, W), or (frames, units, channels, H, W).

    Returns:
        (units, H, W), or (frames, units, H, W); float32 or wider.

    Raises:
        ValueError: another number of dims.

    Example:
        >>> magnitudes(torch.tensor([[[[1.0]], [[-1.0]]]])).tolist()
        [[[2.0]]]
    """
    if canvas.dim() not in (4, 5):
        raise ValueError(
            f"canvas has shape {tuple(canvas.shape)}; wanted (units, channels, H, W), or "
            "(frames, units, channels, H, W) for a clip."
        )
    return canvas.abs().sum(-3, dtype=torch.promote_types(canvas.dtype, torch.float32))


def check_picture(amounts: Tensor, name: str = "amounts") -> Tensor:
    """Amounts of one picture, (units, *size), in float64 where the device has it.

    Raises:
        ValueError: no pixel axis, an empty axis, negative or non-finite values.
    """
    if amounts.dim() < 2 or not amounts.numel():
        raise ValueError(f"{name} have shape {tuple(amounts.shape)}; wanted (units, H, W), or (units, pixels).")
    return _amounts(amounts, name)


def check_clip(amounts: Tensor, name: str = "amounts", *, least: int = 2) -> Tensor:
    """Amounts of a clip, (frames, units, H, W), in float64 where the device has it.

    Raises:
        ValueError: another number of dims, fewer frames than ``least``, negative or non-finite values.
    """
    if amounts.dim() != 4 or not amounts.numel():
        raise ValueError(f"{name} have shape {tuple(amounts.shape)}; wanted a clip, (frames, units, H, W).")
    if len(amounts) < least:
        raise ValueError(
            f"{name} have {len(amounts)} frame{'s' if len(amounts) > 1 else ''}; wanted at least {least}: what "
            "happens in time needs something to compare with."
        )
    return _amounts(amounts, name)


def check_masks(masks: Tensor, size: tuple[int, ...], name: str = "masks") -> Tensor:
    """Masks of one picture, (regions, *size), in float64 where the device has it.

    Raises:
        ValueError: another size, values outside [0, 1], or an empty region.
    """
    if masks.dim() != 1 + len(size) or tuple(masks.shape[1:]) != size or not len(masks):
        raise ValueError(
            f"{name} have shape {tuple(masks.shape)} for a picture of {size}; wanted (regions, "
            f"{', '.join(map(str, size))}), one mask of the picture's size for each region."
        )
    if not ((masks >= 0) & (masks <= 1)).all():  # written so that nan fails
        raise ValueError(
            f"{name} go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; wanted bool, or weights in [0, 1]. "
            "For a map of labels, use as_masks(labels)."
        )
    empty = [i for i, area in enumerate(masks.flatten(1).sum(1).tolist()) if area == 0]
    if empty:
        raise ValueError(f"{name} {empty[:8]} are empty: nothing can be said of a region without pixels; drop them.")
    return wide(masks)


def wide(values: Tensor) -> Tensor:
    """Sums over millions of pixels want float64; Apple's devices have none."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def _amounts(amounts: Tensor, name: str) -> Tensor:
    if not amounts.isfinite().all():
        raise ValueError(f"{name} have values that are not finite; wanted finite ones >= 0.")
    if (amounts < 0).any():
        raise ValueError(
            f"{name} go down to {float(amounts.min()):.3g}; wanted magnitudes >= 0. From a signed canvas, "
            "magnitudes(canvas) makes them."
        )
    return wide(amounts.detach())
