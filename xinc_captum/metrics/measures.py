"""Texture and motion of image parts, and the registry of all part measures by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._optional import require
from .motion import optical_flow
from .parts import (
    check_parts,
    part_area,
    part_centroid,
    part_ellipse,
    part_lab,
    part_luminance,
    part_means,
    part_rgb,
    turn,
)


def without_affine(flow: Tensor, rounds: int = 10) -> Tensor:
    r"""Return the residual of a flow after subtracting the best affine motion of the image.

    .. math:: w_p - (A\,p + b), \qquad (A, b) = \arg\min \Sigma_p\, \rho\bigl(|w_p - A\,p - b|\bigr)

    ρ is the absolute value, by iterated reweighting, so that a part that moves by itself hardly affects the fit.

    Args:
        flow: (n, 2, H, W), rows then columns, pixels.
        rounds: of reweighting.

    Returns:
        (n, 2, H, W).

    Raises:
        ValueError: another shape, or fewer than three pixels.

    Example:
        >>> without_affine(torch.ones(1, 2, 4, 4)).abs().max() < 1e-4
        tensor(True)

    Source: the paper fits the affine motion but shows the flow before subtraction; the robust fit is ours.
    """
    if flow.dim() != 4 or flow.shape[1] != 2 or flow[0, 0].numel() < 3:
        raise ValueError(f"flow has shape {tuple(flow.shape)}; expected (n, 2, H, W) with at least 3 pixels.")
    wide = flow.double()
    sides = [torch.linspace(-1, 1, side, dtype=wide.dtype, device=wide.device) for side in flow.shape[2:]]
    places = torch.cartesian_prod(*sides)
    design = torch.cat([places, torch.ones_like(places[:, :1])], 1)
    vectors = wide.flatten(2).transpose(1, 2)
    weights = torch.ones_like(vectors[..., :1])
    residual = vectors
    for _ in range(rounds):
        weighted = design * weights
        fit = torch.linalg.pinv(weighted.transpose(1, 2) @ design) @ (weighted.transpose(1, 2) @ vectors)
        residual = vectors - design @ fit
        weights = 1 / residual.norm(dim=2, keepdim=True).clamp_min(1e-3)
    return residual.transpose(1, 2).reshape(flow.shape).to(flow)


def part_motion(before: Tensor, after: Tensor, masks: Tensor) -> Tensor:
    """Return the mean displacement of each part between two images, by TV-L1 flow (scikit-image, ``analysis``).

    The affine motion of the image is subtracted first: :func:`without_affine`.

    Args:
        before: (n, C, H, W), floats in [0, 1].
        after: likewise, for the same rows.
        masks: (n, parts, H, W), of ``before``; bool or weights in [0, 1].

    Returns:
        (n, parts, 3): down, right and speed (the mean length of the vectors), in pixels; nan for an empty part.

    Raises:
        ValueError: shapes that do not match.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> still = torch.zeros(1, 1, 16, 16)
        >>> part_motion(still, still, torch.ones(1, 1, 16, 16)).abs().max() < 1e-4
        tensor(True)
    """
    if before.shape != after.shape:
        raise ValueError(
            f"the images before have shape {tuple(before.shape)} and after {tuple(after.shape)}; expected the same."
        )
    check_parts(before, masks)
    flow = torch.cat([optical_flow(torch.stack(pair)) for pair in zip(before, after, strict=True)])
    residual = without_affine(flow).to(before)
    return part_means(torch.cat([residual, residual.norm(dim=1, keepdim=True)], 1), masks)


RADIUS = 5
_GREY = (0.2125, 0.7154, 0.0721)  # scikit-image's own grey, ITU-R BT.709


def local_entropy(images: Tensor, radius: int = RADIUS) -> Tensor:
    r"""Return the entropy of the 8-bit grey values around each pixel (scikit-image, extra ``analysis``).

    .. math:: H_p = -\Sigma_g\, h_g \log_2 h_g

    Symbols: h the fraction of grey value g in the disk around p, inside the image. Grey values and their rounding to 8
    bits are those of scikit-image (``rgb2gray``, ``img_as_ubyte``), in the images' precision, so that values halfway
    between two grey levels are rounded alike.

    Args:
        images: (n, C, H, W), floats in [0, 1]; three channels become scikit-image's grey, others their mean.
        radius: of the disk, in pixels.

    Returns:
        (n, 1, H, W), float32, in bits; nan for an image with nan. Not differentiable: see :func:`smooth_entropy`.

    Raises:
        ValueError: 8-bit values, or another number of dims.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> local_entropy(torch.ones(1, 3, 4, 4)).max()
        tensor(0.)

    Source: Wehrheim et al., "Linking in Style" (2024), its released code: ``skimage.filters.rank.entropy``, disk(5).
    """
    _check(images)
    rank = require("skimage.filters.rank", purpose="local entropy", extra="analysis")
    color = require("skimage.color", purpose="local entropy", extra="analysis")
    to_bytes = require("skimage.util", purpose="local entropy", extra="analysis").img_as_ubyte
    disk = require("skimage.morphology", purpose="local entropy", extra="analysis").disk(radius)
    wide = torch.promote_types(images.dtype, torch.float32)
    channels_last = images.detach().to(wide).permute(0, 2, 3, 1).contiguous().cpu()
    three = images.shape[1] == 3
    maps = []
    for one in channels_last:
        grey = color.rgb2gray(one.numpy()) if three else one.mean(-1).numpy()
        known = np.isfinite(grey).all()
        bits = rank.entropy(to_bytes(np.clip(grey, 0, 1)), disk) if known else np.full(grey.shape, np.nan)
        maps.append(torch.from_numpy(bits).float())
    return torch.stack(maps)[:, None].to(images.device)


def smooth_entropy(images: Tensor, radius: int = RADIUS, levels: int = 8) -> Tensor:
    r"""Return a differentiable local entropy, with few, overlapping grey levels.

    .. math:: h_{g,p} = \mathrm{mean}_{p' \in D(p)}\; \beta\bigl((G-1)\, I_{p'} - g\bigr), \qquad
              H_p = -\Sigma_g\, h_g \log_2 h_g

    Symbols: β the quadratic B-spline, which distributes each grey value over its three nearest levels; g from -1 to G,
    so that black and white have neighbours too. It ranks textures similarly to :func:`local_entropy`; a uniform grey
    has about one bit instead of none.

    Args:
        images: (n, C, H, W), floats in [0, 1].
        radius: of the disk, in pixels.
        levels: G, at least 2.

    Returns:
        (n, 1, H, W), in the images' dtype, in bits; differentiable.

    Raises:
        ValueError: 8-bit values, another number of dims, or fewer than two levels.

    Example:
        >>> smooth_entropy(torch.tensor([[[[0.0, 1.0]]]]), levels=2).mean()
        tensor(1.5436)
    """
    if levels < 2:
        raise ValueError(f"levels is {levels}; expected at least 2.")
    grey = _grey(images).clamp(0, 1)
    steps = torch.arange(-1, levels + 1, dtype=grey.dtype, device=grey.device).view(1, -1, 1, 1)
    away = ((levels - 1) * grey[:, None] - steps).abs()
    shares = torch.where(away < 0.5, 0.75 - away**2, (1.5 - away).clamp_min(0) ** 2 / 2)
    side = torch.arange(-radius, radius + 1, device=grey.device)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).to(grey)[None, None]
    covered = F.conv2d(torch.ones_like(grey[:1, None]), disk, padding=radius)
    spread = F.conv2d(shares.flatten(0, 1)[:, None], disk, padding=radius).view_as(shares) / covered
    # x log x is 0 at 0, but its slope is infinite there
    return -(spread * spread.clamp_min(1e-6).log2()).sum(1, keepdim=True)


def part_entropy(images: Tensor, masks: Tensor) -> Tensor:
    """Return the mean :func:`local_entropy` of each part, the paper's measure: (n, parts, 1), bits; nan if empty.

    Example:
        >>> part_entropy(torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4)).item()
        0.0
    """
    return part_means(local_entropy(images), masks)


def part_smooth_entropy(images: Tensor, masks: Tensor) -> Tensor:
    """Return the mean :func:`smooth_entropy` of each part: (n, parts, 1), bits; nan if empty.

    Example:
        >>> part_smooth_entropy(torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4)).round(decimals=2)
        tensor([[[1.0600]]])
    """
    return part_means(smooth_entropy(images), masks)


def _grey(images: Tensor) -> Tensor:
    _check(images)
    if images.shape[1] != 3:
        return images.mean(1)
    return torch.einsum("c,nchw->nhw", images.new_tensor(_GREY), images)


def _check(images: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats in [0, 1], (n, C, H, W)."
        )


def difference(before: Tensor, after: Tensor, _base: Tensor) -> Tensor:
    """Return after - before.

    Example:
        >>> difference(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(2.0))
        tensor(2.)
    """
    return after - before


def relative(before: Tensor, after: Tensor, base: Tensor) -> Tensor:
    """Return (after - before) / base, the paper's change of areas; a base of 0 counts as 1.

    Example:
        >>> relative(torch.tensor(1.0), torch.tensor(3.0), torch.tensor(2.0))
        tensor(1.)
    """
    return (after - before) / base.where(base != 0, 1.0)


def of_ellipses(before: Tensor, after: Tensor, _base: Tensor) -> Tensor:
    """Return differences of eccentricities (the first column) and :func:`turn` of orientations (the second).

    Example:
        >>> of_ellipses(torch.tensor([0.5, 89.0]), torch.tensor([0.75, -89.0]), torch.zeros(2)).round(decimals=2)
        tensor([0.2500, 2.0000])
    """
    turned = turn(before[..., 1], after[..., 1])
    return torch.stack([after[..., 0] - before[..., 0], turned], -1)


@dataclass(frozen=True)
class Measure:
    """A measure of each part of one image.

    Attributes:
        columns: names of its numbers.
        of: images (n, C, H, W) and masks (n, parts, H, W) to (n, parts, columns); nan where it is not defined.
        change: values before, after and at the base, (…, columns) each, to the change between before and after.
        smooth: whether ``of`` is differentiable with useful gradients.
    """

    columns: tuple[str, ...]
    of: Callable[[Tensor, Tensor], Tensor]
    change: Callable[[Tensor, Tensor, Tensor], Tensor] = difference
    smooth: bool = True


@dataclass(frozen=True)
class Movement:
    """A measure of each part between two images.

    Attributes:
        columns: names of its numbers.
        between: images before and after, (n, C, H, W) each, and masks (n, parts, H, W) of the images before, to
            (n, parts, columns).
    """

    columns: tuple[str, ...]
    between: Callable[[Tensor, Tensor, Tensor], Tensor]


MEASURES: dict[str, Measure | Movement] = {
    "area": Measure(("area",), part_area, relative),
    "luminance": Measure(("luminance",), part_luminance),
    "rgb": Measure(("red", "green", "blue"), part_rgb),
    "lab": Measure(("lightness", "green_red", "blue_yellow"), part_lab),
    "centroid": Measure(("row", "column"), part_centroid),
    "ellipse": Measure(("eccentricity", "orientation"), part_ellipse, of_ellipses),
    "smooth_entropy": Measure(("smooth_entropy",), part_smooth_entropy),
    "entropy": Measure(("entropy",), part_entropy, smooth=False),
    "motion": Movement(("down", "right", "speed"), part_motion),
}
"""All measures by name."""


def resolve_measures(measures: Sequence[str | Measure | Movement]) -> list[Measure | Movement]:
    """Return measures for names and measures.

    Args:
        measures: keys of :data:`MEASURES`, or measures.

    Raises:
        ValueError: no measure, one that is unknown, or two columns of one name.

    Example:
        >>> [m.columns for m in resolve_measures(["area", "ellipse"])]
        [('area',), ('eccentricity', 'orientation')]
    """
    if isinstance(measures, str) or not measures:
        raise ValueError(f"measures is {measures!r}; expected a list of measures, such as ['area', 'luminance'].")
    selected = []
    for measure in measures:
        if isinstance(measure, str) and measure not in MEASURES:
            raise ValueError(f"measure {measure!r} is unknown; expected one of {', '.join(MEASURES)}, or a Measure.")
        selected.append(MEASURES[measure] if isinstance(measure, str) else measure)
    names = [column for measure in selected for column in measure.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"column {twice[0]!r} comes from two of the measures; leave one out, or rename it.")
    return selected
