"""Ridge regression from moments: the path over λ, generalised cross-validation, leave-one-out."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal, NamedTuple, SupportsFloat

import torch
from torch import Tensor

from .moments import Moments, wide

MAX_SPREAD = 1e5  # ratio of the largest to the smallest standard deviation of units, above which units are scaled


@dataclass(frozen=True)
class RankReport:
    """How well the pairs determine a linear map.

    Attributes:
        pairs: number of pairs.
        units: units of the layer.
        alive: units that vary over the pairs; the others get no weight.
        rank: directions of the alive units that vary.
        effective_rank: exp of the entropy of the spectrum, the effective number of directions. If the standard
            deviations of units differ by more than 1e5, the spectrum is that of standardised units.
        condition: ratio of the largest to the smallest eigenvalue above rounding.
        latent_constant: number of constant latents.
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
        """Whether many maps fit the pairs equally well; the one of least norm is used."""
        return self.rank < self.alive

    def __str__(self) -> str:
        text = (
            f"{self.pairs} pairs, {self.alive} of {self.units} units alive, rank {self.rank} "
            f"(effective {self.effective_rank:.1f}, condition {self.condition:.1e})"
        )
        if self.pairs <= self.alive:
            text += f": fewer pairs than the {self.alive} alive units + 1, so the map of least norm is used"
        elif self.deficient:
            text += ": units that depend on one another, so the map of least norm is used"
        return text

    def warn_of_few_pairs(self) -> None:
        """Warn if there are no more pairs than live units; the warning points at the caller's caller."""
        if self.pairs <= self.alive:
            warnings.warn(f"{self}. Make more pairs, or audit the link.", stacklevel=3)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as numbers."""
        return asdict(self)


class RidgePath:
    r"""Ridge regressions of w on r for any number of λ.

    .. math:: \hat B_\lambda = V (E + \lambda)^{-1} V^\top S_{rw}, \qquad S_{rr} = V E V^\top

    λ is added to *sums* of squares and the intercept is not penalised, as in scikit-learn's Ridge. Constant units are
    excluded. Directions whose eigenvalue is rounding are excluded too, so λ = 0 gives the least-squares map of least
    norm.

    Rounding is relative to the largest eigenvalue. If the standard deviations of units differ by more than 1e5, each λ
    is therefore solved with every unit on its own scale, D (D (S_rr + λ) D)⁻¹ D S_rw with D = diag(S_rr + λ)^(-1/2),
    and the map at λ = 0 is that of least norm for standardised units. Below 1e5, rounding costs at most about
    1e5² · 2e-16 = 2e-6 of a unit's weight, and nothing is scaled.

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
                f"none of the {moments.units} units varies over the {moments.n} pairs; expected at least one. "
                "Check that the images differ and that the layer is not dead."
            )
        constant = moments.latent_constant
        if constant.all():
            raise ValueError(
                f"none of the {moments.latent_dim} latents varies over the {moments.n} pairs; expected at least one. "
                "Use a truncation above 0."
            )
        self._rr, self._rw = moments.rr[self.alive][:, self.alive], moments.rw[self.alive]
        spread = self._rr.diagonal().sqrt()
        self._graded = bool(spread.max() > MAX_SPREAD * spread.min())
        self._values, self._vectors = self._decompose(self._rr / spread[:, None] / spread if self._graded else self._rr)
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
        """Return weight (latent_dim, units), zero for dead units, and bias (latent_dim,) for one λ."""
        m = self.moments
        # Contiguous like that of a loaded link, because the rounding of products depends on the layout.
        weight = torch.zeros(m.latent_dim, m.units, dtype=m.rr.dtype, device=m.rr.device)
        if self._graded:
            root = self._root(ridge)
            weight[:, self.alive] = (root @ (root.T @ self._rw)).T
        else:
            weight[:, self.alive] = (self._vectors @ (self._rotated / (self._values + ridge)[:, None])).T
        return weight, m.w_mean - weight @ m.r_mean

    def ridges(self, count: int = 41) -> list[float]:
        """Return 0 and λ from rounding to ten times the largest eigenvalue, evenly spaced in the logarithm."""
        if self._graded:
            least, top = (float(edge) for edge in self._rr.diagonal().aminmax())
            steps = torch.logspace(math.log10(least) - 10, math.log10(top) + 1, count, dtype=torch.float64).tolist()
        else:
            top = float(self._values[-1])
            steps = torch.logspace(-10, 1, count, dtype=torch.float64).mul(top).tolist()
        return [0.0, *steps]

    def gcv(self, ridge: float) -> float:
        r"""Return the generalised cross-validation score, an estimate of the leave-one-out error.

        .. math:: \mathrm{GCV} = n\, \mathrm{RSS}_\lambda / (n - \mathrm{tr} H_\lambda)^2, \qquad
            \mathrm{tr} H_\lambda = 1 + \sum_k e_k / (e_k + \lambda)

        Source: Golub, Heath, Wahba 1979.
        """
        e, n = self._values, self.moments.n
        if self._graded:
            root = self._root(ridge)  # Pᵀ S_rr P = 1 − λ Pᵀ P
            freedom = n - 1 - (root.shape[1] - ridge * float(root.square().sum()))
        else:
            freedom = n - 1 - float((e / (e + ridge)).sum())
        if freedom < 0.5:
            return float("inf")
        if self._graded:
            along = root.T @ self._rw
            explained = along.square().sum() + ridge * (root @ along).square().sum()
        else:
            explained = (self._rotated.square() * ((e + 2 * ridge) / (e + ridge).square())[:, None]).sum()
        return n * max(float(self.moments.ww.sum() - explained), 0.0) / freedom**2

    def leverage(self, r: Tensor, ridge: float) -> Tensor:
        """Return the leverage of fitted pairs, h_ii, (n,), for r (n, units) in float64."""
        centred = (r - self.moments.r_mean)[:, self.alive]
        if self._graded:
            leverage: Tensor = (centred @ self._root(ridge)).square().sum(1)
        else:
            leverage = ((centred @ self._vectors).square() / (self._values + ridge)).sum(1)
        return leverage + 1 / self.moments.n

    def _decompose(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return eigenvalues and vectors of a symmetric matrix, without those that are rounding."""
        values, vectors = torch.linalg.eigh(matrix)
        significant = values > values[-1] * _EPS * max(self.moments.n, len(values))
        return values[significant], vectors[:, significant]

    def _root(self, ridge: float) -> Tensor:
        """Return P with P Pᵀ = (S_rr + λ)⁻¹, on the scale of each unit, without directions that are rounding."""
        scale = (self._rr.diagonal() + ridge).rsqrt()
        matrix = self._rr * scale[:, None] * scale
        matrix.diagonal().fill_(1)  # (S_rr + λ) beside scale²
        if len(self._values) == len(scale) and self._values[0] > 1e-9:  # far from rounding: Cholesky is faster
            inverse: Tensor = torch.linalg.inv(torch.linalg.cholesky(matrix))
            return scale[:, None] * inverse.T
        values, vectors = self._decompose(matrix)
        root: Tensor = scale[:, None] * vectors * values.rsqrt()
        return root


_EPS = torch.finfo(torch.float64).eps


Ridge = float | Literal["gcv"]


class UndeterminedError(ValueError):
    """Without one of its pairs, a map is undetermined in some direction."""


class Solved(NamedTuple):
    """A ridge regression: weight (latent_dim, units), bias (latent_dim,), λ, and the path it was computed from."""

    weight: Tensor
    bias: Tensor
    ridge: float
    path: RidgePath

    def leave_one_out(self, r: Tensor, w: Tensor) -> Tensor:
        r"""Return the exact prediction for each fitted pair by the map fitted to all others (PRESS).

        .. math:: \hat w_{(-i)} = w_i - (w_i - \hat w_i) / (1 - h_{ii})

        Args:
            r: the pairs of the fit, (n, units), in any order.
            w: (n, latent_dim).

        Returns:
            (n, latent_dim), float64.

        Raises:
            UndeterminedError: a single pair determines some direction.
            ValueError: these are not the fitted pairs.

        Source: Allen 1974, "The relationship between variable selection and data augmentation".
        """
        r, w = wide(r), wide(w)
        m = self.path.moments
        spread = (m.ww / m.n).sqrt()  # of each latent
        differs = (w.mean(0) - m.w_mean).abs() > 1e-6 * spread + 1e-12 * m.w_mean.abs()
        if len(w) != m.n or bool(differs.any()):
            raise ValueError(f"got {len(w)} pairs that are not the {m.n} pairs of the fit; give the same pairs.")
        remainder = 1 - self.path.leverage(r, self.ridge)
        single = (remainder < 1e-9).nonzero()[:, 0]
        if len(single):
            raise UndeterminedError(
                f"pair {int(single[0])} (one of {len(single)}) alone determines some direction, so the map without it "
                "is undetermined there; give ridge > 0, or more pairs."
            )
        return w - (w - r @ self.weight.T - self.bias) / remainder[:, None]


def check_ridge(ridge: Ridge) -> Ridge:
    """Return ``ridge`` if it is a number >= 0 or ``"gcv"``.

    Raises:
        ValueError: anything else.
    """
    if ridge != "gcv" and (
        isinstance(ridge, str | bool) or not isinstance(ridge, SupportsFloat) or not 0 <= float(ridge) < inf
    ):
        raise ValueError(f"ridge is {ridge!r}; expected a number >= 0, or 'gcv'.")
    return ridge


def solve(moments: Moments, ridge: Ridge) -> Solved:
    """Choose λ if ``ridge`` is ``"gcv"``, and return the ridge regression of w on r.

    Raises:
        ValueError: as :class:`RidgePath`.

    Example:
        >>> moments = Moments(1, 1)
        >>> moments.add(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]]))
        >>> solve(moments, 0.0).weight
        tensor([[2.]], dtype=torch.float64)
    """
    path = RidgePath(moments)
    value = min(path.ridges(), key=path.gcv) if ridge == "gcv" else float(ridge)
    return Solved(*path.solution(value), value, path)
