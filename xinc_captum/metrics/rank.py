"""Rank correlation that round-off cannot split."""

from typing import NamedTuple

import torch
from torch import Tensor


class Correlations(NamedTuple):
    """One Spearman coefficient per map, and how many maps were left out: constant ones, and those not finite."""

    values: Tensor
    left_out: int


def spearman(first: Tensor, second: Tensor) -> Correlations:
    r"""Spearman's rank correlation of each row of ``first`` with the same row of ``second``.

    .. math:: \rho = \mathrm{corr}(\mathrm{rank}(a), \mathrm{rank}(b))

    Every row is divided by its largest magnitude and rounded to 1e-6 before ranking, ties share their average rank:
    exact ties (inactive units) that round-off splits would otherwise turn a true 1.0 into 0.7. Rows that are
    constant or not finite on either side have no rank correlation; they are left out and counted.

    Args:
        first: (rows, n), any float dtype; computed in float64.
        second: (rows, n).

    Returns:
        the coefficients of the rows that are left, (k,), and how many rows were left out.

    Raises:
        ValueError: shapes differ or are not (rows, n).

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 15.0]])).values
        tensor([0.5000], dtype=torch.float64)

    Source: Spearman 1904; average ranks as in Kendall 1945.
    """
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"got shapes {tuple(first.shape)} and {tuple(second.shape)}; wanted the same (rows, n) twice.")
    ranks = [average_ranks(_rounded(side)) for side in (first, second)]
    centred = [r - r.mean(1, keepdim=True) for r in ranks]
    lengths = [c.norm(dim=1) for c in centred]
    kept = (lengths[0] > 0) & (lengths[1] > 0)
    values = ((centred[0] * centred[1]).sum(1) / (lengths[0] * lengths[1]))[kept]
    return Correlations(values, int((~kept).sum()))


def _rounded(rows: Tensor) -> Tensor:
    """Rows in units of their largest magnitude, rounded; nan throughout where a value is not finite."""
    rows = rows.detach().double()
    rows = rows.masked_fill(~rows.isfinite().all(1, keepdim=True), torch.nan)
    largest = rows.abs().amax(1, keepdim=True)
    return torch.where(largest > 0, rows / largest.clamp_min(torch.finfo(torch.float64).tiny), rows).round(decimals=6)


def average_ranks(rows: Tensor) -> Tensor:
    """Ranks 1 … n within each row, ties at their average: (rows, n); nan throughout for a row with nan.

    Example:
        >>> average_ranks(torch.tensor([[5.0, 1.0, 5.0]]))
        tensor([[2.5000, 1.0000, 2.5000]], dtype=torch.float64)
    """
    ordered = rows.contiguous().sort(1).values
    below = torch.searchsorted(ordered, rows.contiguous())
    upto = torch.searchsorted(ordered, rows.contiguous(), right=True)
    return ((below + upto + 1).double() / 2).masked_fill(rows.isnan().any(1, keepdim=True), torch.nan)


def rank_vectors(rows: Tensor) -> Tensor:
    r"""Ranks as vectors of length one: the dot product of two is their Spearman correlation.

    .. math:: \rho(a, b) = v(a) \cdot v(b)

    For many against many, where :func:`spearman` takes rows in pairs; values are rounded as there.

    Args:
        rows: (…, n), any float dtype.

    Returns:
        (…, n), float64; nan for rows that are constant or not finite, which have no rank correlation.

    Example:
        >>> v = rank_vectors(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 15.0]]))
        >>> round(float(v[0] @ v[1]), 6)
        0.5
    """
    flat = rows.reshape(-1, rows.shape[-1])
    ranks = average_ranks(_rounded(flat))
    centred = ranks - ranks.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    vectors: Tensor = (centred / length.where(length > 0, torch.nan)).reshape(rows.shape)
    return vectors


class Agreement(NamedTuple):
    """How alike two sets of canvases rank pixels (mean over units) and units.

    ``spatial`` is nan where every map is constant; ``left_out`` counts the constant maps.
    """

    spatial: float
    total: float
    left_out: int


def canvas_agreement(maps: Tensor, truth: Tensor) -> Agreement:
    """Spearman agreement of canvases: within maps over pixels, and between units over totals.

    A map is Σ_channel |c|; spatial = mean over units of ρ(map, true map) over pixels; total = ρ over units of
    Σ_pixels map.

    Args:
        maps: (units, channels, pixels).
        truth: (units, channels, pixels); its channels may differ in number.

    Example:
        >>> maps = torch.rand(4, 3, 50)
        >>> canvas_agreement(maps, 2 * maps).total
        1.0
    """
    flat = [side.abs().sum(1) for side in (maps, truth)]
    spatial, left_out = spearman(*flat)
    total, _ = spearman(*(side.double().sum(1)[None] for side in flat))
    mean = float(spatial.mean()) if len(spatial) else float("nan")
    return Agreement(mean, round(float(total[0]), 12) if len(total) else float("nan"), left_out)
