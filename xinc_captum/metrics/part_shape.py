"""Where parts are and how they lie: centroid, eccentricity, orientation; all from moments of the mask."""

import math

import torch
from torch import Tensor

from .part_means import check_parts, sums


def part_centroid(pictures: Tensor, masks: Tensor) -> Tensor:
    r"""Centre of mass of each part.

    .. math:: c_q = \frac{\Sigma_p\, m_{q,p}\, p}{\Sigma_p\, m_{q,p}}

    Args:
        pictures: (n, C, H, W), floats; only their size is used.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 2): row and column in pixels, the first pixel's centre at 0; nan where a part is empty.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> part_centroid(torch.zeros(1, 1, 1, 4), torch.tensor([[[[0, 0, 1, 1]]]]))
        tensor([[[0.0000, 2.5000]]])
    """
    check_parts(pictures, masks)
    weights, places = _wide(pictures, masks)
    return (weights @ places / sums(weights)).to(pictures.dtype)


def part_ellipse(pictures: Tensor, masks: Tensor) -> Tensor:
    r"""Eccentricity and orientation of the ellipse that has each part's second moments.

    .. math:: e = \sqrt{1 - \lambda_2 / \lambda_1}, \qquad
              \theta = \tfrac12\, \mathrm{atan2}(2\mu_{xy},\; \mu_{xx} - \mu_{yy})

    Symbols: λ₁ ≥ λ₂ the eigenvalues of the covariance μ of the part's pixels, x along the columns, y down the rows.
    A part of several pieces is one ellipse here (the released code fits one to each outline). Near a circle θ is
    noise, and says so by e near 0.

    Args:
        pictures: (n, C, H, W), floats; only their size is used.
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 2): e from 0 to 1; θ in degrees, the long axis from the columns' axis clockwise as seen, in
        (-90, 90]; nan where a part is empty.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> part_ellipse(torch.zeros(1, 1, 3, 3), torch.eye(3)[None, None]).round(decimals=4)
        tensor([[[ 1., 45.]]])
    """
    check_parts(pictures, masks)
    weights, places = _wide(pictures, masks)
    places = places - places.mean(0)  # about the middle, not the corner: large pictures keep their digits
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
    return torch.stack([eccentricity, torch.rad2deg(doubled / 2) + total[..., 0] * 0], 2).to(pictures.dtype)


def turn(before: Tensor, after: Tensor) -> Tensor:
    r"""By how many degrees an axis turned: the shorter way, found on the doubled angle.

    .. math:: \Delta\theta = \tfrac12\, \mathrm{atan2}(\sin 2\delta,\, \cos 2\delta), \quad \delta = \theta' - \theta

    An axis has no head: 89° and -89° are 2° apart. (The released code subtracts, and reads 178°.)

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


_TINY = 1e-4  # squared pixels: rounder than this, an ellipse is a circle


def _length(first: Tensor, second: Tensor) -> Tensor:
    """The hypotenuse, with gradient 0 instead of nan at 0."""
    square = first**2 + second**2
    far = square > _TINY**2
    return square.where(far, 1.0).sqrt().where(far, 0.0)


def _wide(pictures: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (n, parts, P), and row and column of every pixel (P, 2), in float32 or wider: moments overflow in half."""
    dtype = torch.promote_types(pictures.dtype, torch.float32)
    rows, columns = (torch.arange(side, dtype=dtype, device=pictures.device) for side in pictures.shape[2:])
    return masks.to(pictures.device, dtype).flatten(2), torch.cartesian_prod(rows, columns).view(-1, 2)
