"""Colour of parts, as channels and as CIE Lab."""

import torch
from torch import Tensor

from .part_means import part_means

# sRGB to XYZ, divided by the white point D65
_TO_XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)
_KNEE = (6 / 29) ** 3
_TOE = 0.04045


def lab(pictures: Tensor) -> Tensor:
    r"""CIE L*a*b* of sRGB pictures under D65; differentiable.

    .. math:: L = 116\, f(Y) - 16, \quad a = 500\,(f(X) - f(Y)), \quad b = 200\,(f(Y) - f(Z))

    Symbols: X, Y, Z of the linearised channels, divided by the white point; f the cube root, continued linearly below
    (6/29)³.

    Args:
        pictures: (n, 3, H, W), floats in [0, 1]; values outside are clipped.

    Returns:
        (n, 3, H, W): L from 0 to 100, a from green (< 0) to red, b from blue (< 0) to yellow.

    Raises:
        ValueError: another number of channels.

    Example:
        >>> lab(torch.ones(1, 3, 1, 1)).flatten().round().abs()
        tensor([100., 0., 0.])

    Source: CIE 15, Colorimetry; IEC 61966-2-1.
    """
    if pictures.dim() != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures have shape {tuple(pictures.shape)}; Lab wants three channels, (n, 3, H, W).")
    values = pictures.clamp(0, 1)
    # clamps instead of branches: quicker, and no branch that is not taken can spoil a gradient
    linear = _power((values.clamp_min(_TOE) + 0.055) / 1.055, 2.4) + (values.clamp_max(_TOE) - _TOE) / 12.92
    xyz = (pictures.new_tensor(_TO_XYZ) @ linear.flatten(2)).view_as(pictures)
    root = _power(xyz.clamp_min(_KNEE), 1 / 3) + (xyz.clamp_max(_KNEE) - _KNEE) / (3 * (6 / 29) ** 2)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _power(values: Tensor, exponent: float) -> Tensor:
    """Of positive values; half the time of ``**`` on a CPU."""
    return (values.log() * exponent).exp()


def part_rgb(pictures: Tensor, masks: Tensor) -> Tensor:
    """Mean of each channel over each part.

    Args:
        pictures: (n, 3, H, W), floats in [0, 1].
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 3), red, green, blue from 0 to 1; nan where a part is empty.

    Raises:
        ValueError: shapes that do not match, or another number of channels.

    Example:
        >>> part_rgb(torch.eye(3).view(3, 3, 1, 1)[:1], torch.ones(1, 1, 1, 1))
        tensor([[[1., 0., 0.]]])
    """
    if pictures.dim() == 4 and pictures.shape[1] != 3:
        raise ValueError(f"pictures have {pictures.shape[1]} channels; colours want 3. For grey ones, take luminance.")
    return part_means(pictures, masks)


def part_lab(pictures: Tensor, masks: Tensor) -> Tensor:
    """Mean CIE L*a*b* of each part: distances in it are about as large as they look.

    Args:
        pictures: (n, 3, H, W), floats in [0, 1].
        masks: (n, parts, H, W), bool or weights in [0, 1].

    Returns:
        (n, parts, 3), as :func:`lab`; nan where a part is empty.

    Raises:
        ValueError: shapes that do not match, or another number of channels.

    Example:
        >>> part_lab(torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, 1)).abs().max().round()
        tensor(0.)
    """
    return part_means(lab(pictures), masks)
