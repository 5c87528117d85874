"""Whether a single unit can be told from the others at all."""

import torch
from torch import Tensor


def tolerance(covariance: Tensor) -> Tensor:
    r"""The share of each unit's variance that no other unit explains: 1 / VIF.

    .. math:: t_u = \frac{1}{C_{uu}\, (C^{-1})_{uu}} = 1 - R^2(r_u \mid \text{other units})

    Near 0, the partial coefficient of the unit is a matter of chance: other units could stand in for it.

    Args:
        covariance: C, (units, units), of representations.

    Returns:
        (units,), float64; 0 where others determine the unit exactly, nan where it does not vary.

    Raises:
        ValueError: no square matrix.

    Example:
        >>> tolerance(torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
        tensor([0.6400, 0.6400], dtype=torch.float64)

    Source: Belsley, Kuh, Welsch 1980, "Regression diagnostics".
    """
    if covariance.dim() != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"covariance has shape {tuple(covariance.shape)}; wanted (units, units).")
    device = "cpu" if covariance.device.type == "mps" else covariance.device
    c = covariance.detach().to(device).to(torch.float64)
    alive = c.diagonal() > 0
    answer = torch.full_like(c.diagonal(), torch.nan)
    if not alive.any():
        return answer
    sd = c.diagonal()[alive].sqrt()
    values, vectors = torch.linalg.eigh(c[alive][:, alive] / sd[:, None] / sd)
    floor = torch.finfo(torch.float64).eps * len(values) * values[-1]
    # A direction without variance is a sum of units that is always the same: each unit in it follows from the others.
    tied = vectors[:, values <= floor].square().sum(1) > 1e-9
    kept = values > floor
    own = 1 / (vectors[:, kept].square() / values[kept]).sum(1)
    answer[alive] = torch.where(tied, 0.0, own.clamp(0, 1))
    return answer


def unit_agreement(first: Tensor, second: Tensor) -> Tensor:
    r"""Pearson's correlation of each unit with itself in a second reading of the same rows.

    .. math:: \rho_u = \mathrm{corr}_i(r_{iu}, r'_{iu})

    Args:
        first: r, (n, units).
        second: r', likewise, as re-encoded from the linked pictures.

    Returns:
        (units,), float64; nan where a unit does not vary on one side.

    Raises:
        ValueError: shapes differ or are not (n, units).

    Example:
        >>> round(float(unit_agreement(torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [0.0]]))), 6)
        -1.0
    """
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"got shapes {tuple(first.shape)} and {tuple(second.shape)}; wanted the same (n, units).")
    a, b = (side.detach().cpu().to(torch.float64) for side in (first, second))
    still = (a == a[:1]).all(0) | (b == b[:1]).all(0)  # rounding of the mean is no variation
    a, b = a - a.mean(0), b - b.mean(0)
    length = torch.where(still, 0.0, a.norm(dim=0) * b.norm(dim=0))
    correlation: Tensor = (a * b).sum(0) / length.where(length > 0, torch.nan)
    return correlation
