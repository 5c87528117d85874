"""Where a map lies: how much of it falls inside a mask."""

import torch
from torch import Tensor


def energy_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    r"""The part of a map that falls on the masked object, between 0 and 1.

    .. math:: e = \Sigma_p \, m_p \, b_p \, / \, \Sigma_p \, m_p

    Symbols: m_p the map at pixel p, b_p the mask there. A map without preference scores the mask's share of the
    picture, so compare with ``masks.float().mean((1, 2))``.

    Args:
        maps: (N, H, W), nonnegative.
        masks: (N, H, W), bool or weights in [0, 1].

    Returns:
        (N,); nan where a map is zero everywhere.

    Raises:
        ValueError: shapes differ or are not (N, H, W), a map has negative values, or a mask leaves [0, 1].

    Example:
        >>> energy_in_mask(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
        tensor([0.7500])

    Source: the energy-based pointing game of Wang et al., "Score-CAM" (CVPR workshops 2020).
    """
    if maps.shape != masks.shape or maps.dim() != 3:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and masks {tuple(masks.shape)}; wanted the same (N, H, W) twice."
        )
    if (maps < 0).any():
        raise ValueError(
            f"maps go down to {float(maps.min()):.3g}; wanted nonnegative ones. Decide what a negative value means "
            "here: nothing, maps.clamp_min(0), or as much as a positive one, maps.abs()."
        )
    if ((masks < 0) | (masks > 1)).any():
        raise ValueError(
            f"masks go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; wanted bool, or weights in [0, 1]: "
            "divide a 0-255 mask by 255."
        )
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return (wide * masks).sum((1, 2)) / wide.sum((1, 2))
