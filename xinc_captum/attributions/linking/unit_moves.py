"""Where the latent goes with a unit, and how far a unit goes: read off the moments of the pairs."""

from typing import Literal

import torch
from torch import Tensor

from .class_means import ClassMeans
from .moments import Moments
from .reservoir import Reservoir

Bounds = Literal["minmax", "quantile", "sd"]


def marginal(moments: Moments, units: Tensor) -> Tensor:
    r"""E[w | r_u] as a straight line: Cov(w, r_u) / Var(r_u), (k, latent_dim)."""
    return moments.rw[units] / moments.rr.diagonal()[units, None]


def within_class(moments: Moments, means: ClassMeans | None, units: Tensor) -> Tensor:
    """The same of what is left when each class's means are taken away, (k, latent_dim).

    Raises:
        ValueError: classes are not known, or a unit does not vary within any.
    """
    if means is None:
        raise ValueError("directions within classes want classes; give them to fit().")
    between = means.between(moments)
    variance = (moments.rr - between.rr).diagonal()[units]
    still = (variance <= 1e-12 * moments.rr.diagonal()[units]).nonzero()[:, 0]
    if len(still):
        raise ValueError(f"unit {int(units[still[0]])} does not vary within any class; take kind='marginal'.")
    return (moments.rw - between.rw)[units] / variance[:, None]


def bounds(moments: Moments, kept: Reservoir, units: Tensor, kind: Bounds, tail: float, sds: float) -> Tensor:
    """Lowest and highest value of units, (k, 2); see :meth:`LatentLink.bounds`."""
    ends = torch.stack([moments.r_min[units], moments.r_max[units]], 1)
    if kind == "minmax":
        return ends
    if kind == "quantile":
        if not 0 <= tail < 0.5:
            raise ValueError(f"tail is {tail}; wanted a share in [0, .5).")
        levels = torch.tensor([tail, 1 - tail], device=kept.rows.device)
        return kept.rows[:, units.to(levels.device)].quantile(levels, dim=0).T.to(ends)
    if kind != "sd":
        raise ValueError(f"kind is {kind!r}; wanted 'minmax', 'quantile' or 'sd'.")
    if not sds > 0:
        raise ValueError(f"sds is {sds}; wanted a number of standard deviations above 0.")
    steps = torch.tensor([-sds, sds], dtype=ends.dtype, device=ends.device)
    around = moments.r_mean[units, None] + moments.r_sd[units, None] * steps
    return around.clamp(ends[:, :1], ends[:, 1:])
