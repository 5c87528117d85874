"""Streaming statistics of pairs, and the linear map that they determine by ridge regression."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from ...metrics.links import mix_bits, row_hashes

Ridge = float | Literal["gcv"]
MAX_SPREAD = 1e5  # ratio of the largest to the smallest standard deviation of units, above which units are scaled
_EPS = torch.finfo(torch.float64).eps


def wide(values: Tensor) -> Tensor:
    """Return the values detached and in float64, on their device (on the CPU if that device has no float64)."""
    device = "cpu" if values.device.type == "mps" else values.device
    return values.detach().to(device).to(torch.float64)


class Moments:
    r"""Streaming first and second moments of pairs (r, w), in float64.

    .. math:: S_{rr} = \sum_i (r_i - \bar r)(r_i - \bar r)^\top, \quad S_{rw} = \sum_i (r_i - \bar r)(w_i - \bar w)^\top

    Two sets of moments are merged by S = S_a + S_b + n_a n_b / (n_a + n_b) δ δᵀ with δ = r̄_b − r̄_a, which subtracts
    no large numbers, so chunks and shards in any order equal one pass except for rounding.

    Attributes:
        rr, rw, ww: S_rr (units, units), S_rw (units, latent_dim), and the diagonal of S_ww.
        r_min, r_max: (units,), exact.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    def __init__(self, units: int, latent_dim: int, device: torch.device | str = "cpu") -> None:
        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        self.n = 0
        self.r_mean, self.w_mean = zeros(units), zeros(latent_dim)
        self.rr, self.rw, self.ww = zeros(units, units), zeros(units, latent_dim), zeros(latent_dim)
        self.r_min, self.r_max = zeros(units) + torch.inf, zeros(units) - torch.inf

    @property
    def units(self) -> int:
        """Length of r."""
        return len(self.r_mean)

    @property
    def latent_dim(self) -> int:
        """Length of w."""
        return len(self.w_mean)

    @property
    def alive(self) -> Tensor:
        """(units,) bool: whether each unit has more than one value."""
        return (self.r_max > self.r_min) & (self.rr.diagonal() > 0)

    @property
    def latent_constant(self) -> Tensor:
        """(latent_dim,) bool: whether each latent is constant, except for rounding."""
        return self.ww <= self.n * (_EPS * self.n * self.w_mean).square()

    @property
    def r_sd(self) -> Tensor:
        """(units,) standard deviations of the units, with n − 1 in the denominator."""
        return (self.rr.diagonal() / max(self.n - 1, 1)).clamp_min(0).sqrt()

    def blank(self) -> Moments:
        """Return moments of the same sizes without pairs."""
        return Moments(self.units, self.latent_dim, self.rr.device)

    def add(self, r: Tensor, w: Tensor) -> None:
        """Add a chunk of pairs, (n, units) and (n, latent_dim), any float dtype."""
        if not len(r):
            return
        r, w = wide(r).to(self.rr.device), wide(w).to(self.rr.device)
        r_mean, w_mean = _mean(r), _mean(w)
        rc, wc = r - r_mean, w - w_mean
        self._merge(len(r), r_mean, w_mean, rc.T @ rc, rc.T @ wc, wc.square().sum(0), r.amin(0), r.amax(0))

    def merge(self, other: Moments) -> None:
        """Add the pairs of other moments; raise ValueError if they have other sizes."""
        if (other.units, other.latent_dim) != (self.units, self.latent_dim):
            raise ValueError(
                f"got moments of ({other.units} units, {other.latent_dim} latents) to merge into moments of "
                f"({self.units}, {self.latent_dim}); expected the same sizes."
            )
        if other.n:
            self._merge(other.n, *(getattr(other, name).to(self.rr.device) for name in _MOMENTS))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        return {"n": torch.tensor(self.n)} | {name: getattr(self, name) for name in _MOMENTS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """Return the moments that :meth:`tensors` describes; the tensors are copied."""
        moments = cls(0, 0)
        moments.n = int(tensors["n"])
        for name in _MOMENTS:
            setattr(moments, name, tensors[name].clone())
        return moments

    def _merge(
        self, n: int, r_mean: Tensor, w_mean: Tensor, rr: Tensor, rw: Tensor, ww: Tensor, low: Tensor, high: Tensor
    ) -> None:
        total = self.n + n
        dr, dw, share = r_mean - self.r_mean, w_mean - self.w_mean, self.n * n / total
        self.rr += rr
        self.rr.addr_(dr, dr, alpha=share)
        self.rw += rw
        self.rw.addr_(dr, dw, alpha=share)
        self.ww += ww + share * dw.square()
        self.r_mean = self.r_mean + dr * (n / total)
        self.w_mean = self.w_mean + dw * (n / total)
        self.r_min, self.r_max = torch.minimum(self.r_min, low), torch.maximum(self.r_max, high)
        self.n = total


_MOMENTS = ("r_mean", "w_mean", "rr", "rw", "ww", "r_min", "r_max")


def _mean(rows: Tensor) -> Tensor:
    """Return the mean of each column, exact for a constant column, whose rounding would count as variation."""
    return torch.where((rows == rows[0]).all(0), rows[0], rows.mean(0))


class ClassMeans:
    r"""Streaming means of each class, in float64.

    .. math:: B_{rw} = \sum_c n_c (\bar r_c - \bar r)(\bar w_c - \bar w)^\top

    The scatter of all pairs (:class:`Moments`) minus this is the scatter within classes.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.r_means: dict[int, Tensor] = {}
        self.w_means: dict[int, Tensor] = {}

    def add(self, r: Tensor, w: Tensor, classes: Tensor) -> None:
        """Add a chunk of pairs and their classes, (n,)."""
        r, w = wide(r), wide(w)
        for c in classes.unique().tolist():
            rows = (classes == c).to(r.device)
            self._merge(int(c), int(rows.sum()), r[rows].mean(0), w[rows].mean(0))

    def merge(self, other: ClassMeans) -> None:
        """Add the pairs of other means."""
        for c, n in other.counts.items():
            self._merge(c, n, other.r_means[c], other.w_means[c])

    def between(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """Return the scatter of the class means around those of all pairs, (units, units) and (units, latent_dim)."""
        means = {name: tensor.to(moments.rr.device) for name, tensor in self.tensors().items()}
        n, r, w = means["counts"].double()[:, None], means["r"] - moments.r_mean, means["w"] - moments.w_mean
        return r.T @ (n * r), r.T @ (n * w)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        classes = sorted(self.counts)
        return {
            "classes": torch.tensor(classes),
            "counts": torch.tensor([self.counts[c] for c in classes]),
            "r": torch.stack([self.r_means[c] for c in classes]),
            "w": torch.stack([self.w_means[c] for c in classes]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ClassMeans:
        """Return the means that :meth:`tensors` describes."""
        means = cls()
        for c, n, r, w in zip(*(tensors[k] for k in ("classes", "counts", "r", "w")), strict=True):
            means._merge(int(c), int(n), r, w)
        return means

    def _merge(self, c: int, n: int, r_mean: Tensor, w_mean: Tensor) -> None:
        before = self.counts.get(c, 0)
        if before:
            share = n / (before + n)
            r_mean = self.r_means[c] + (r_mean.to(self.r_means[c].device) - self.r_means[c]) * share
            w_mean = self.w_means[c] + (w_mean.to(self.w_means[c].device) - self.w_means[c]) * share
        self.counts[c], self.r_means[c], self.w_means[c] = before + n, r_mean, w_mean


class Reservoir:
    """A sample of the rows of a stream: those with the lowest random keys, (at most ``size``, units), float32.

    A row's key is a hash of its values and the seed, so chunks, shards and their order do not change the sample, and a
    repeated row is stored once.

    Source: Cohen, Kaplan 2007, "Summarizing data using bottom-k sketches".
    """

    def __init__(self, size: int = 1024, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        self.rows = torch.empty(0, 0)
        self.keys = torch.empty(0, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Add a chunk, (n, units)."""
        if len(rows):
            self._insert(rows.detach().to(torch.float32), mix_bits(row_hashes(rows) ^ self.seed))

    def merge(self, other: Reservoir) -> None:
        """Add the rows of another reservoir."""
        self.check_mergeable(other)
        if len(other.keys):
            self._insert(other.rows, other.keys)

    def check_mergeable(self, other: Reservoir) -> None:
        """Raise ValueError for another seed or size: a smaller reservoir lacks rows that belong into the larger one."""
        if (other.seed, other.size) != (self.seed, self.size):
            raise ValueError(
                f"got a reservoir of {other.size} rows and seed {other.seed} to merge into one of {self.size} rows and "
                f"seed {self.seed}; expected the same."
            )

    def _insert(self, rows: Tensor, keys: Tensor) -> None:
        if not len(self.keys):
            self.rows, self.keys = rows[:0], keys[:0]
        both = torch.cat([self.keys, keys.to(self.keys.device)])
        unique, inverse = both.unique(return_inverse=True)
        first = torch.full_like(unique, len(both)).scatter_reduce_(
            0, inverse, torch.arange(len(both), device=both.device), "amin"
        )[: self.size]
        self.rows = torch.cat([self.rows, rows.to(self.rows.device)])[first]
        self.keys = both[first]


@dataclass(frozen=True)
class RankReport:
    """How well the pairs determine a linear map.

    Attributes:
        pairs: number of pairs.
        units: units of the layer.
        alive: units that vary over the pairs; the others get no weight.
        rank: number of directions in which the alive units vary.
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

    Raises:
        ValueError: fewer than two pairs, no unit or no latent that varies.
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

    def ridges(self) -> list[float]:
        """Return 0 and 41 λ from rounding to ten times the largest eigenvalue, evenly spaced in the logarithm."""
        if self._graded:
            least, top = (float(edge) for edge in self._rr.diagonal().aminmax())
            steps = torch.logspace(math.log10(least) - 10, math.log10(top) + 1, 41, dtype=torch.float64)
        else:
            steps = torch.logspace(-10, 1, 41, dtype=torch.float64).mul(float(self._values[-1]))
        return [0.0, *steps.tolist()]

    def gcv(self, ridge: float) -> float:
        r"""Return the generalised cross-validation score, an estimate of the leave-one-out error.

        .. math:: \mathrm{GCV} = n\, \mathrm{RSS}_\lambda / (n - \mathrm{tr} H_\lambda)^2, \qquad
            \mathrm{tr} H_\lambda = 1 + \sum_k e_k / (e_k + \lambda)

        Symbols: n the number of pairs, RSS the residual sum of squares, H the hat matrix, e_k the eigenvalues of S_rr.

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
        matrix.diagonal().fill_(1)  # exactly what (S_rr + λ) · scale² would be without rounding
        if len(self._values) == len(scale) and self._values[0] > 1e-9:  # far from rounding: Cholesky is faster
            inverse: Tensor = torch.linalg.inv(torch.linalg.cholesky(matrix))
            return scale[:, None] * inverse.T
        values, vectors = self._decompose(matrix)
        root: Tensor = scale[:, None] * vectors * values.rsqrt()
        return root


class UndeterminedError(ValueError):
    """Without one of its pairs, a map is undetermined in some direction."""


class Solved(NamedTuple):
    """A ridge regression: weight (latent_dim, units), bias (latent_dim,), λ, and the path it was computed from."""

    weight: Tensor
    bias: Tensor
    ridge: float
    path: RidgePath

    def leave_one_out(self, r: Tensor, w: Tensor) -> Tensor:
        r"""Return the exact prediction for each fitted pair by the map fitted to all others (PRESS), in float64.

        .. math:: \hat w_{(-i)} = w_i - (w_i - \hat w_i) / (1 - h_{ii}), \qquad h_{ii} \text{ the leverage of pair } i

        Raises:
            ValueError: these are not the fitted pairs.
            UndeterminedError: without one of the pairs, the map is undetermined in some direction.

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


def solve(moments: Moments, ridge: Ridge) -> Solved:
    """Choose λ if ``ridge`` is ``"gcv"``, and return the ridge regression of w on r."""
    path = RidgePath(moments)
    value = min(path.ridges(), key=path.gcv) if ridge == "gcv" else float(ridge)
    return Solved(*path.solution(value), value, path)


class LinearMap(nn.Module):
    r"""One ridge regression, w = B r + b, and what the other kinds of map share.

    ``weight`` is B, (latent_dim, units), ``bias`` is b, (latent_dim,), and ``moments`` are those of all pairs added.

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__()
        self.ridge = ridge
        self.moments = Moments(r.shape[1], w.shape[1], r.device)
        self.solution: Solved | None = None
        self.register_buffer("weight", torch.zeros_like(self.moments.rw.T))
        self.register_buffer("bias", torch.zeros_like(self.moments.w_mean))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Add a chunk of pairs."""
        self.moments.add(r, w)

    def merge(self, other: Self) -> None:
        """Add the pairs of another map of this kind."""
        self.moments.merge(other.moments)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Set weight and bias; return how well the pairs determine them, and the λ used."""
        self.solution = solve(self._regression_moments(), self.ridge)
        self.weight, self.bias = self.solution.weight, self.solution.bias
        return self.solution.path.report, {"all": self.solution.ridge}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the latents of representations, (n, units) → (n, latent_dim)."""
        return nn.functional.linear(r, self.weight.to(r.dtype), self.bias.to(r.dtype))

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Return the change of w per unit change of one unit, all others fixed, (k, latent_dim)."""
        return self.weight[:, units].T

    def leave_one_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """Return the prediction for each pair by the map fitted to all others (PRESS)."""
        return (self.solution or solve(self._regression_moments(), self.ridge)).leave_one_out(r, w)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        return self.moments.tensors()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> Self:
        """Return the map that :meth:`tensors` describes, not solved yet."""
        moments = Moments.from_tensors(tensors)
        new = cls(moments.r_mean[None], moments.w_mean[None], ridge)
        new.moments = moments
        return new

    def _regression_moments(self) -> Moments:
        """Return the moments of the pairs that the regression is fitted to."""
        return self.moments


def group_by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return {"a": {"b": …}} of {"a.b": …}; names without a dot are left out."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        if rest:
            groups.setdefault(group, {})[rest] = value
    return groups
