"""Metrics of attribution maps: localization, overlap of two maps, and sparseness."""

import torch
from torch import Tensor

from .faithfulness import removal_order


def energy_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    r"""Return the fraction of a map inside the masked object, between 0 and 1.

    .. math:: e = \Sigma_p \, m_p \, b_p \, / \, \Sigma_p \, m_p

    Symbols: m_p the map at pixel p, b_p the mask there. A uniform map scores the mask's fraction of the image, so
        compare
    with ``masks.float().mean((1, 2))``.

    Args:
        maps: (N, H, W), nonnegative.
        masks: (N, H, W), bool or weights in [0, 1].

    Returns:
        (N,); nan where a map or a mask is zero everywhere.

    Raises:
        ValueError: shapes differ or are not (N, H, W), a map has negative values, or a mask leaves [0, 1].

    Example:
        >>> energy_in_mask(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
        tensor([0.7500])

    Source: the energy-based pointing game of Wang et al., "Score-CAM" (CVPR workshops 2020).
    """
    _check(maps, masks)
    if (maps < 0).any():
        raise ValueError(
            f"maps go down to {float(maps.min()):.3g}; expected nonnegative ones. Give maps.clamp_min(0) to ignore "
            "negative values, or maps.abs() to count them."
        )
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return _where_marked((wide * masks).sum((1, 2)) / wide.sum((1, 2)), masks > 0)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether a map's largest value lies on the masked object, 1 or 0 for each image: (N,).

    If several values are largest, the score is the fraction of them inside: 1/2 for two peaks, one of them inside.

    Args:
        maps: (N, H, W).
        masks: (N, H, W), bool or weights in [0, 1]; from 1/2 on counts as inside.

    Returns:
        (N,) float32; nan if a map is not finite or its mask is empty.

    Raises:
        ValueError: shapes differ or are not (N, H, W), or a mask leaves [0, 1].

    Example:
        >>> pointing_game(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
        tensor([1.])

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop" (IJCV 2018), sec. 4.2, without its margin
    of 15 pixels.
    """
    _check(maps, masks)
    peaks = (maps == maps.amax((1, 2), keepdim=True)).float()
    inside = masks >= 0.5
    hits = (peaks * inside).sum((1, 2)) / peaks.sum((1, 2))
    return _where_marked(hits.masked_fill(~maps.isfinite().flatten(1).all(1), torch.nan), inside)


def _where_marked(values: Tensor, inside: Tensor) -> Tensor:
    """Return values with nan for images without the object, which are no misses."""
    return values.masked_fill(~inside.flatten(1).any(1), torch.nan)


def _check(maps: Tensor, masks: Tensor) -> None:
    if maps.shape != masks.shape or maps.dim() != 3:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and masks {tuple(masks.shape)}; expected the same (N, H, W) twice."
        )
    if not ((masks >= 0) & (masks <= 1)).all():
        raise ValueError(
            f"masks go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; expected bool, or weights in [0, 1]: "
            "divide a 0-255 mask by 255."
        )


def top_overlap(first: Tensor, second: Tensor, share: float = 0.1) -> Tensor:
    r"""Return the intersection over union of the largest pixels of two maps, 1 if they are the same: (N,).

    .. math:: \mathrm{IoU} = |T(a) \cap T(b)| \,/\, |T(a) \cup T(b)|

    Symbols: T the fraction ``share`` of the pixels with the largest values, equal ones ordered by rows. Independent
        maps
    score share / (2 - share) on average, .05 at a tenth. The result is nan for a map that is not finite.

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
            f"maps have shapes {tuple(first.shape)} and {tuple(second.shape)}; expected the same (N, H, W) twice."
        )
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a fraction of the pixels, above 0 and at most 1.")
    count = max(round(share * first.shape[1] * first.shape[2]), 1)
    one, other = (removal_order(maps) < count for maps in (first, second.to(first.device)))
    both, either = ((one & other).flatten(1).sum(1), (one | other).flatten(1).sum(1))
    known = (first.isfinite() & second.to(first.device).isfinite()).flatten(1).all(1)
    return (both.float() / either).masked_fill(~known, torch.nan)


def gini(maps: Tensor) -> Tensor:
    r"""Return the Gini index of each map's magnitudes, 0 if all are equal and near 1 for a single pixel: (N,).

    .. math:: G = \frac{\Sigma_i (2i - n - 1)\, |m|_{(i)}}{n\, \Sigma_i |m|_{(i)}}

    Symbols: \|m\|_(i) the i-th smallest of n magnitudes.

    Args:
        maps: (N, …), floats.

    Returns:
        (N,), in float32 or wider; nan for a map of zeros or one that is not finite.

    Raises:
        ValueError: fewer than two dimensions.

    Example:
        >>> gini(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]))
        tensor([0.0000, 0.7500])

    Source: Hurley & Rickard, "Comparing Measures of Sparsity" (2009); for maps Chalasani et al. (ICML 2020).
    """
    if maps.dim() < 2:
        raise ValueError(f"maps have shape {tuple(maps.shape)}; expected (N, …), one map for each row.")
    wide = maps.detach().to(torch.promote_types(maps.dtype, torch.float32)).flatten(1).abs()
    ordered, n = wide.sort(1).values, wide.shape[1]
    weights = 2 * torch.arange(1, n + 1, device=wide.device, dtype=wide.dtype) - n - 1
    return (ordered * weights).sum(1) / (n * ordered.sum(1))
