"""Rank correlations, bootstrap intervals, false discovery rates, permutation controls, and completeness."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """A value with its bootstrap interval.

    Attributes:
        value: of the original rows.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio_interval(
    above: Tensor, below: Tensor, *, level: float = 0.95, repeats: int = 1000, seed: int = 0
) -> Interval:
    r"""Return a ratio of sums with a percentile bootstrap interval over rows.

    .. math:: \frac{\sum_i a_i}{\sum_i b_i}, \qquad \text{and the same for rows sampled with replacement}

    Accuracy is hits over ones; 1 − R² is squared errors over squared distances to the mean (of all rows). Resamples
    with a denominator of 0 are left out. The resamples are drawn by torch, because results that were recorded before
    must be reproduced exactly; ``scipy.stats.bootstrap`` draws others.

    Args:
        above: a, (n,).
        below: b, (n,).
        level: fraction of resamples within the interval.
        repeats: number of resamples.
        seed: of the resamples.

    Raises:
        ValueError: no rows, shapes that differ, a level outside (0, 1), or no resamples.

    Example:
        >>> ratio_interval(torch.ones(50), torch.ones(50))
        Interval(value=1.0, low=1.0, high=1.0)

    Source: Efron, Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    if above.shape != below.shape or above.dim() != 1 or not len(above):
        raise ValueError(f"got shapes {tuple(above.shape)} and {tuple(below.shape)}; expected the same (n,), n >= 1.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a fraction between 0 and 1.")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected at least 1 resample.")
    sides = torch.stack([above, below]).detach().cpu().to(torch.float64)
    n, generator = len(above), torch.Generator().manual_seed(seed)
    sums = torch.cat(
        [
            sides[:, torch.randint(n, (min(50, repeats - done), n), generator=generator)].sum(2)
            for done in range(0, repeats, 50)
        ],
        dim=1,
    )
    ratios = (sums[0] / sums[1])[sums[1] != 0]
    if not len(ratios):
        return Interval(*[float("nan")] * 3)
    ends = ratios.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return Interval(float(sides[0].sum() / sides[1].sum()), float(ends[0]), float(ends[1]))


def mean_interval(values: Tensor, *, level: float = 0.95, repeats: int = 1000, seed: int = 0) -> Interval:
    """Return the mean of the finite values with a percentile bootstrap interval; nan without any.

    The interval of a single value is nan.

    Args:
        values: (n,).
        level: fraction of resamples within the interval.
        repeats: number of resamples.
        seed: of the resamples.

    Example:
        >>> mean_interval(torch.tensor([2.0, 2.0, torch.nan]))
        Interval(value=2.0, low=2.0, high=2.0)

    Source: as for :func:`ratio_interval`.
    """
    numbers = values[values.isfinite()]
    if len(numbers) < 2:
        return Interval(float(numbers[0]) if len(numbers) else math.nan, math.nan, math.nan)
    return ratio_interval(numbers, torch.ones_like(numbers), level=level, repeats=repeats, seed=seed)


def complement(interval: Interval) -> Interval:
    """Return one minus an interval, for example the explained fraction for an unexplained one.

    Example:
        >>> complement(Interval(0.25, 0.0, 0.5))
        Interval(value=0.75, low=0.5, high=1.0)
    """
    return Interval(1 - interval.value, 1 - interval.high, 1 - interval.low)


def completeness_error(shares: Tensor, output: Tensor) -> Tensor:
    r"""Return the largest difference between the sum of the contributions and the output, relative to the output.

    .. math:: \max |\Sigma_u c_u - y| \, / \, \max |y|

    Args:
        shares: (rows, units, *output_shape), contributions, including the bias remainder if there is one.
        output: (rows, *output_shape).

    Returns:
        a scalar, in float32 or wider.

    Raises:
        ValueError: no rows, or an output of another shape than the contributions without their units.

    Example:
        >>> completeness_error(torch.tensor([[0.5, 0.25]]), torch.tensor([1.0]))
        tensor(0.2500)
    """
    parts, full_output = _check_shapes(shares, output)
    return (parts.sum(1) - full_output).abs().max() / full_output.abs().max().clamp_min(
        torch.finfo(full_output.dtype).tiny
    )


def condition_number(shares: Tensor, output: Tensor) -> Tensor:
    r"""Return the ratio of the total magnitude of the contributions to the magnitude of their sum.

    .. math:: \kappa = \Sigma_u |c_u| \, / \, |y|

    1 means that nothing cancels; log10 κ is the number of digits that are lost by cancellation.

    Args:
        shares: (rows, units, *output_shape), contributions, including the bias remainder if there is one.
        output: (rows, *output_shape).

    Returns:
        (rows, *output_shape), in float32 or wider.

    Raises:
        ValueError: as :func:`completeness_error`.

    Example:
        >>> condition_number(torch.tensor([[2.0, -1.0]]), torch.tensor([1.0]))
        tensor([3.])
    """
    parts, full_output = _check_shapes(shares, output)
    return parts.abs().sum(1) / full_output.abs().clamp_min(torch.finfo(full_output.dtype).tiny)


def _check_shapes(shares: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors in float32 or wider; other shapes raise an error instead of being broadcast."""
    if shares.dim() < 2 or (len(shares), *shares.shape[2:]) != tuple(output.shape) or not output.numel():
        raise ValueError(
            f"shares have shape {tuple(shares.shape)} and output {tuple(output.shape)}; expected (rows, units, "
            "*output_shape) and (rows, *output_shape), for example output[:, target]."
        )
    return _wide(shares), _wide(output)


def _wide(values: Tensor) -> Tensor:
    """Return values in float32 or wider; sums in half precision lose digits or overflow."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def chance_of(observed: Tensor, null: Tensor) -> Tensor:
    r"""Return permutation p-values: how often the null reaches the observed statistic.

    .. math:: p_i = \frac{1 + \#\{j : T^0_j \ge T_i\}}{1 + V}

    Symbols: T the statistic, larger is stronger; T⁰ its V values under the null, pooled over units, which must have the
    same distribution under the null. The smallest p is 1 / (1 + V).

    Args:
        observed: (n,), floats; nan gets p = 1.
        null: (V,), floats; nan are left out.

    Returns:
        (n,), float64.

    Raises:
        ValueError: other shapes, or a null without a finite value.

    Example:
        >>> chance_of(torch.tensor([5.0, 1.5]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([0.2500, 0.7500], dtype=torch.float64)

    Source: Phipson & Smyth, "Permutation p-values should never be zero" (2010).
    """
    valid = null[~null.isnan()].double() if null.dim() == 1 else null
    if observed.dim() != 1 or null.dim() != 1 or not len(valid):
        raise ValueError(
            f"observed has shape {tuple(observed.shape)} and the null {tuple(null.shape)}; expected (n,) and (V,), "
            "with values in the null that are not nan."
        )
    ordered = valid.sort().values
    values = observed.double().nan_to_num(nan=-torch.inf)
    reached = len(ordered) - torch.searchsorted(ordered, values.to(ordered), right=False)
    p = (1 + reached).double() / (1 + len(ordered))
    return p.where(~observed.isnan().to(p.device), 1.0)


def false_discovery_rate(p: Tensor) -> Tensor:
    r"""Return the smallest false discovery rate at which each test is significant (Benjamini-Hochberg).

    .. math:: q_{(i)} = \min_{j \ge i}\, \min\Bigl(1,\; \frac{n\, p_{(j)}}{j}\Bigr)

    Of all tests with q <= .05, at most one in twenty is expected to be false, if the p-values are independent or
    positively dependent.

    Args:
        p: (n,), p-values.

    Returns:
        (n,), float64, in the order of ``p``.

    Raises:
        ValueError: another shape, or values outside [0, 1].

    Example:
        >>> false_discovery_rate(torch.tensor([0.01, 0.5, 0.02]))
        tensor([0.0300, 0.5000, 0.0300], dtype=torch.float64)

    Source: Benjamini & Hochberg, "Controlling the false discovery rate" (1995).
    """
    if p.dim() != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p has shape {tuple(p.shape)}; expected (n,) p-values from 0 to 1.")
    from scipy.stats import false_discovery_control

    return torch.from_numpy(false_discovery_control(p.detach().double().cpu().numpy())).to(p.device)


class Correlations(NamedTuple):
    """Spearman's coefficient of each map, and the number of maps left out, which are constant or not finite."""

    values: Tensor
    left_out: int


def spearman(first: Tensor, second: Tensor) -> Correlations:
    r"""Return Spearman's rank correlation of each row of ``first`` with the same row of ``second``.

    .. math:: \rho = \mathrm{corr}(\mathrm{rank}(a), \mathrm{rank}(b))

    Every row is divided by its largest magnitude and rounded to 1e-6 before ranking; ties get their average rank.
    Otherwise rounding errors would split exact ties (inactive units) and turn a correlation of 1.0 into 0.7. Rows that
    are constant or not finite in either tensor have no rank correlation; they are left out and counted.

    Args:
        first: (rows, n), any float dtype; computed in float64.
        second: (rows, n).

    Returns:
        the coefficients of the remaining rows, (k,), and the number of rows left out.

    Raises:
        ValueError: shapes differ or are not (rows, n).

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 20.0, 15.0]])).values
        tensor([0.5000], dtype=torch.float64)

    Source: Spearman 1904; average ranks as in Kendall 1945.
    """
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(
            f"got shapes {tuple(first.shape)} and {tuple(second.shape)}; expected the same (rows, n) twice."
        )
    ranks = [average_ranks(_round(side)) for side in (first, second)]
    centred = [r - r.mean(1, keepdim=True) for r in ranks]
    lengths = [c.norm(dim=1) for c in centred]
    varying = (lengths[0] > 0) & (lengths[1] > 0)
    values = ((centred[0] * centred[1]).sum(1) / (lengths[0] * lengths[1]))[varying]
    return Correlations(values, int((~varying).sum()))


def _round(rows: Tensor) -> Tensor:
    """Return rows divided by their largest magnitude and rounded; all nan for a row with a value that is not finite."""
    rows = rows.detach().double()
    rows = rows.masked_fill(~rows.isfinite().all(1, keepdim=True), torch.nan)
    largest = rows.abs().amax(1, keepdim=True)
    return torch.where(largest > 0, rows / largest.clamp_min(torch.finfo(torch.float64).tiny), rows).round(decimals=6)


def average_ranks(rows: Tensor) -> Tensor:
    """Return ranks 1 … n within each row, averaged over ties: (rows, n); all nan for a row with nan.

    Example:
        >>> average_ranks(torch.tensor([[5.0, 1.0, 5.0]]))
        tensor([[2.5000, 1.0000, 2.5000]], dtype=torch.float64)
    """
    from scipy.stats import rankdata

    return torch.from_numpy(rankdata(rows.detach().cpu().double().numpy(), axis=1)).to(rows.device)


def rank_vectors(rows: Tensor) -> Tensor:
    r"""Return centred ranks as unit vectors: the dot product of two is their Spearman correlation.

    .. math:: \rho(a, b) = v(a) \cdot v(b)

    Use it to correlate all rows with all others; :func:`spearman` compares rows in pairs. Values are rounded as there.

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
    ranks = average_ranks(_round(flat))
    centred = ranks - ranks.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    vectors: Tensor = (centred / length.where(length > 0, torch.nan)).reshape(rows.shape)
    return vectors


class Agreement(NamedTuple):
    """Rank agreement of two sets of canvases, over pixels (mean over units) and over units.

    ``spatial`` is nan if every map is constant; ``left_out`` counts the constant maps.
    """

    spatial: float
    total: float
    left_out: int


def canvas_agreement(maps: Tensor, truth: Tensor) -> Agreement:
    """Return the Spearman agreement of canvases, of maps over pixels and of totals over units.

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


def shuffle_units(magnitudes: Tensor, generator: torch.Generator) -> Tensor:
    """Return magnitudes permuted over the units at every pixel, which removes the position of each unit.

    Args:
        magnitudes: (units, *size).
        generator: on the magnitudes' device.

    Returns:
        (units, *size); each pixel keeps its values.

    Example:
        >>> shuffle_units(torch.tensor([[1.0], [2.0]]), torch.Generator().manual_seed(0)).sum()
        tensor(3.)
    """
    return _shuffle(magnitudes, 0, generator)


def shuffle_pixels(magnitudes: Tensor, generator: torch.Generator) -> Tensor:
    """Return magnitudes permuted over the pixels for every unit, which removes the overlap of units.

    Args:
        magnitudes: (units, *size).
        generator: on the magnitudes' device.

    Returns:
        (units, *size); each unit keeps its values.

    Example:
        >>> shuffle_pixels(torch.tensor([[1.0, 2.0]]), torch.Generator().manual_seed(0)).sum()
        tensor(3.)
    """
    return _shuffle(magnitudes.flatten(1), 1, generator).view_as(magnitudes)


def shifts(size: tuple[int, ...], repeats: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Return random nonzero offsets for ``torch.roll``, which wraps around the borders.

    Rolling changes only the position, and keeps areas, shapes and smoothness, which random pixels would not.

    Raises:
        ValueError: an image of one pixel, or no repeats.

    Example:
        >>> shifts((1, 2), 2, torch.Generator())
        [(0, 1), (0, 1)]
    """
    pixels = torch.Size(size).numel()
    if pixels < 2 or repeats < 1:
        raise ValueError(f"got {pixels} pixel(s) and {repeats} repeats; a shifted control needs at least 2 and 1.")
    flat = torch.randint(1, pixels, (repeats,), generator=generator, device=generator.device)
    return list(zip(*(axis.tolist() for axis in torch.unravel_index(flat, size)), strict=True))


def shuffle_within(rows: Tensor, classes: Tensor, generator: torch.Generator) -> Tensor:
    """Return rows permuted within classes, which keeps no relation but that to the class.

    Args:
        rows: (n, columns).
        classes: (n,).
        generator: of the permutation.

    Returns:
        (n, columns); each class keeps its rows.

    Raises:
        ValueError: not one class for each row.

    Example:
        >>> shuffle_within(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]), torch.Generator())
        tensor([[1.],
                [2.]])
    """
    if classes.shape != rows.shape[:1]:
        raise ValueError(f"got classes of shape {tuple(classes.shape)} for {len(rows)} rows; expected one a row.")
    order = torch.arange(len(rows))
    for c in classes.unique().cpu():
        members = (classes.cpu() == c).nonzero()[:, 0]
        keys = torch.rand(len(members), generator=generator, device=generator.device).cpu()
        order[members] = members[keys.argsort()]
    return rows[order.to(rows.device)]


def _shuffle(values: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Return values permuted along one dim, independently for every index of the others."""
    keys = torch.rand(values.shape, generator=generator, device=generator.device)
    return values.gather(dim, keys.argsort(dim).to(values.device))
