"""Texture of parts: local entropy, exact as in scikit-image and smooth enough to differentiate."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._extra import needed
from .part_means import part_means

RADIUS = 5
_GREY = (0.2125, 0.7154, 0.0721)  # scikit-image's own grey, ITU-R BT.709


def local_entropy(pictures: Tensor, radius: int = RADIUS) -> Tensor:
    r"""Entropy of the 8-bit grey values around each pixel (scikit-image, extra ``analysis``).

    .. math:: H_p = -\Sigma_g\, h_g \log_2 h_g

    Symbols: h the share of grey value g in the disk around p, as far as it lies in the picture. Grey values and their
    rounding to 8 bits are scikit-image's (``rgb2gray``, ``img_as_ubyte``), in the pictures' own precision, so that
    values halfway between two grey levels fall on the same side.

    Args:
        pictures: (n, C, H, W), floats in [0, 1]; three channels become scikit-image's grey, others their mean.
        radius: of the disk, in pixels.

    Returns:
        (n, 1, H, W), float32, in bits; nan for a picture with nan. Not differentiable: see :func:`smooth_entropy`.

    Raises:
        ValueError: 8-bit values, or another number of dims.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> local_entropy(torch.ones(1, 3, 4, 4)).max()
        tensor(0.)

    Source: Wehrheim et al., "Linking in Style" (2024), its released code: ``skimage.filters.rank.entropy``, disk(5).
    """
    _check(pictures)
    rank = needed("skimage.filters.rank", purpose="local entropy", extra="analysis")
    color = needed("skimage.color", purpose="local entropy", extra="analysis")
    to_bytes = needed("skimage.util", purpose="local entropy", extra="analysis").img_as_ubyte
    disk = needed("skimage.morphology", purpose="local entropy", extra="analysis").disk(radius)
    wide = torch.promote_types(pictures.dtype, torch.float32)
    channels_last = pictures.detach().to(wide).permute(0, 2, 3, 1).contiguous().cpu()
    three = pictures.shape[1] == 3
    maps = []
    for one in channels_last:
        grey = color.rgb2gray(one.numpy()) if three else one.mean(-1).numpy()
        known = np.isfinite(grey).all()
        bits = rank.entropy(to_bytes(np.clip(grey, 0, 1)), disk) if known else np.full(grey.shape, np.nan)
        maps.append(torch.from_numpy(bits).float())
    return torch.stack(maps)[:, None].to(pictures.device)


def smooth_entropy(pictures: Tensor, radius: int = RADIUS, levels: int = 8) -> Tensor:
    r"""Local entropy with few, overlapping grey levels, so that gradients pass.

    .. math:: h_{g,p} = \mathrm{mean}_{p' \in D(p)}\; \beta\bigl((G-1)\, I_{p'} - g\bigr), \qquad
              H_p = -\Sigma_g\, h_g \log_2 h_g

    Symbols: β the quadratic B-spline, by which each grey value is shared among its three nearest levels; g from -1 to
    G, so that black and white have neighbours too. It ranks textures much as :func:`local_entropy` does; an even grey
    has about one bit instead of none, whatever the grey.

    Args:
        pictures: (n, C, H, W), floats in [0, 1].
        radius: of the disk, in pixels.
        levels: G, at least 2.

    Returns:
        (n, 1, H, W), in the pictures' dtype, in bits; differentiable.

    Raises:
        ValueError: 8-bit values, another number of dims, or fewer than two levels.

    Example:
        >>> smooth_entropy(torch.tensor([[[[0.0, 1.0]]]]), levels=2).mean()
        tensor(1.5436)
    """
    if levels < 2:
        raise ValueError(f"levels is {levels}; an entropy wants at least 2.")
    grey = _grey(pictures).clamp(0, 1)
    steps = torch.arange(-1, levels + 1, dtype=grey.dtype, device=grey.device).view(1, -1, 1, 1)
    away = ((levels - 1) * grey[:, None] - steps).abs()
    shares = torch.where(away < 0.5, 0.75 - away**2, (1.5 - away).clamp_min(0) ** 2 / 2)
    side = torch.arange(-radius, radius + 1, device=grey.device)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).to(grey)[None, None]
    covered = F.conv2d(torch.ones_like(grey[:1, None]), disk, padding=radius)
    spread = F.conv2d(shares.flatten(0, 1)[:, None], disk, padding=radius).view_as(shares) / covered
    # x log x ends in 0 at 0, with a slope that does not
    return -(spread * spread.clamp_min(1e-6).log2()).sum(1, keepdim=True)


def part_entropy(pictures: Tensor, masks: Tensor) -> Tensor:
    """Mean :func:`local_entropy` of each part, the paper's: (n, parts, 1), bits; nan where a part is empty.

    Example:
        >>> part_entropy(torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4)).item()
        0.0
    """
    return part_means(local_entropy(pictures), masks)


def part_smooth_entropy(pictures: Tensor, masks: Tensor) -> Tensor:
    """Mean :func:`smooth_entropy` of each part: (n, parts, 1), bits; nan where a part is empty.

    Example:
        >>> part_smooth_entropy(torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4)).round(decimals=2)
        tensor([[[1.0600]]])
    """
    return part_means(smooth_entropy(pictures), masks)


def _grey(pictures: Tensor) -> Tensor:
    _check(pictures)
    if pictures.shape[1] != 3:
        return pictures.mean(1)
    return torch.einsum("c,nchw->nhw", pictures.new_tensor(_GREY), pictures)


def _check(pictures: Tensor) -> None:
    if pictures.dim() != 4 or not pictures.is_floating_point():
        raise ValueError(
            f"pictures are {pictures.dtype} of shape {tuple(pictures.shape)}; wanted floats in [0, 1], (n, C, H, W)."
        )
