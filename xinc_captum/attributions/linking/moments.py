"""Streaming statistics of pairs: moments, class means, and a sample of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...metrics.links import mix_bits, row_hashes


def wide(values: Tensor) -> Tensor:
    """Return the values detached and in float64, on their device (on the CPU if that device has no float64)."""
    device = "cpu" if values.device.type == "mps" else values.device
    return values.detach().to(device).to(torch.float64)


class Moments:
    r"""Streaming first and second moments of pairs (r, w), in float64.

    .. math:: S_{rr} = \sum_i (r_i - \bar r)(r_i - \bar r)^\top, \quad S_{rw} = \sum_i (r_i - \bar r)(w_i - \bar w)^\top

    Chunks and shards may be added in any order. Two sets of moments are merged by

    .. math:: S = S_a + S_b + \tfrac{n_a n_b}{n_a + n_b}\, \delta \delta^\top, \quad \delta = \bar r_b - \bar r_a

    which subtracts no large numbers, so the result equals that of one pass except for rounding.

    Args:
        units: length of r.
        latent_dim: length of w.
        device: of the moments.

    Attributes:
        n: number of pairs.
        r_mean, w_mean: (units,), (latent_dim,).
        rr, rw: S_rr (units, units), S_rw (units, latent_dim).
        ww: the diagonal of S_ww, (latent_dim,).
        r_min, r_max: (units,), exact.

    Example:
        >>> moments = Moments(1, 1)
        >>> moments.add(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [2.0]]))
        >>> float(moments.rr), float(moments.rw)
        (2.0, 2.0)

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
        return self.ww <= self.n * (torch.finfo(torch.float64).eps * self.n * self.w_mean).square()

    @property
    def r_sd(self) -> Tensor:
        """(units,) standard deviations, with n − 1."""
        return (self.rr.diagonal() / max(self.n - 1, 1)).clamp_min(0).sqrt()

    def add(self, r: Tensor, w: Tensor) -> None:
        """Add a chunk of pairs, (n, units) and (n, latent_dim), any float dtype."""
        if not len(r):
            return
        r, w = wide(r).to(self.rr.device), wide(w).to(self.rr.device)
        self._merge(len(r), *_chunk_moments(r, w), r.amin(0), r.amax(0))

    def merge(self, other: Moments) -> None:
        """Add the pairs of other moments.

        Raises:
            ValueError: pairs of another size.
        """
        if (other.units, other.latent_dim) != (self.units, self.latent_dim):
            raise ValueError(
                f"got moments of ({other.units} units, {other.latent_dim} latents) to merge into moments of "
                f"({self.units}, {self.latent_dim}); expected the same sizes."
            )
        if other.n:
            self._merge(other.n, *(getattr(other, name).to(self.rr.device) for name in _TENSORS))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        return {"n": torch.tensor(self.n)} | {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """Return the moments that :meth:`tensors` describes; the tensors are copied."""
        moments = cls(0, 0)
        moments.n = int(tensors["n"])
        for name in _TENSORS:
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


_TENSORS = ("r_mean", "w_mean", "rr", "rw", "ww", "r_min", "r_max")


def _chunk_moments(r: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r_mean, w_mean = _mean(r), _mean(w)
    rc, wc = r - r_mean, w - w_mean
    return r_mean, w_mean, rc.T @ rc, rc.T @ wc, wc.square().sum(0)


def _mean(rows: Tensor) -> Tensor:
    """Return the mean of each column, exact for a constant column, because its rounding is divided by later."""
    return torch.where((rows == rows[0]).all(0), rows[0], rows.mean(0))


class Between(NamedTuple):
    """Scatter of class means: (units, units) and (units, latent_dim)."""

    rr: Tensor
    rw: Tensor


class ClassMeans:
    r"""Streaming means of each class, in float64.

    .. math:: B_{rw} = \sum_c n_c (\bar r_c - \bar r)(\bar w_c - \bar w)^\top

    The scatter of all pairs (:class:`Moments`) minus this is the scatter within classes.

    Attributes:
        counts: class → number of pairs.
        r_means, w_means: class → (units,), (latent_dim,).

    Example:
        >>> means = ClassMeans()
        >>> means.add(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1), torch.tensor([4, 4]))
        >>> means.counts, means.r_means[4]
        ({4: 2}, tensor([2.], dtype=torch.float64))
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

    def between(self, moments: Moments) -> Between:
        """Return the scatter of the class means around the means of all pairs."""
        classes = sorted(self.counts)
        device = moments.rr.device
        n = torch.tensor([self.counts[c] for c in classes], dtype=torch.float64, device=device)[:, None]
        r = torch.stack([self.r_means[c].to(device) for c in classes]) - moments.r_mean
        w = torch.stack([self.w_means[c].to(device) for c in classes]) - moments.w_mean
        return Between(r.T @ (n * r), r.T @ (n * w))

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

    Args:
        size: number of rows.
        seed: another seed selects other rows.

    Attributes:
        rows: (k, units), lowest key first.
        keys: (k,) int64.

    Example:
        >>> reservoir = Reservoir(2)
        >>> reservoir.add(torch.rand(50, 3))
        >>> reservoir.rows.shape
        torch.Size([2, 3])

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
        """Add the rows of another reservoir.

        Raises:
            ValueError: as :meth:`check_mergeable`.
        """
        self.check_mergeable(other)
        if len(other.keys):
            self._insert(other.rows, other.keys)

    def check_mergeable(self, other: Reservoir) -> None:
        """Check that the rows of another reservoir were selected in the same way.

        Raises:
            ValueError: another seed or size; a smaller reservoir lacks rows that belong into the larger one.
        """
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
