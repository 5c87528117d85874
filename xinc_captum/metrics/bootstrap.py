"""Intervals for figures that are one minus, or simply, a ratio of sums over rows."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """A figure and where it lies in resamples.

    Attributes:
        value: on the rows as they are.
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
    r"""A ratio of sums with a percentile bootstrap interval over rows.

    .. math:: \frac{\sum_i a_i}{\sum_i b_i}, \qquad \text{and again for rows drawn with replacement}

    Accuracy is hits over ones; 1 − R² is squared errors over squared distances to the mean (of all rows). Resamples
    that have nothing below the line are left out.

    Args:
        above: a, (n,).
        below: b, (n,).
        level: share of resamples within the interval.
        repeats: resamples.
        seed: of the resamples.

    Raises:
        ValueError: no rows, shapes that differ, a level outside (0, 1), or no resamples.

    Example:
        >>> ratio_interval(torch.ones(50), torch.ones(50))
        Interval(value=1.0, low=1.0, high=1.0)

    Source: Efron, Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    if above.shape != below.shape or above.dim() != 1 or not len(above):
        raise ValueError(f"got shapes {tuple(above.shape)} and {tuple(below.shape)}; wanted the same (n,), n >= 1.")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a share between 0 and 1.")
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; wanted at least 1 resample.")
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
    """A mean over those values that are numbers, with a percentile bootstrap interval over them; nan without any.

    One number says nothing of others, so its interval is nan.

    Args:
        values: (n,).
        level: share of resamples within the interval.
        repeats: resamples.
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


def flipped(interval: Interval) -> Interval:
    """One minus a figure: from an unexplained share to an explained one.

    Example:
        >>> flipped(Interval(0.25, 0.0, 0.5))
        Interval(value=0.75, low=0.5, high=1.0)
    """
    return Interval(1 - interval.value, 1 - interval.high, 1 - interval.low)
