"""Streaming moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ...metrics.links import mix_bits, row_hashes


def wide(values: Tensor) -> Tensor:
    """The values in float64 and out of the graph, on their own device (on the CPU where that device has no float64)."""
    device = "cpu" if values.device.type == "mps" else values.device
    return values.detach().to(device).to(torch.float64)


class Moments:
    r"""Streaming first and second moments of pairs (r, w), in float64.

    .. math:: S_{rr} = \sum_i (r_i - \bar r)(r_i - \bar r)^\top, \quad S_{rw} = \sum_i (r_i - \bar r)(w_i - \bar w)^\top

    Chunks and shards may come in any order: two sets of moments are merged by

    .. math:: S = S_a + S_b + \tfrac{n_a n_b}{n_a + n_b}\, \delta \delta^\top, \quad \delta = \bar r_b - \bar r_a

    which subtracts nothing large, so that the answer is that of one pass but for rounding.

    Args:
        units: length of r.
        latent_dim: length of w.
        device: where the moments live.

    Attributes:
        n: pairs seen.
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
        """(units,) bool: whether a unit took more than one value."""
        return (self.r_max > self.r_min) & (self.rr.diagonal() > 0)

    @property
    def latent_constant(self) -> Tensor:
        """(latent_dim,) bool: whether a latent never varied, but for rounding."""
        return self.ww <= self.n * (torch.finfo(torch.float64).eps * self.n * self.w_mean).square()

    @property
    def r_sd(self) -> Tensor:
        """(units,) standard deviations, with n − 1."""
        return (self.rr.diagonal() / max(self.n - 1, 1)).clamp_min(0).sqrt()

    def add(self, r: Tensor, w: Tensor) -> None:
        """Take in a chunk of pairs, (n, units) and (n, latent_dim), any float dtype."""
        if not len(r):
            return
        r, w = wide(r).to(self.rr.device), wide(w).to(self.rr.device)
        self._merge(len(r), *_centred_moments(r, w), r.amin(0), r.amax(0))

    def merge(self, other: Moments) -> None:
        """Take in what another stream has seen.

        Raises:
            ValueError: the other is of pairs of another size.
        """
        if (other.units, other.latent_dim) != (self.units, self.latent_dim):
            raise ValueError(
                f"got moments of ({other.units} units, {other.latent_dim} latents) to merge into moments of "
                f"({self.units}, {self.latent_dim}); expected the same sizes."
            )
        if other.n:
            held = {name: value.to(self.rr.device) for name, value in other.tensors().items()}
            self._merge(other.n, *(held[name] for name in _TENSORS))

    def without(self, part: Moments) -> Moments:
        """The moments of all pairs but those of ``part``, whose pairs must be among ours."""
        rest = Moments(self.units, self.latent_dim, self.rr.device)
        rest.n = self.n - part.n
        if not rest.n:
            return rest
        rest.r_mean = (self.n * self.r_mean - part.n * part.r_mean) / rest.n
        rest.w_mean = (self.n * self.w_mean - part.n * part.w_mean) / rest.n
        share = part.n * rest.n / self.n
        dr, dw = part.r_mean - rest.r_mean, part.w_mean - rest.w_mean
        rest.rr = self.rr - part.rr - share * torch.outer(dr, dr)
        rest.rw = self.rw - part.rw - share * torch.outer(dr, dw)
        rest.ww = self.ww - part.ww - share * dw.square()
        # A unit that varies among the pairs of ``part`` alone leaves the rounding of the subtraction.
        still = rest.rr.diagonal() <= torch.finfo(torch.float64).eps * self.n * self.rr.diagonal()
        rest.rr[still], rest.rr[:, still], rest.rw[still] = 0.0, 0.0, 0.0
        rest.r_min, rest.r_max = self.r_min.clone(), self.r_max.clone()
        return rest

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        return {"n": torch.tensor(self.n)} | {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """Moments as :meth:`tensors` gave them, which go on without changing those."""
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


def _centred_moments(r: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r_mean, w_mean = _mean(r), _mean(w)
    rc, wc = r - r_mean, w - w_mean
    return r_mean, w_mean, rc.T @ rc, rc.T @ wc, wc.square().sum(0)


def _mean(rows: Tensor) -> Tensor:
    """The mean of each column, which is exact where all values are equal: nothing may be divided by its rounding."""
    return torch.where((rows == rows[0]).all(0), rows[0], rows.mean(0))


class Between(NamedTuple):
    """The scatter of class means: (units, units) and (units, latent_dim)."""

    rr: Tensor
    rw: Tensor


class ClassMeans:
    r"""Streaming means of each class, in float64.

    .. math:: B_{rw} = \sum_c n_c (\bar r_c - \bar r)(\bar w_c - \bar w)^\top

    What :class:`Moments` hold of all pairs, less this, is the scatter within classes.

    Attributes:
        counts: pairs of each class seen.
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
        """Take in a chunk of pairs and their classes, (n,)."""
        r, w = wide(r), wide(w)
        for c in classes.unique().tolist():
            rows = (classes == c).to(r.device)
            self._merge(int(c), int(rows.sum()), r[rows].mean(0), w[rows].mean(0))

    def merge(self, other: ClassMeans) -> None:
        """Take in what another stream has seen."""
        for c, n in other.counts.items():
            self._merge(c, n, other.r_means[c], other.w_means[c])

    def between(self, moments: Moments) -> Between:
        """The scatter of the class means around the means of all pairs."""
        kept = sorted(self.counts)
        device = moments.rr.device
        n = torch.tensor([self.counts[c] for c in kept], dtype=torch.float64, device=device)[:, None]
        r = torch.stack([self.r_means[c].to(device) for c in kept]) - moments.r_mean
        w = torch.stack([self.w_means[c].to(device) for c in kept]) - moments.w_mean
        return Between(r.T @ (n * r), r.T @ (n * w))

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        kept = sorted(self.counts)
        return {
            "classes": torch.tensor(kept),
            "counts": torch.tensor([self.counts[c] for c in kept]),
            "r": torch.stack([self.r_means[c] for c in kept]),
            "w": torch.stack([self.w_means[c] for c in kept]),
        }

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> ClassMeans:
        """Means as :meth:`tensors` gave them."""
        own = cls()
        for c, n, r, w in zip(*(tensors[k] for k in ("classes", "counts", "r", "w")), strict=True):
            own._merge(int(c), int(n), r, w)
        return own

    def _merge(self, c: int, n: int, r_mean: Tensor, w_mean: Tensor) -> None:
        before = self.counts.get(c, 0)
        if before:
            share = n / (before + n)
            r_mean = self.r_means[c] + (r_mean.to(self.r_means[c].device) - self.r_means[c]) * share
            w_mean = self.w_means[c] + (w_mean.to(self.w_means[c].device) - self.w_means[c]) * share
        self.counts[c], self.r_means[c], self.w_means[c] = before + n, r_mean, w_mean


class Reservoir:
    """The rows of a stream with the lowest random keys, (at most ``size``, units), float32.

    A row's key is a hash of its values and the seed, so that chunks, shards and their order make no difference, and a
    row that comes twice is kept once.

    Args:
        size: rows kept.
        seed: another seed keeps other rows.

    Attributes:
        rows: (k, units), lowest key first.
        keys: (k,) int64.

    Example:
        >>> kept = Reservoir(2)
        >>> kept.add(torch.rand(50, 3))
        >>> kept.rows.shape
        torch.Size([2, 3])

    Source: Cohen, Kaplan 2007, "Summarizing data using bottom-k sketches".
    """

    def __init__(self, size: int = 1024, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        self.rows = torch.empty(0, 0)
        self.keys = torch.empty(0, dtype=torch.int64)

    def add(self, rows: Tensor) -> None:
        """Take in a chunk, (n, units)."""
        if len(rows):
            self._take(rows.detach().to(torch.float32), mix_bits(row_hashes(rows) ^ self.seed))

    def merge(self, other: Reservoir) -> None:
        """Take in what another reservoir kept.

        Raises:
            ValueError: as :meth:`check_alike`.
        """
        self.check_alike(other)
        if len(other.keys):
            self._take(other.rows, other.keys)

    def check_alike(self, other: Reservoir) -> None:
        """Let reservoirs be merged only if their rows were chosen alike.

        Raises:
            ValueError: another seed, or another size: of a smaller one's stream too few rows would be among the lowest.
        """
        if (other.seed, other.size) != (self.seed, self.size):
            raise ValueError(
                f"got a reservoir of {other.size} rows and seed {other.seed} to merge into one of {self.size} rows and "
                f"seed {self.seed}; expected the same."
            )

    def _take(self, rows: Tensor, keys: Tensor) -> None:
        if not len(self.keys):
            self.rows, self.keys = rows[:0], keys[:0]
        both = torch.cat([self.keys, keys.to(self.keys.device)])
        alone, where = both.unique(return_inverse=True)
        first = torch.full_like(alone, len(both)).scatter_reduce_(
            0, where, torch.arange(len(both), device=both.device), "amin"
        )[: self.size]
        self.rows = torch.cat([self.rows, rows.to(self.rows.device)])[first]
        self.keys = both[first]
