"""Area, position, colour and shape of image parts; all measures accept soft masks and are differentiable."""

import math

import torch
from torch import Tensor

from .regions import LUMA


def check_parts(images: Tensor, masks: Tensor) -> None:
    """Check that part masks match images.

    Raises:
        ValueError: images that are not floats (n, C, H, W), masks that are not (n, parts, H, W) of the same images, or
            no part.
    """
    if images.dim() != 4 or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected floats in [0, 1], (n, C, H, W). "
            "Divide 8-bit values by 255."
        )
    rows, size = len(images), tuple(images.shape[2:])
    if masks.dim() != 4 or masks.shape[0] != rows or masks.shape[2:] != images.shape[2:] or not masks.shape[1]:
        raise ValueError(
            f"masks have shape {tuple(masks.shape)} for images of {tuple(images.shape)}; expected ({rows}, parts, "
            f"{size[0]}, {size[1]}) with at least one part. Of label images (n, H, W), make one mask a label first."
        )


def part_means(fields: Tensor, masks: Tensor) -> Tensor:
    r"""Return the mean of each field over each part; masks may be soft, and gradients reach both.

    .. math:: \bar f_{q,k} = \frac{\Sigma_p\, m_{q,p}\, f_{k,p}}{\Sigma_p\, m_{q,p}}

    Symbols: m the mask of part q, f field k, p the pixels.

    Args:
        fields: (n, fields, H, W), floats.
        masks: (n, parts, H, W), bool or weights in [0, 1]; parts may overlap.

    Returns:
        (n, parts, fields), in the fields' dtype; nan for an empty part.

    Raises:
        ValueError: shapes that do not match.

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
    r"""Return the fraction of the image that each part covers.

    .. math:: A_q = \frac{1}{P}\, \Sigma_p\, m_{q,p}

    Args:
        images: (n, C, H, W), floats in [0, 1]; only their size is used.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 1), from 0 to 1; multiply by H · W for pixels.

    Raises:
        ValueError: shapes that do not match, or masks that leave [0, 1].

    Example:
        >>> part_area(torch.zeros(1, 3, 2, 2), torch.tensor([[[[1, 0], [0, 0]]]])).item()
        0.25
    """
    check_parts(images, masks)
    if not ((masks >= 0) & (masks <= 1)).all():
        raise ValueError(
            f"masks go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; expected bool, or weights in [0, 1]: "
            "divide a 0-255 mask by 255."
        )
    wide = torch.promote_types(images.dtype, torch.float32)
    return masks.to(images.device, wide).flatten(2).mean(2, keepdim=True).to(images.dtype)


def part_luminance(images: Tensor, masks: Tensor) -> Tensor:
    r"""Return the mean luminance of each part.

    .. math:: L_q = 0.299\,\bar R_q + 0.587\,\bar G_q + 0.114\,\bar B_q

    Args:
        images: (n, C, H, W), floats in [0, 1]; other than three channels are averaged.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 1), from 0 to 1; nan for an empty part. Times 85, it is the value of the paper's released code, which
        also divides by the three channels.

    Raises:
        ValueError: shapes that do not match.

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
    r"""Return CIE L*a*b* of sRGB images under D65; differentiable.

    .. math:: L = 116\, f(Y) - 16, \quad a = 500\,(f(X) - f(Y)), \quad b = 200\,(f(Y) - f(Z))

    Symbols: X, Y, Z of the linearised channels, divided by the white point; f the cube root, continued linearly below
    (6/29)³.

    Args:
        images: (n, 3, H, W), floats in [0, 1]; values outside are clipped.

    Returns:
        (n, 3, H, W): L from 0 to 100, a from green (< 0) to red, b from blue (< 0) to yellow.

    Raises:
        ValueError: another number of channels.

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
    """Return the mean of each colour channel over each part.

    Args:
        images: (n, 3, H, W), floats in [0, 1].
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 3), red, green, blue from 0 to 1; nan for an empty part.

    Raises:
        ValueError: shapes that do not match, or another number of channels.

    Example:
        >>> part_rgb(torch.eye(3).view(3, 3, 1, 1)[:1], torch.ones(1, 1, 1, 1))
        tensor([[[1., 0., 0.]]])
    """
    if images.dim() == 4 and images.shape[1] != 3:
        raise ValueError(f"images have {images.shape[1]} channels; expected 3. For grey images, use part_luminance.")
    return part_means(images, masks)


def part_lab(images: Tensor, masks: Tensor) -> Tensor:
    """Return the mean CIE L*a*b* of each part; its distances approximate perceived differences.

    Args:
        images: (n, 3, H, W), floats in [0, 1].
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 3), as :func:`lab`; nan for an empty part.

    Raises:
        ValueError: shapes that do not match, or another number of channels.

    Example:
        >>> part_lab(torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, 1)).abs().max().round()
        tensor(0.)
    """
    return part_means(lab(images), masks)


def part_centroid(images: Tensor, masks: Tensor) -> Tensor:
    r"""Return the centre of mass of each part.

    .. math:: c_q = \frac{\Sigma_p\, m_{q,p}\, p}{\Sigma_p\, m_{q,p}}

    Args:
        images: (n, C, H, W), floats; only their size is used.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 2): row and column in pixels, the first pixel's centre at 0; nan for an empty part.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> part_centroid(torch.zeros(1, 1, 1, 4), torch.tensor([[[[0, 0, 1, 1]]]]))
        tensor([[[0.0000, 2.5000]]])
    """
    check_parts(images, masks)
    weights, places = _wide(images, masks)
    return (weights @ places / sums(weights)).to(images.dtype)


def part_ellipse(images: Tensor, masks: Tensor) -> Tensor:
    r"""Return eccentricity and orientation of the ellipse that has each part's second moments.

    .. math:: e = \sqrt{1 - \lambda_2 / \lambda_1}, \qquad
              \theta = \tfrac12\, \mathrm{atan2}(2\mu_{xy},\; \mu_{xx} - \mu_{yy})

    Symbols: λ₁ ≥ λ₂ the eigenvalues of the covariance μ of the part's pixels, x along the columns, y down the rows. A
    part of several pieces gives one ellipse (the released code fits one to each outline). For e near 0, a circle, θ is
    not reliable.

    Args:
        images: (n, C, H, W), floats; only their size is used.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 2): e from 0 to 1; θ in degrees, the clockwise angle of the long axis to the horizontal, in (-90,
        90]; nan for an empty part.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> part_ellipse(torch.zeros(1, 1, 3, 3), torch.eye(3)[None, None]).round(decimals=4)
        tensor([[[ 1., 45.]]])
    """
    check_parts(images, masks)
    weights, places = _wide(images, masks)
    places = places - places.mean(0)  # relative to the centre, which keeps precision for large images
    total = sums(weights)
    centre = weights @ places / total
    products = torch.stack([places[:, 0] ** 2, places[:, 1] ** 2, places[:, 0] * places[:, 1]], 1)
    yy, xx, xy = (weights @ products / total).unbind(2)
    row, column = centre.unbind(2)
    yy, xx, xy = (yy - row**2).clamp_min(0), (xx - column**2).clamp_min(0), xy - row * column
    across = _length(xx - yy, 2 * xy)
    largest, smallest = (xx + yy + across) / 2, ((xx + yy - across) / 2).clamp_min(0)
    flat = across > _TINY
    share = 1 - smallest / largest.where(flat, 1.0)
    eccentricity = share.where(flat, 1.0).sqrt().where(flat, 0.0) + total[..., 0] * 0
    doubled = torch.atan2((2 * xy).where(flat, 0.0), (xx - yy).where(flat, 1.0))
    return torch.stack([eccentricity, torch.rad2deg(doubled / 2) + total[..., 0] * 0], 2).to(images.dtype)


def turn(before: Tensor, after: Tensor) -> Tensor:
    r"""Return the smaller rotation angle between two axes, computed from the doubled angle.

    .. math:: \Delta\theta = \tfrac12\, \mathrm{atan2}(\sin 2\delta,\, \cos 2\delta), \quad \delta = \theta' - \theta

    An axis has no direction: 89° and -89° differ by 2°. (The released code subtracts, which gives 178°.)

    Args:
        before: θ, degrees, any shape.
        after: θ', likewise.

    Returns:
        degrees in (-90, 90].

    Example:
        >>> turn(torch.tensor(89.0), torch.tensor(-89.0)).round()
        tensor(2.)
    """
    doubled = (after - before) * (2 * math.pi / 180)
    return torch.rad2deg(torch.atan2(doubled.sin(), doubled.cos()) / 2)


_TINY = 1e-4  # squared pixels: difference of the moments below which an ellipse counts as a circle


def _length(first: Tensor, second: Tensor) -> Tensor:
    """Return the hypotenuse, with gradient 0 instead of nan at 0."""
    square = first**2 + second**2
    far = square > _TINY**2
    return square.where(far, 1.0).sqrt().where(far, 0.0)


def _wide(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks (n, parts, P) and pixel coordinates (P, 2) in float32 or wider; moments overflow in float16."""
    dtype = torch.promote_types(images.dtype, torch.float32)
    rows, columns = (torch.arange(side, dtype=dtype, device=images.device) for side in images.shape[2:])
    return masks.to(images.device, dtype).flatten(2), torch.cartesian_prod(rows, columns).view(-1, 2)
