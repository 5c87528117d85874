"""The whole ridge path of a link from one eigendecomposition of its moments."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .moments import Moments


@dataclass(frozen=True)
class RankReport:
    """How well the pairs determine a linear map.

    Attributes:
        pairs: pairs seen.
        units: units of the layer.
        alive: units that vary over the pairs; the others are left out.
        rank: directions of the alive units that vary.
        effective_rank: exp of the entropy of the spectrum: how many directions carry it.
        condition: largest over smallest of the eigenvalues kept.
        latent_constant: latents that never vary.
    """

    pairs: int
    units: int
    alive: int
    rank: int
    effective_rank: float
    condition: float
    latent_constant: int

    @property
    def deficient(self) -> bool:
        """Whether many maps fit the pairs equally well, of which the least one is taken."""
        return self.rank < self.alive

    def __str__(self) -> str:
        text = (
            f"{self.pairs} pairs, {self.alive} of {self.units} units alive, rank {self.rank} "
            f"(effective {self.effective_rank:.1f}, condition {self.condition:.1e})"
        )
        if self.pairs <= self.alive:
            text += f": fewer pairs than the {self.alive} alive units + 1, so the map of least norm is taken"
        elif self.deficient:
            text += ": units that depend on one another, so the map of least norm is taken"
        return text

    def warn_of_few_pairs(self) -> None:
        """Say so where there are no more pairs than live units; the warning points at the caller's caller."""
        if self.pairs <= self.alive:
            warnings.warn(f"{self}. Make more pairs, or audit what this one is worth.", stacklevel=3)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


class RidgePath:
    r"""Ridge regressions of w on r for any number of λ.

    .. math:: \hat B_\lambda = V (E + \lambda)^{-1} V^\top S_{rw}, \qquad S_{rr} = V E V^\top

    λ is added to *sums* of squares and the intercept is free, as in scikit-learn's Ridge. Units that do not vary are
    left out, and directions whose eigenvalue is rounding are never divided by, so that λ = 0 answers the least of all
    least-squares maps.

    Args:
        moments: of at least two pairs.

    Attributes:
        alive: (units,) bool.
        report: a :class:`RankReport`.

    Raises:
        ValueError: fewer than two pairs, no unit or no latent that varies.

    Example:
        >>> moments = Moments(1, 1)
        >>> moments.add(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]]))
        >>> [float(x) for x in RidgePath(moments).solution(0.0)]
        [2.0, 1.0]
    """

    def __init__(self, moments: Moments) -> None:
        if moments.n < 2:
            raise ValueError(f"got {moments.n} pair(s) to link; wanted at least 2, better ten times the units.")
        self.moments = moments
        self.alive = moments.alive
        if not self.alive.any():
            raise ValueError(
                f"none of the {moments.units} units varies over the {moments.n} pairs, so nothing can be linked; are "
                "the pictures all alike, or is the layer dead?"
            )
        constant = moments.ww <= moments.n * (_EPS * moments.n * moments.w_mean).square()
        if constant.all():
            raise ValueError(
                f"none of the {moments.latent_dim} latents varies over the {moments.n} pairs, so there is nothing to "
                "link to; is the truncation 0?"
            )
        values, vectors = torch.linalg.eigh(moments.rr[self.alive][:, self.alive])
        kept = values > values[-1] * _EPS * max(moments.n, len(values))
        self._values, self._vectors = values[kept], vectors[:, kept]
        self._rotated = self._vectors.T @ moments.rw[self.alive]
        share = self._values / self._values.sum()
        self.report = RankReport(
            moments.n,
            moments.units,
            int(self.alive.sum()),
            int(kept.sum()),
            float((-(share * share.log()).sum()).exp()),
            float(self._values[-1] / self._values[0]),
            int(constant.sum()),
        )

    def solution(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight (latent_dim, units), zero for dead units, and bias (latent_dim,) at one λ."""
        m = self.moments
        weight = m.rw.new_zeros(m.latent_dim, m.units)  # contiguous, as a loaded link's: products round by the layout
        weight[:, self.alive] = (self._vectors @ (self._rotated / (self._values + ridge)[:, None])).T
        return weight, m.w_mean - weight @ m.r_mean

    def ridges(self, count: int = 41) -> list[float]:
        """λ from rounding to ten times the largest eigenvalue, in even steps of its logarithm, after 0."""
        top = float(self._values[-1])
        steps = torch.logspace(-10, 1, count, dtype=torch.float64).mul(top).tolist()
        return [0.0, *steps]

    def gcv(self, ridge: float) -> float:
        r"""Generalised cross-validation: an estimate of the error on a pair that was left out.

        .. math:: \mathrm{GCV} = n\, \mathrm{RSS}_\lambda / (n - \mathrm{tr} H_\lambda)^2, \qquad
            \mathrm{tr} H_\lambda = 1 + \sum_k e_k / (e_k + \lambda)

        Source: Golub, Heath, Wahba 1979.
        """
        e, n = self._values, self.moments.n
        left = n - 1 - float((e / (e + ridge)).sum())
        if left < 0.5:
            return float("inf")
        explained = (self._rotated.square() * ((e + 2 * ridge) / (e + ridge).square())[:, None]).sum()
        return n * max(float(self.moments.ww.sum() - explained), 0.0) / left**2

    def error(self, ridge: float, other: Moments) -> float:
        """Mean squared error, summed over latents, on pairs of which only the moments are known."""
        weight, bias = self.solution(ridge)
        off = other.w_mean - weight @ other.r_mean - bias
        within = other.ww.sum() - 2 * (weight.T * other.rw).sum() + ((weight @ other.rr) * weight).sum()
        return float(within) / other.n + float(off.square().sum())

    def leverage(self, r: Tensor, ridge: float) -> Tensor:
        """How much each of the fitted pairs draws the map to itself, h_ii, (n,), for r (n, units) in float64."""
        turned = (r - self.moments.r_mean)[:, self.alive] @ self._vectors
        drawn: Tensor = (turned.square() / (self._values + ridge)).sum(1)
        return drawn + 1 / self.moments.n


_EPS = torch.finfo(torch.float64).eps
