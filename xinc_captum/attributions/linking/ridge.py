"""Ridge path, GCV, leave-one-out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal, NamedTuple, SupportsFloat

import torch
from torch import Tensor

from ...metrics.links import mix_bits, row_hashes
from .moments import Moments, wide

SPREADS = 1e5  # largest over smallest standard deviation of units up to which nothing is scaled


@dataclass(frozen=True)
class RankReport:
    """How well the pairs determine a linear map.

    Attributes:
        pairs: pairs seen.
        units: units of the layer.
        alive: units that vary over the pairs; the others are left out.
        rank: directions of the alive units that vary.
        effective_rank: exp of the entropy of the spectrum: how many directions carry it. Where the standard
            deviations of units differ by more than 1e5, the spectrum is that of standardised units.
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
    left out, and directions whose eigenvalue is rounding are never divided by, so that λ = 0 gives the least of all
    least-squares maps.

    Rounding is relative to the largest eigenvalue. Where the standard deviations of units differ by more than 1e5, each
    λ is therefore solved with every unit on its own scale, D (D (S_rr + λ) D)⁻¹ D S_rw with D = diag(S_rr + λ)^(-1/2),
    and the least map at λ = 0 is that of standardised units. Below 1e5, rounding costs at most about 1e5² · 2e-16 =
    2e-6 of a unit's weight, and nothing is scaled.

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
            raise ValueError(f"got {moments.n} pair(s) to link; expected at least 2, better ten times the units.")
        self.moments = moments
        self.alive = moments.alive
        if not self.alive.any():
            raise ValueError(
                f"none of the {moments.units} units varies over the {moments.n} pairs, so nothing can be linked; are "
                "the pictures all alike, or is the layer dead?"
            )
        constant = moments.latent_constant
        if constant.all():
            raise ValueError(
                f"none of the {moments.latent_dim} latents varies over the {moments.n} pairs, so there is nothing to "
                "link to; is the truncation 0?"
            )
        self._rr, self._rw = moments.rr[self.alive][:, self.alive], moments.rw[self.alive]
        spread = self._rr.diagonal().sqrt()
        self._graded = bool(spread.max() > SPREADS * spread.min())
        self._values, self._vectors = self._decomposed(
            self._rr / spread[:, None] / spread if self._graded else self._rr
        )
        self._rotated = self._rw if self._graded else self._vectors.T @ self._rw
        share = self._values / self._values.sum()
        self.report = RankReport(
            moments.n,
            moments.units,
            int(self.alive.sum()),
            len(self._values),
            float((-(share * share.log()).sum()).exp()),
            float(self._values[-1] / self._values[0]),
            int(constant.sum()),
        )

    def solution(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight (latent_dim, units), zero for dead units, and bias (latent_dim,) at one λ."""
        m = self.moments
        # Contiguous, as a loaded link's: products round by the layout.
        weight = torch.zeros(m.latent_dim, m.units, dtype=m.rr.dtype, device=m.rr.device)
        if self._graded:
            root = self._root(ridge)
            weight[:, self.alive] = (root @ (root.T @ self._rw)).T
        else:
            weight[:, self.alive] = (self._vectors @ (self._rotated / (self._values + ridge)[:, None])).T
        return weight, m.w_mean - weight @ m.r_mean

    def ridges(self, count: int = 41) -> list[float]:
        """λ from rounding to ten times the largest eigenvalue, in even steps of its logarithm, after 0."""
        if self._graded:
            least, top = (float(edge) for edge in self._rr.diagonal().aminmax())
            steps = torch.logspace(math.log10(least) - 10, math.log10(top) + 1, count, dtype=torch.float64).tolist()
        else:
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
        if self._graded:
            root = self._root(ridge)  # Pᵀ S_rr P = 1 − λ Pᵀ P
            left = n - 1 - (root.shape[1] - ridge * float(root.square().sum()))
        else:
            left = n - 1 - float((e / (e + ridge)).sum())
        if left < 0.5:
            return float("inf")
        if self._graded:
            along = root.T @ self._rw
            explained = along.square().sum() + ridge * (root @ along).square().sum()
        else:
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
        away = (r - self.moments.r_mean)[:, self.alive]
        if self._graded:
            drawn: Tensor = (away @ self._root(ridge)).square().sum(1)
        else:
            drawn = ((away @ self._vectors).square() / (self._values + ridge)).sum(1)
        return drawn + 1 / self.moments.n

    def _decomposed(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues and vectors of a symmetric matrix, without those that are rounding."""
        values, vectors = torch.linalg.eigh(matrix)
        kept = values > values[-1] * _EPS * max(self.moments.n, len(values))
        return values[kept], vectors[:, kept]

    def _root(self, ridge: float) -> Tensor:
        """P with P Pᵀ = (S_rr + λ)⁻¹, computed on the scale of each unit; without directions that are rounding."""
        scale = (self._rr.diagonal() + ridge).rsqrt()
        matrix = self._rr * scale[:, None] * scale
        matrix.diagonal().fill_(1)  # (S_rr + λ) beside scale²
        if len(self._values) == len(scale) and self._values[0] > 1e-9:  # far from rounding: the quicker way
            inverse: Tensor = torch.linalg.inv(torch.linalg.cholesky(matrix))
            return scale[:, None] * inverse.T
        values, vectors = self._decomposed(matrix)
        root: Tensor = scale[:, None] * vectors * values.rsqrt()
        return root


_EPS = torch.finfo(torch.float64).eps


Ridge = float | Literal["gcv", "held_out"]
FIFTH = 5  # one pair in so many is held out to choose λ, and comes back for the fit


class UndeterminedError(ValueError):
    """Without one of its pairs, a map says nothing of some direction."""


class Solved(NamedTuple):
    """A regression's answer: weight (latent_dim, units), bias (latent_dim,), λ, and the path it was taken from."""

    weight: Tensor
    bias: Tensor
    ridge: float
    path: RidgePath

    def left_out(self, r: Tensor, w: Tensor) -> Tensor:
        r"""What each fitted pair would be given by the map that was fitted to all others (PRESS), exactly.

        .. math:: \hat w_{(-i)} = w_i - (w_i - \hat w_i) / (1 - h_{ii})

        Args:
            r: the very pairs of the fit, (n, units), in any order.
            w: (n, latent_dim).

        Returns:
            (n, latent_dim), float64.

        Raises:
            UndeterminedError: a pair alone decides about some direction.
            ValueError: these are not the fitted pairs.

        Source: Allen 1974, "The relationship between variable selection and data augmentation".
        """
        r, w = wide(r), wide(w)
        m = self.path.moments
        spread = (m.ww / m.n).sqrt()  # of each latent, and the rounding of its mean
        apart = (w.mean(0) - m.w_mean).abs() > 1e-6 * spread + 1e-12 * m.w_mean.abs()
        if len(w) != m.n or bool(apart.any()):
            raise ValueError(
                f"got {len(w)} pairs that are not the {m.n} pairs of the fit; leaving one out wants the very same."
            )
        left = 1 - self.path.leverage(r, self.ridge)
        alone = (left < 1e-9).nonzero()[:, 0]
        if len(alone):
            raise UndeterminedError(
                f"pair {int(alone[0])} (one of {len(alone)}) alone decides about some direction, so that without it "
                "nothing can be said of it; give ridge > 0, or more pairs."
            )
        return w - (w - r @ self.weight.T - self.bias) / left[:, None]


def checked_ridge(ridge: Ridge) -> Ridge:
    """``ridge`` as it is, if it can be one.

    Raises:
        ValueError: neither a number >= 0 nor one of the two names.
    """
    named = ridge in ("gcv", "held_out")
    if not named and (
        isinstance(ridge, str | bool) or not isinstance(ridge, SupportsFloat) or not 0 <= float(ridge) < inf
    ):
        raise ValueError(f"ridge is {ridge!r}; expected a number >= 0, 'gcv' or 'held_out'.")
    return ridge


class Regression:
    """Moments of (r, w), and under ``"held_out"`` those of every fifth pair apart.

    Which pairs are held out is read from a hash of their latents, so that chunks and shards make no difference and
    repeated latents are never on both sides.

    Example:
        >>> regression = Regression(1, 1, ridge=0.0)
        >>> regression.add(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]]))
        >>> regression.solve().weight
        tensor([[2.]], dtype=torch.float64)
    """

    def __init__(self, units: int, latent_dim: int, *, ridge: Ridge, device: torch.device | str = "cpu") -> None:
        self.ridge = checked_ridge(ridge)
        self.moments = Moments(units, latent_dim, device)
        self.held = Moments(units, latent_dim, device) if ridge == "held_out" else None

    def add(self, r: Tensor, w: Tensor) -> None:
        """Take in a chunk."""
        self.moments.add(r, w)
        if self.held is not None:
            rows = mix_bits(row_hashes(w)).remainder(FIFTH) == 0
            self.held.add(r[rows.to(r.device)], w[rows])

    def merge(self, other: Regression) -> None:
        """Take in what another regression has seen."""
        self.moments.merge(other.moments)
        if self.held is not None and other.held is not None:
            self.held.merge(other.held)

    def solve(self) -> Solved:
        """Choose λ and solve.

        Raises:
            ValueError: as :class:`RidgePath`; under ``"held_out"``, too few pairs to hold any out.
        """
        path = RidgePath(self.moments)
        ridge = self._chosen(path)
        return Solved(*path.solution(ridge), ridge, path)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        held = {} if self.held is None else {f"held_{k}": v for k, v in self.held.tensors().items()}
        return self.moments.tensors() | held

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> Regression:
        """A regression as :meth:`tensors` gave it."""
        own = cls(0, 0, ridge=ridge)
        own.moments = Moments.restored(tensors)
        if own.held is not None:
            own.held = Moments.restored({k.removeprefix("held_"): v for k, v in tensors.items() if "held_" in k})
        return own

    def _chosen(self, path: RidgePath) -> float:
        if self.ridge == "gcv":
            return min(path.ridges(), key=path.gcv)
        held = self.held
        if held is None:
            return float(self.ridge)
        if held.n < 2 or self.moments.n - held.n < 2:
            raise ValueError(
                f"got {self.moments.n} pair(s), of which {held.n} would be held out to choose the ridge; expected more "
                "pairs, or ridge='gcv' or a number."
            )
        rest = RidgePath(self.moments.without(held))
        return min(rest.ridges(), key=lambda ridge: rest.error(ridge, held))
