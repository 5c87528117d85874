"""From an accumulated gradient to how opaque each pixel is drawn."""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def opacity(masks: Tensor, percentile: float = 97.0, sigma: float = 3.0) -> Tensor:
    r"""Masks as opacities in [0, 1], each image by its own measure.

    .. math:: o = G_\sigma * \min(m, q_p) / q_p, \qquad m = \mathrm{mean}_c |\,\mathrm{mask}_c|

    Symbols: q_p the p-th percentile of m, G_σ a Gaussian with standard deviation σ pixels (mirrored at the edges).

    Args:
        masks: (N, C, H, W).
        percentile: p in (0, 100].
        sigma: σ; 0 does not blur.

    Returns:
        (N, 1, H, W), float32.

    Raises:
        ValueError: an impossible percentile or sigma.

    Example:
        >>> float(opacity(torch.ones(1, 3, 4, 4)).min().round(decimals=5))
        1.0

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039), how accentuations are drawn; there p = 80 and
    σ = 2, which shows most of the photo.
    """
    if not 0 < percentile <= 100 or sigma < 0:
        raise ValueError(f"percentile={percentile:g}, sigma={sigma:g}; wanted 0 < percentile <= 100 and sigma >= 0.")
    mean = masks.detach().float().abs().mean(1, keepdim=True)
    ordered = mean.flatten(1).sort(1).values  # torch.quantile refuses pictures beyond 16 million pixels
    place = (ordered.shape[1] - 1) * percentile / 100
    low, high = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
    top = low + (high - low) * (place - math.floor(place))
    clipped = torch.minimum(mean, top.reshape(-1, 1, 1, 1))
    clipped = clipped / clipped.amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return blur(clipped, sigma).clamp(0, 1) if sigma else clipped


def blur(maps: Tensor, sigma: float) -> Tensor:
    """A Gaussian over the last two axes of (N, 1, H, W), cut off at four σ, mirrored at the edges."""
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps)
    across = conv2d(_mirrored(maps, 3, radius), kernel.reshape(1, 1, 1, -1))
    return conv2d(_mirrored(across, 2, radius), kernel.reshape(1, 1, -1, 1))


def _mirrored(maps: Tensor, axis: int, radius: int) -> Tensor:
    """Pad an axis with its mirror image, the edge itself repeated; also where the picture is smaller than that."""
    size = maps.shape[axis]
    place = torch.arange(-radius, size + radius, device=maps.device) % (2 * size)
    return maps.index_select(axis, torch.where(place < size, place, 2 * size - 1 - place))
