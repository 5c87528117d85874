"""One ridge regression that grows with its pairs and chooses its own λ."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Literal, NamedTuple, SupportsFloat

import torch
from torch import Tensor

from ...metrics.row_hash import mixed, row_hashes
from .moments import Moments, wide
from .ridge import RidgePath

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
        raise ValueError(f"ridge is {ridge!r}; wanted a number >= 0, 'gcv' or 'held_out'.")
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
            rows = mixed(row_hashes(w)).remainder(FIFTH) == 0
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
                f"got {self.moments.n} pair(s), of which {held.n} would be held out to choose the ridge; wanted more "
                "pairs, or ridge='gcv' or a number."
            )
        rest = RidgePath(self.moments.without(held))
        return min(rest.ridges(), key=lambda ridge: rest.error(ridge, held))
