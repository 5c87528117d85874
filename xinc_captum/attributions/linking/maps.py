"""Linear, per-class and Fourier maps."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .moments import Moments, wide
from .ridge import RankReport, Regression, Ridge, Solved

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


class LinearMap(nn.Module):
    r"""One ridge regression.

    .. math:: \hat w = B r + b

    Attributes:
        weight: B, (latent_dim, units).
        bias: b, (latent_dim,).

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__()
        self.regression = Regression(r.shape[1], w.shape[1], ridge=ridge, device=r.device)
        self.solved: Solved | None = None
        self.register_buffer("weight", torch.zeros_like(self.moments.rw.T))
        self.register_buffer("bias", torch.zeros_like(self.moments.w_mean))

    @property
    def moments(self) -> Moments:
        """Moments of all pairs."""
        return self.regression.moments

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Take in a chunk of pairs."""
        self.regression.add(r, w)

    def merge(self, other: LinearMap) -> None:
        """Take in what another map has seen."""
        self.regression.merge(other.regression)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Fill in weight and bias; how well determined they are, and the λ that was taken."""
        self.solved = self.regression.solve()
        self.weight, self.bias = self.solved.weight, self.solved.bias
        return self.solved.path.report, {"all": self.solved.ridge}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents of representations, (n, units) → (n, latent_dim)."""
        return nn.functional.linear(r, self.weight.to(r.dtype), self.bias.to(r.dtype))

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Change of w when a unit rises by one and no other moves, (k, latent_dim)."""
        return self.weight[:, units].T

    def left_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """PRESS: what each pair is given without itself."""
        return (self.solved or self.regression.solve()).left_out(r, w)

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        return self.regression.tensors()

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> LinearMap:
        """A map as :meth:`tensors` gave it."""
        regression = Regression.restored(tensors, ridge)
        own = cls(regression.moments.r_mean[None], regression.moments.w_mean[None], ridge)
        own.regression = regression
        return own


class PerClassMap(nn.Module):
    r"""One ridge regression a class, each with its own λ.

    .. math:: \hat w = B_c r + b_c

    Attributes:
        weight: B_c, (classes, latent_dim, units).
        bias: b_c, (classes, latent_dim).
        class_ids: which class each row is of, (classes,).
    """

    weight: Tensor
    bias: Tensor
    class_ids: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__()
        self.ridge = ridge
        self.moments = Moments(r.shape[1], w.shape[1], r.device)
        self.regressions: dict[int, Regression] = {}
        self.solved: dict[int, Solved] = {}
        for name in ("weight", "bias"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64, device=r.device))
        self.register_buffer("class_ids", torch.zeros(0, dtype=torch.long, device=r.device))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Take in a chunk of pairs.

        Raises:
            ValueError: without their classes.
        """
        classes = _wanted(classes)
        self.moments.add(r, w)
        for c in classes.unique().tolist():
            rows = classes == c
            self._of(int(c)).add(r[rows.to(r.device)], w[rows.to(w.device)])

    def merge(self, other: PerClassMap) -> None:
        """Take in what another map has seen."""
        self.moments.merge(other.moments)
        for c, regression in other.regressions.items():
            self._of(c).merge(regression)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Fill in weights and biases; the report of the class that is determined worst, and each λ.

        Raises:
            ValueError: a class with too few pairs, or whose units or latents do not vary.
        """
        self.solved = {}
        for c, regression in sorted(self.regressions.items()):
            try:
                self.solved[c] = regression.solve()
            except ValueError as error:
                raise ValueError(f"class {c} cannot be linked on its own: {error}") from error
        self.weight = torch.stack([s.weight for s in self.solved.values()])
        self.bias = torch.stack([s.bias for s in self.solved.values()])
        self.class_ids = torch.tensor(list(self.solved), device=self.weight.device)
        worst = min(self.solved.values(), key=lambda s: s.path.report.rank / s.path.report.alive)
        return worst.path.report, {str(c): s.ridge for c, s in self.solved.items()}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents of representations and their classes, (n, units) → (n, latent_dim).

        Raises:
            ValueError: no classes, or one that the fit never saw.
        """
        classes = _wanted(classes).to(self.class_ids.device)
        answer = r.new_zeros(len(r), self.weight.shape[1])
        for c in classes.unique().tolist():
            rows, at = (classes == c).to(r.device), self._index(int(c))
            weight, bias = self.weight[at].to(r.dtype), self.bias[at].to(r.dtype)
            answer = torch.where(rows[:, None], nn.functional.linear(r, weight, bias), answer)
        return answer

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Change of w when a unit rises by one within its class and no other moves, (k, latent_dim)."""
        if class_ is None:
            raise ValueError("the link has a map for each class; say of which one with class_=.")
        return self.weight[self._index(class_)][:, units].T

    def left_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """PRESS: what each pair is given without itself, by the map of its own class."""
        classes = _wanted(classes)
        answer = torch.zeros(w.shape, dtype=torch.float64, device=self.moments.rr.device)
        for c in classes.unique().tolist():
            rows = classes == c
            solved = self.solved.get(int(c)) or self.regressions[self._known(int(c))].solve()
            answer[rows.to(answer.device)] = solved.left_out(r[rows.to(r.device)], w[rows.to(w.device)])
        return answer

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps."""
        each = {f"class{c}.{k}": v for c, one in self.regressions.items() for k, v in one.tensors().items()}
        return each | {f"all.{k}": v for k, v in self.moments.tensors().items()}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> PerClassMap:
        """A map as :meth:`tensors` gave it."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            owner, _, rest = name.partition(".")
            parts.setdefault(owner, {})[rest] = value
        moments = Moments.restored(parts.pop("all"))
        own = cls(moments.r_mean[None], moments.w_mean[None], ridge)
        own.moments = moments
        own.regressions = {int(k.removeprefix("class")): Regression.restored(v, ridge) for k, v in parts.items()}
        return own

    def _of(self, c: int) -> Regression:
        if c not in self.regressions:
            m = self.moments
            self.regressions[c] = Regression(m.units, m.latent_dim, ridge=self.ridge, device=m.rr.device)
        return self.regressions[c]

    def _known(self, c: int) -> int:
        if c not in self.regressions:
            raise ValueError(f"class {c} is not linked; the fit saw the classes {sorted(self.regressions)}.")
        return c

    def _index(self, c: int) -> int:
        return sorted(self.regressions).index(self._known(c))


def _wanted(classes: Tensor | None) -> Tensor:
    if classes is None:
        raise ValueError(
            "a per_class link wants the class of each row: give classes=, for real pictures what the model predicts."
        )
    return classes


Variant = Literal["linear", "per_class", "fourier_features"]
Map = LinearMap | PerClassMap | FourierMap
KINDS: dict[str, type[LinearMap] | type[PerClassMap] | type[FourierMap]] = {
    "linear": LinearMap,
    "per_class": PerClassMap,
    "fourier_features": FourierMap,
}


def new_map(variant: Variant, r: Tensor, w: Tensor, ridge: Ridge, *, features: int, seed: int) -> Map:
    """A map for pairs like these, the first chunk; it has not taken them in yet."""
    if variant == "linear":
        return LinearMap(r, w, ridge)
    if variant == "per_class":
        return PerClassMap(r, w, ridge)
    return FourierMap(r, w, ridge, features=features, seed=seed)
