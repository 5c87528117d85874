"""Counts and means of pairs class by class: what tells variation between classes from variation within."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .moments import Moments, wide


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
