"""Measures of image parts (area, position, colour, shape, texture, motion), and their registry by name.

A measure takes images (n, C, H, W), floats in [0, 1], and masks (n, parts, H, W), bool or weights in [0, 1], which may
overlap, and returns (n, parts, columns) in the images' dtype, nan for an empty part. Shapes that do not match, or 8-bit
values, raise ValueError. All but :func:`part_entropy` (float32) and :func:`part_motion` are differentiable.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._optional import require
from .motion import optical_flow
from .regions import LUMA
from .spread import check_weights


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats in [0, 1], (n, C, H, W). "
            "Divide 8-bit values by 255."
        )


def check_parts(images: Tensor, masks: Tensor) -> None:
    """Check that part masks (n, parts, H, W) match images (n, C, H, W), and that there is a part."""
    _check_images(images)
    rows, size = len(images), tuple(images.shape[2:])
    if masks.dim() != 4 or masks.shape[0] != rows or masks.shape[2:] != images.shape[2:] or not masks.shape[1]:
        raise ValueError(
            f"masks have shape {tuple(masks.shape)} for images of {tuple(images.shape)}; expected ({rows}, parts, "
            f"{size[0]}, {size[1]}) with at least one part. Of label images (n, H, W), make one mask a label first."
        )


def part_means(fields: Tensor, masks: Tensor) -> Tensor:
    r"""Return the mean of each field (n, fields, H, W) over each part: (n, parts, fields); gradients reach both.

    .. math:: \bar f_{q,k} = \frac{\Sigma_p\, m_{q,p}\, f_{k,p}}{\Sigma_p\, m_{q,p}}

    Symbols: m the mask of part q, soft or bool, f field k, p the pixels. An empty part has nan. Raises ValueError for
    shapes that do not match.

    Example:
        >>> image = torch.tensor([[[[0.0, 0.5, 1.0]]]])
        >>> part_means(image, torch.tensor([[[[0, 1, 1]]]]))
        tensor([[[0.7500]]])
    """
    check_parts(fields, masks)
    wide = torch.promote_types(fields.dtype, torch.float32)  # sums over pixels overflow in half precision
    weights = masks.to(fields.device, wide).flatten(2)
    return (weights @ fields.to(wide).flatten(2).transpose(1, 2) / sums(weights)).to(fields.dtype)


def sums(weights: Tensor) -> Tensor:
    """Return sums (n, parts, 1) of (n, parts, P), with nan instead of 0, so that means of empty parts are nan."""
    total = weights.sum(2, keepdim=True)
    return total.where(total > 0, torch.nan)


def part_area(images: Tensor, masks: Tensor) -> Tensor:
    r"""Return the fraction of the image that each part covers: (n, parts, 1), from 0 to 1; times H · W for pixels.

    .. math:: A_q = \frac{1}{P}\, \Sigma_p\, m_{q,p}

    Only the size of the images (n, C, H, W) is used, of P pixels. Raises ValueError as :func:`part_means`, and for
    masks that leave [0, 1].

    Example:
        >>> part_area(torch.zeros(1, 3, 2, 2), torch.tensor([[[[1, 0], [0, 0]]]])).item()
        0.25
    """
    check_parts(images, masks)
    check_weights(masks)
    wide = torch.promote_types(images.dtype, torch.float32)
    return masks.to(images.device, wide).flatten(2).mean(2, keepdim=True).to(images.dtype)


def part_luminance(images: Tensor, masks: Tensor) -> Tensor:
    r"""Return the mean luminance of each part, :func:`part_means` of :func:`intensity`: (n, parts, 1), from 0 to 1.

    .. math:: L_q = 0.299\,\bar R_q + 0.587\,\bar G_q + 0.114\,\bar B_q

    Images of other than three channels are averaged. The paper's released code returns 85 times this value: it uses
    8-bit values and divides by the three channels.

    Example:
        >>> part_luminance(torch.ones(1, 3, 1, 1), torch.ones(1, 1, 1, 1)).item()
        1.0

    Source: Wehrheim et al., "Linking in Style" (2024), its released code.
    """
    means = part_means(images, masks)
    if images.shape[1] != 3:
        return means.mean(2, keepdim=True)
    return (means * means.new_tensor(LUMA)).sum(2, keepdim=True)


# sRGB to XYZ, divided by the white point D65
_TO_XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)
_KNEE = (6 / 29) ** 3
_TOE = 0.04045


def lab(images: Tensor) -> Tensor:
    r"""Return CIE L*a*b* of sRGB images (n, 3, H, W) in [0, 1] under D65; differentiable.

    .. math:: L = 116\, f(Y) - 16, \quad a = 500\,(f(X) - f(Y)), \quad b = 200\,(f(Y) - f(Z))

    Symbols: L from 0 to 100, a from green (< 0) to red, b from blue (< 0) to yellow; X, Y, Z of the linearised
    channels, divided by the white point; f the cube root, continued linearly below (6/29)³. Values outside [0, 1] are
    clipped; another number of channels raises ValueError.

    Example:
        >>> lab(torch.ones(1, 3, 1, 1)).flatten().round().abs()
        tensor([100., 0., 0.])

    Source: CIE 15, Colorimetry; IEC 61966-2-1.
    """
    if images.dim() != 4 or images.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected three channels, (n, 3, H, W).")
    values = images.clamp(0, 1)
    # clamps instead of branches: faster, and no unused branch makes a gradient nan
    linear = _power((values.clamp_min(_TOE) + 0.055) / 1.055, 2.4) + (values.clamp_max(_TOE) - _TOE) / 12.92
    xyz = (images.new_tensor(_TO_XYZ) @ linear.flatten(2)).view_as(images)
    root = _power(xyz.clamp_min(_KNEE), 1 / 3) + (xyz.clamp_max(_KNEE) - _KNEE) / (3 * (6 / 29) ** 2)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _power(values: Tensor, exponent: float) -> Tensor:
    """Return powers of positive values, in half the time of ``**`` on a CPU."""
    return (values.log() * exponent).exp()


def part_rgb(images: Tensor, masks: Tensor) -> Tensor:
    """Return the mean of each colour channel over each part, :func:`part_means`: (n, parts, 3), red, green, blue.

    Raises ValueError also for another number of channels than 3.

    Example:
        >>> part_rgb(torch.eye(3).view(3, 3, 1, 1)[:1], torch.ones(1, 1, 1, 1))
        tensor([[[1., 0., 0.]]])
    """
    if images.dim() == 4 and images.shape[1] != 3:
        raise ValueError(f"images have {images.shape[1]} channels; expected 3. For grey images, use part_luminance.")
    return part_means(images, masks)


def part_lab(images: Tensor, masks: Tensor) -> Tensor:
    """Return the mean :func:`lab` of each part, (n, parts, 3); its distances approximate perceived differences.

    Example:
        >>> part_lab(torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, 1)).abs().max().round()
        tensor(0.)
    """
    return part_means(lab(images), masks)


def part_centroid(images: Tensor, masks: Tensor) -> Tensor:
    r"""Return the centre of mass of each part: (n, parts, 2), row and column in pixels, the first pixel's centre at 0.

    .. math:: c_q = \frac{\Sigma_p\, m_{q,p}\, p}{\Sigma_p\, m_{q,p}}

    Only the size of the images is used. An empty part has nan; errors are those of :func:`part_means`.

    Example:
        >>> part_centroid(torch.zeros(1, 1, 1, 4), torch.tensor([[[[0, 0, 1, 1]]]]))
        tensor([[[0.0000, 2.5000]]])
    """
    weights, places = _wide(images, masks)
    return (weights @ places / sums(weights)).to(images.dtype)


_TINY = 1e-4  # squared pixels: difference of the moments below which an ellipse counts as a circle


def part_ellipse(images: Tensor, masks: Tensor) -> Tensor:
    r"""Return eccentricity and orientation of the ellipse that has each part's second moments: (n, parts, 2).

    .. math:: e = \sqrt{1 - \lambda_2 / \lambda_1}, \qquad
              \theta = \tfrac12\, \mathrm{atan2}(2\mu_{xy},\; \mu_{xx} - \mu_{yy})

    Symbols: λ₁ ≥ λ₂ the eigenvalues of the covariance μ of the part's pixels, x along the columns, y down the rows; e
    from 0 to 1; θ in degrees, the clockwise angle of the long axis to the horizontal, in (-90, 90]. A part of several
    pieces gives one ellipse (the released code fits one to each outline). For e near 0, a circle, θ is not reliable.
    Arguments and errors are those of :func:`part_centroid`.

    Example:
        >>> part_ellipse(torch.zeros(1, 1, 3, 3), torch.eye(3)[None, None]).round(decimals=4)
        tensor([[[ 1., 45.]]])
    """
    weights, places = _wide(images, masks)
    places = places - places.mean(0)  # relative to the centre, which keeps precision for large images
    total = sums(weights)
    centre = weights @ places / total
    products = torch.stack([places[:, 0] ** 2, places[:, 1] ** 2, places[:, 0] * places[:, 1]], 1)
    yy, xx, xy = (weights @ products / total).unbind(2)
    row, column = centre.unbind(2)
    yy, xx, xy = (yy - row**2).clamp_min(0), (xx - column**2).clamp_min(0), xy - row * column
    square = (xx - yy) ** 2 + (2 * xy) ** 2
    far = square > _TINY**2
    across = square.where(far, 1.0).sqrt().where(far, 0.0)  # gradient 0 instead of nan at 0
    largest, smallest = (xx + yy + across) / 2, ((xx + yy - across) / 2).clamp_min(0)
    flat = across > _TINY
    share = 1 - smallest / largest.where(flat, 1.0)
    eccentricity = share.where(flat, 1.0).sqrt().where(flat, 0.0) + total[..., 0] * 0  # nan for empty parts
    doubled = torch.atan2((2 * xy).where(flat, 0.0), (xx - yy).where(flat, 1.0))
    return torch.stack([eccentricity, torch.rad2deg(doubled / 2) + total[..., 0] * 0], 2).to(images.dtype)


def turn(before: Tensor, after: Tensor) -> Tensor:
    r"""Return the smaller rotation angle between two axes θ and θ', in degrees: in (-90, 90], of any shape.

    .. math:: \Delta\theta = \tfrac12\, \mathrm{atan2}(\sin 2\delta,\, \cos 2\delta), \quad \delta = \theta' - \theta

    An axis has no direction: 89° and -89° differ by 2°. (The released code subtracts, which gives 178°.)

    Example:
        >>> turn(torch.tensor(89.0), torch.tensor(-89.0)).round()
        tensor(2.)
    """
    doubled = (after - before) * (2 * math.pi / 180)
    return torch.rad2deg(torch.atan2(doubled.sin(), doubled.cos()) / 2)


def _wide(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return checked masks (n, parts, P) and pixels (P, 2) in float32 or wider; moments overflow in float16."""
    check_parts(images, masks)
    dtype = torch.promote_types(images.dtype, torch.float32)
    rows, columns = (torch.arange(side, dtype=dtype, device=images.device) for side in images.shape[2:])
    return masks.to(images.device, dtype).flatten(2), torch.cartesian_prod(rows, columns).view(-1, 2)


def without_affine(flow: Tensor, rounds: int = 10) -> Tensor:
    r"""Return the residual of a flow after subtracting the best affine motion of the image.

    .. math:: w_p - (A\,p + b), \qquad (A, b) = \arg\min \Sigma_p\, \rho\bigl(|w_p - A\,p - b|\bigr)

    Symbols: p the pixels; ρ the absolute value, fitted by iterated reweighting, so that a part that moves by itself
    hardly affects the fit.

    Args:
        flow: w, (n, 2, H, W), rows then columns, pixels; another shape or less than 3 pixels raise ValueError.
        rounds: number of reweightings.

    Example:
        >>> without_affine(torch.ones(1, 2, 4, 4)).abs().max() < 1e-4
        tensor(True)

    Source: the paper fits the affine motion but shows the flow before subtraction; the robust fit is ours.
    """
    if flow.dim() != 4 or flow.shape[1] != 2 or flow[0, 0].numel() < 3:
        raise ValueError(f"flow has shape {tuple(flow.shape)}; expected (n, 2, H, W) with at least 3 pixels.")
    wide = flow.double()
    rows, columns = (torch.linspace(-1, 1, side, dtype=wide.dtype, device=wide.device) for side in flow.shape[2:])
    places = torch.cartesian_prod(rows, columns)
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
    """Return the mean displacement of each part between two images, by TV-L1 flow (scikit-image, extra ``analysis``).

    The result is (n, parts, 3): down, right and speed (the mean length of the vectors), in pixels; nan for an empty
    part. The affine motion of the image is subtracted first: :func:`without_affine`. The images before and after have
    the same shape, (n, C, H, W); the masks are those of ``before``. Errors are those of :func:`part_means`.

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


def local_entropy(images: Tensor, radius: int = 5) -> Tensor:
    r"""Return the entropy of the 8-bit grey values around each pixel (scikit-image): (n, 1, H, W), float32, in bits.

    .. math:: H_p = -\Sigma_g\, h_g \log_2 h_g

    Symbols: h the fraction of grey value g in the disk of ``radius`` pixels around p, inside the image. Grey values and
    their rounding to 8 bits are those of scikit-image (``rgb2gray``, ``img_as_ubyte``), in the images' precision, so
    that values halfway between two grey levels are rounded alike. Other than three channels are averaged; an image with
    nan has nan. It is not differentiable: see :func:`smooth_entropy`.

    Example:
        >>> local_entropy(torch.ones(1, 3, 4, 4)).max()
        tensor(0.)

    Source: Wehrheim et al., "Linking in Style" (2024), its released code: ``skimage.filters.rank.entropy``, disk(5).
    """
    _check_images(images)
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


def smooth_entropy(images: Tensor, radius: int = 5, levels: int = 8) -> Tensor:
    r"""Return a differentiable local entropy, with few, overlapping grey levels: (n, 1, H, W), in bits.

    .. math:: h_{g,p} = \mathrm{mean}_{p' \in D(p)}\; \beta\bigl((G-1)\, I_{p'} - g\bigr), \qquad
              H_p = -\Sigma_g\, h_g \log_2 h_g

    Symbols: β the quadratic B-spline, which distributes each grey value over its three nearest levels; G ``levels``, at
    least 2; g from -1 to G, so that black and white have neighbours too; D the disk of ``radius`` pixels. It ranks
    textures similarly to :func:`local_entropy`, which has the same images and errors; a uniform grey has about one bit
    instead of none.

    Example:
        >>> smooth_entropy(torch.tensor([[[[0.0, 1.0]]]]), levels=2).mean()
        tensor(1.5436)
    """
    if levels < 2:
        raise ValueError(f"levels is {levels}; expected at least 2.")
    _check_images(images)
    if images.shape[1] == 3:  # scikit-image's grey, ITU-R BT.709
        grey = torch.einsum("c,nchw->nhw", images.new_tensor((0.2125, 0.7154, 0.0721)), images).clamp(0, 1)
    else:
        grey = images.mean(1).clamp(0, 1)
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


def difference(before: Tensor, after: Tensor, _base: Tensor) -> Tensor:
    """Return after - before."""
    return after - before


def relative(before: Tensor, after: Tensor, base: Tensor) -> Tensor:
    """Return (after - before) / base, the paper's change of areas; a base of 0 counts as 1."""
    return (after - before) / base.where(base != 0, 1.0)


def of_ellipses(before: Tensor, after: Tensor, _base: Tensor) -> Tensor:
    """Return differences of eccentricities (the first column) and :func:`turn` of orientations (the second)."""
    return torch.stack([after[..., 0] - before[..., 0], turn(before[..., 1], after[..., 1])], -1)


@dataclass(frozen=True)
class Measure:
    """A measure of each part of one image.

    Attributes:
        columns: names of its numbers.
        of: images (n, C, H, W) and masks (n, parts, H, W) to (n, parts, columns); nan where it is not defined.
        change: values before, after and of the base image, (…, columns) each, to the change from before to after.
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
    """Return measures for names of :data:`MEASURES` and measures.

    Raises ValueError for no measure, one that is unknown, or two columns of one name.

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
