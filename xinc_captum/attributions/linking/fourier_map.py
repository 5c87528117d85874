"""A curved link that is still solved in closed form: ridge regression on random Fourier features."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .moments import Moments, wide
from .regression import Regression, Ridge, Solved
from .ridge import RankReport

SAMPLE = 512  # rows from which the width of the kernel is taken


class FourierMap(nn.Module):
    r"""Kernel ridge regression under a Gaussian kernel, by random features.

    .. math:: \hat w = B \phi(r) + b, \qquad
        \phi_j(r) = \sqrt{2 / D}\, \cos\Big(\omega_j^\top \frac{r - \bar r}{s} + \beta_j\Big), \quad
        \omega_j \sim N(0, \sigma^{-2} I), \; \beta_j \sim U[0, 2\pi)

    Symbols: D the number of features; r̄ and s mean and standard deviation of the *first* chunk, σ the median distance
    between its standardised rows. They are settled with the first chunk, so that it should be a fair sample; streams
    that are to be merged must start from the same features (:meth:`LatentLink.blank`).

    Attributes:
        weight: B, (latent_dim, D).
        bias: b, (latent_dim,).

    Source: Rahimi, Recht 2007, "Random features for large-scale kernel machines".
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor
    frequencies: Tensor
    phases: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge, *, features: int = 1024, seed: int = 0) -> None:
        super().__init__()
        r = wide(r)
        if len(r) < 2:
            raise ValueError(f"the first chunk has {len(r)} pair(s); Fourier features want a fair sample of the pairs.")
        generator = torch.Generator().manual_seed(seed)
        centre, spread = r.mean(0), r.std(0)
        inverse = torch.where((r == r[0]).all(0), 0.0, 1 / spread)  # rounding is no spread
        rows = ((r - centre) * inverse)[torch.randperm(len(r), generator=generator)[:SAMPLE].to(r.device)]
        width = float(nn.functional.pdist(rows).median()) or 1.0
        draws = torch.randn(features, r.shape[1], dtype=torch.float64, generator=generator).to(r.device)
        phases = torch.rand(features, dtype=torch.float64, generator=generator).to(r.device) * 2 * math.pi
        self.regression = Regression(features, w.shape[1], ridge=ridge, device=r.device)
        self.moments = Moments(r.shape[1], w.shape[1], r.device)
        self.solved: Solved | None = None
        for name, value in (
            ("centre", centre),
            ("frequencies", draws * inverse / width),
            ("phases", phases),
            ("weight", torch.zeros_like(self.regression.moments.rw.T)),
            ("bias", torch.zeros_like(self.moments.w_mean)),
        ):
            self.register_buffer(name, value)

    def features(self, r: Tensor) -> Tensor:
        """φ, (n, units) → (n, features)."""
        away = r - self.centre.to(r.dtype)  # before the product: a mean may be large beside its deviation
        turned = nn.functional.linear(away, self.frequencies.to(r.dtype), self.phases.to(r.dtype))
        return turned.cos() * math.sqrt(2 / len(self.phases))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Take in a chunk of pairs."""
        self.moments.add(r, w)
        self.regression.add(self.features(wide(r)), w)

    def merge(self, other: FourierMap) -> None:
        """Take in what another map has seen.

        Raises:
            ValueError: its features are others.
        """
        if not all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(self._own(), other._own(), strict=True)):
            raise ValueError(
                "the links have other Fourier features, which come from the first chunk each of them saw; start all "
                "of them from one link's blank()."
            )
        self.moments.merge(other.moments)
        self.regression.merge(other.regression)

    def blank(self) -> FourierMap:
        """A map with these features that has seen no pairs."""
        new = copy.deepcopy(self)
        m, ridge = self.moments, self.regression.ridge
        new.moments, new.solved = Moments(m.units, m.latent_dim, m.rr.device), None
        new.regression = Regression(len(self.phases), m.latent_dim, ridge=ridge, device=m.rr.device)
        return new

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Fill in weight and bias; how well determined they are (in features), and the λ that was taken."""
        self.solved = self.regression.solve()
        self.weight, self.bias = self.solved.weight, self.solved.bias
        return self.solved.path.report, {"all": self.solved.ridge}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents of representations, (n, units) → (n, latent_dim)."""
        return nn.functional.linear(self.features(r), self.weight.to(r.dtype), self.bias.to(r.dtype))

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Refused: a curved map has no one direction a unit."""
        raise ValueError(
            "a fourier_features link is curved, so that a unit has no one partial direction; take kind='marginal' or "
            "'within_class', or change the representation and call the link."
        )

    def left_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """PRESS: what each pair is given without itself, with the features as they are."""
        return (self.solved or self.regression.solve()).left_out(self.features(wide(r)), w)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        own = {name: getattr(self, name) for name in ("centre", "frequencies", "phases")}
        pairs = {f"pairs.{k}": v for k, v in self.moments.tensors().items()}
        return own | pairs | {f"features.{k}": v for k, v in self.regression.tensors().items()}

    def _own(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.centre, self.frequencies, self.phases

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> FourierMap:
        """A map as :meth:`tensors` gave it."""
        parts: dict[str, dict[str, Tensor]] = {"pairs": {}, "features": {}}
        for name, value in tensors.items():
            owner, _, rest = name.partition(".")
            if rest:
                parts[owner][rest] = value
        moments = Moments.restored(parts["pairs"])
        own = cls(moments.r_mean.expand(2, -1), moments.w_mean[None], ridge, features=len(tensors["phases"]))
        own.moments, own.regression = moments, Regression.restored(parts["features"], ridge)
        own.centre, own.frequencies, own.phases = (tensors[k] for k in ("centre", "frequencies", "phases"))
        return own
