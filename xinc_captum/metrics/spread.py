"""Spread: over how many pixels a unit paints, and how many units it takes to paint a pixel."""

import torch
from torch import Tensor

from .amounts import check_picture


def pixels_per_unit(amounts: Tensor) -> Tensor:
    r"""At how many pixels a unit paints more than its fair share.

    .. math:: n_u = \#\{p : a_{u,p} / \Sigma_v a_{v,p} > 1/N\}

    Symbols: a the amounts, N the number of units. A pixel where nobody paints counts for nobody. Control:
    :func:`shuffled_units`, under which all units come to about the same number.

    Args:
        amounts: (units, *size), >= 0.

    Returns:
        (units,), int64.

    Raises:
        ValueError: amounts that are negative, not finite, or without pixels.

    Example:
        >>> pixels_per_unit(torch.tensor([[3.0, 3.0, 1.0], [1.0, 0.0, 1.0]]))
        tensor([2, 0])

    Source: Padmanabhan et al., "Explaining the Implicit Neural Canvas" (CVPR 2024), its released code.
    """
    flat = check_picture(amounts).flatten(1)
    return (flat * len(flat) > flat.sum(0)).sum(1)


def units_per_pixel(amounts: Tensor, covering: float = 0.9) -> Tensor:
    r"""How many of the layer's strongest contributions lie at each pixel.

    .. math:: n_p = \#\{u : a_{u,p} \ge t\}, \quad t = \max\{t : \Sigma_{a \ge t}\, a \ge q \,\Sigma a\}

    Symbols: a the amounts, q ``covering``, the part of all that the layer paints which the counted ones make up.
    Control: :func:`shuffled_pixels`.

    Args:
        amounts: (units, *size), >= 0.
        covering: q in (0, 1].

    Returns:
        size, int64. Divide by the number of units for the paper's heat map.

    Raises:
        ValueError: amounts that are negative, not finite, or without pixels; q outside (0, 1].

    Example:
        >>> units_per_pixel(torch.tensor([[8.0, 1.0], [1.0, 0.0]]), covering=0.8)
        tensor([1, 0])

    Source: as :func:`pixels_per_unit`, where the threshold of one layer met the maps of another.
    """
    _check_part(covering, "covering")
    wide = check_picture(amounts)
    ordered = wide.flatten().sort(descending=True).values
    running = ordered.cumsum(0)
    place = torch.searchsorted(running, running[-1] * covering * (1 - 1e-12)).clamp_max(len(running) - 1)
    return ((wide >= ordered[place]) & (wide > 0)).sum(0)


def participation(amounts: Tensor, dim: int = 0) -> Tensor:
    r"""The effective number of contributors: 1 when one does it all, N when N share alike.

    .. math:: r = (\Sigma_i a_i)^2 \, / \, \Sigma_i a_i^2

    Args:
        amounts: (units, *size), >= 0.
        dim: 0 counts units at each pixel; for pixels of each unit, give ``amounts.flatten(1)`` and 1.

    Returns:
        the amounts' shape without ``dim``, float64; nan where there is nothing.

    Raises:
        ValueError: amounts that are negative, not finite, or without pixels.

    Example:
        >>> participation(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
        tensor([2., 1.], dtype=torch.float64)

    Source: the inverse participation ratio of Bell & Dean (1970).
    """
    wide = check_picture(amounts)
    wide = wide / wide.amax(dim, keepdim=True)  # tiny amounts must not underflow when squared
    return wide.sum(dim).square() / wide.square().sum(dim)


def units_for(amounts: Tensor, part: float = 0.9) -> Tensor:
    r"""How few units make up a part of a pixel.

    .. math:: k_p = \min\{k : \Sigma_{i \le k} a_{(i),p} \ge q \,\Sigma_u a_{u,p}\}

    Symbols: a_(i) the i-th largest amount at the pixel, q ``part``. Control: :func:`shuffled_pixels`.

    Args:
        amounts: (units, *size), >= 0. For a whole layer: ``units_for(amounts.flatten(1).sum(1, keepdim=True))``.
        part: q in (0, 1].

    Returns:
        size, int64; 0 where nobody paints.

    Raises:
        ValueError: amounts that are negative, not finite, or without pixels; q outside (0, 1].

    Example:
        >>> units_for(torch.tensor([[5.0, 1.0], [4.0, 0.0], [1.0, 0.0]]), part=0.9)
        tensor([2, 1])
    """
    _check_part(part, "part")
    wide = check_picture(amounts)
    running = wide.sort(0, descending=True).values.cumsum(0)
    short = running < running[-1] * part * (1 - 1e-12)  # the last sum must reach 100 % of itself
    return (short.sum(0) + 1) * (running[-1] > 0)


def running_share(amounts: Tensor) -> Tensor:
    r"""The part of a pixel that its k strongest units make up, mean over pixels: the curve behind :func:`units_for`.

    .. math:: S_k = \mathrm{mean}_p \; \Sigma_{i \le k} a_{(i),p} \, / \, \Sigma_u a_{u,p}

    Pixels where nobody paints are left out. Control: :func:`shuffled_pixels`.

    Args:
        amounts: (units, *size), >= 0.

    Returns:
        (units + 1,), from 0 for no unit to 1 for all, float64.

    Raises:
        ValueError: amounts that are negative, not finite, or without pixels.

    Example:
        >>> running_share(torch.tensor([[1.0], [3.0]])).tolist()
        [0.0, 0.75, 1.0]
    """
    flat = check_picture(amounts).flatten(1)
    flat = flat[:, flat.sum(0) > 0]
    curve = (flat.sort(0, descending=True).values.cumsum(0) / flat.sum(0)).mean(1)
    return torch.cat([curve.new_zeros(1), curve])


def _check_part(part: float, name: str) -> None:
    if not 0 < part <= 1:
        raise ValueError(f"{name} is {part}; wanted a part of the whole, above 0 and at most 1.")
