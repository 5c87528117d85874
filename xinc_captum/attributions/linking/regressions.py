"""The three kinds of map from representations to latents: linear, one per class, Fourier features."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .moments import Moments, wide
from .ridge import RankReport, Ridge, Solved, check_ridge, solve

SAMPLE = 512  # samples from which the width of the kernel is estimated


class LinearMap(nn.Module):
    r"""One ridge regression.

    .. math:: \hat w = B r + b

    Attributes:
        weight: B, (latent_dim, units).
        bias: b, (latent_dim,).
        moments: of all pairs added.

    Source: Wehrheim et al., "Linking in Style" (arXiv 2409.16865).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__()
        self.ridge = check_ridge(ridge)
        self.moments = Moments(r.shape[1], w.shape[1], r.device)
        self.solution: Solved | None = None
        self.register_buffer("weight", torch.zeros_like(self.moments.rw.T))
        self.register_buffer("bias", torch.zeros_like(self.moments.w_mean))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Add a chunk of pairs."""
        self.moments.add(r, w)

    def merge(self, other: LinearMap) -> None:
        """Add the pairs of another map."""
        self.moments.merge(other.moments)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Set weight and bias; return how well the pairs determine them, and the λ used."""
        self.solution = solve(self.moments, self.ridge)
        self.weight, self.bias = self.solution.weight, self.solution.bias
        return self.solution.path.report, {"all": self.solution.ridge}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the latents of representations, (n, units) → (n, latent_dim)."""
        return nn.functional.linear(r, self.weight.to(r.dtype), self.bias.to(r.dtype))

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Return the change of w per unit change of one unit, all others fixed, (k, latent_dim)."""
        return self.weight[:, units].T

    def leave_one_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """Return the prediction for each pair by the map of all others (PRESS)."""
        return (self.solution or solve(self.moments, self.ridge)).leave_one_out(r, w)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        return self.moments.tensors()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> LinearMap:
        """Return the map that :meth:`tensors` describes, not solved yet."""
        moments = Moments.from_tensors(tensors)
        new = cls(moments.r_mean[None], moments.w_mean[None], ridge)
        new.moments = moments
        return new


class PerClassMap(nn.Module):
    r"""One ridge regression per class, each with its own λ.

    .. math:: \hat w = B_c r + b_c

    Attributes:
        weight: B_c, (classes, latent_dim, units).
        bias: b_c, (classes, latent_dim).
        class_ids: the class of each entry, (classes,).
        moments: of all pairs added.
        class_moments: class → moments of its pairs.
    """

    weight: Tensor
    bias: Tensor
    class_ids: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__()
        self.ridge = check_ridge(ridge)
        self.moments = Moments(r.shape[1], w.shape[1], r.device)
        self.class_moments: dict[int, Moments] = {}
        self.solutions: dict[int, Solved] = {}
        for name in ("weight", "bias"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64, device=r.device))
        self.register_buffer("class_ids", torch.zeros(0, dtype=torch.long, device=r.device))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Add a chunk of pairs.

        Raises:
            ValueError: no classes.
        """
        classes = _require_classes(classes)
        self.moments.add(r, w)
        for c in classes.unique().tolist():
            rows = classes == c
            self._moments_of(int(c)).add(r[rows.to(r.device)], w[rows.to(w.device)])

    def merge(self, other: PerClassMap) -> None:
        """Add the pairs of another map."""
        self.moments.merge(other.moments)
        for c, moments in other.class_moments.items():
            self._moments_of(c).merge(moments)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Set weights and biases; return the report of the class that is determined worst, and each λ.

        Raises:
            ValueError: a class with too few pairs, or whose units or latents do not vary.
        """
        self.solutions = {}
        for c, moments in sorted(self.class_moments.items()):
            try:
                self.solutions[c] = solve(moments, self.ridge)
            except ValueError as error:
                raise ValueError(f"class {c} cannot be linked on its own: {error}") from error
        self.weight = torch.stack([s.weight for s in self.solutions.values()])
        self.bias = torch.stack([s.bias for s in self.solutions.values()])
        self.class_ids = torch.tensor(list(self.solutions), device=self.weight.device)
        worst = min(self.solutions.values(), key=lambda s: s.path.report.rank / s.path.report.alive)
        return worst.path.report, {str(c): s.ridge for c, s in self.solutions.items()}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the latents of representations and their classes, (n, units) → (n, latent_dim).

        Raises:
            ValueError: no classes, or one that the pairs do not have.
        """
        classes = _require_classes(classes).to(self.class_ids.device)
        latents = r.new_zeros(len(r), self.weight.shape[1])
        for c in classes.unique().tolist():
            rows, index = (classes == c).to(r.device), self._index(int(c))
            weight, bias = self.weight[index].to(r.dtype), self.bias[index].to(r.dtype)
            latents = torch.where(rows[:, None], nn.functional.linear(r, weight, bias), latents)
        return latents

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Return the change of w per unit change of one unit within its class, all others fixed, (k, latent_dim)."""
        if class_ is None:
            raise ValueError("the link has a map for each class; give class_=, the class whose map to use.")
        return self.weight[self._index(class_)][:, units].T

    def leave_one_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """Return the prediction for each pair by its class's map of all others (PRESS)."""
        classes = _require_classes(classes)
        latents = torch.zeros(w.shape, dtype=torch.float64, device=self.moments.rr.device)
        for c in classes.unique().tolist():
            rows = classes == c
            solution = self.solutions.get(int(c)) or solve(self.class_moments[self._check_class(int(c))], self.ridge)
            latents[rows.to(latents.device)] = solution.leave_one_out(r[rows.to(r.device)], w[rows.to(w.device)])
        return latents

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        each = {f"class{c}.{k}": v for c, one in self.class_moments.items() for k, v in one.tensors().items()}
        return each | {f"all.{k}": v for k, v in self.moments.tensors().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> PerClassMap:
        """Return the map that :meth:`tensors` describes, not solved yet."""
        groups = _group_by_prefix(tensors)
        moments = Moments.from_tensors(groups.pop("all"))
        new = cls(moments.r_mean[None], moments.w_mean[None], ridge)
        new.moments = moments
        new.class_moments = {int(k.removeprefix("class")): Moments.from_tensors(v) for k, v in groups.items()}
        return new

    def _moments_of(self, c: int) -> Moments:
        if c not in self.class_moments:
            m = self.moments
            self.class_moments[c] = Moments(m.units, m.latent_dim, m.rr.device)
        return self.class_moments[c]

    def _check_class(self, c: int) -> int:
        if c not in self.class_moments:
            raise ValueError(f"class {c} is not linked; the classes of the fit are {sorted(self.class_moments)}.")
        return c

    def _index(self, c: int) -> int:
        return sorted(self.class_moments).index(self._check_class(c))


class FourierMap(nn.Module):
    r"""Kernel ridge regression with a Gaussian kernel, by random Fourier features.

    .. math:: \hat w = B \phi(r) + b, \qquad
        \phi_j(r) = \sqrt{2 / D}\, \cos\Big(\omega_j^\top \frac{r - \bar r}{s} + \beta_j\Big), \quad
        \omega_j \sim N(0, \sigma^{-2} I), \; \beta_j \sim U[0, 2\pi)

    Symbols: D the number of features; r̄ and s the mean and standard deviation of the *first* chunk; σ the median
    distance between its standardised samples. The first chunk fixes all of them, so it should be a fair sample. Streams
    that are merged later must start from the same features (:meth:`LatentLink.blank`).

    Attributes:
        weight: B, (latent_dim, D).
        bias: b, (latent_dim,).
        moments: of all pairs added.
        feature_moments: of the pairs (φ(r), w).

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
            raise ValueError(
                f"the first chunk has {len(r)} pair(s); Fourier features need at least 2, a fair sample of the pairs."
            )
        generator = torch.Generator().manual_seed(seed)
        centre, spread = r.mean(0), r.std(0)
        inverse = torch.where((r == r[0]).all(0), 0.0, 1 / spread)  # the rounding of a constant is no spread
        rows = ((r - centre) * inverse)[torch.randperm(len(r), generator=generator)[:SAMPLE].to(r.device)]
        width = float(nn.functional.pdist(rows).median()) or 1.0
        draws = torch.randn(features, r.shape[1], dtype=torch.float64, generator=generator).to(r.device)
        phases = torch.rand(features, dtype=torch.float64, generator=generator).to(r.device) * 2 * math.pi
        self.ridge = check_ridge(ridge)
        self.feature_moments = Moments(features, w.shape[1], r.device)
        self.moments = Moments(r.shape[1], w.shape[1], r.device)
        self.solution: Solved | None = None
        for name, value in (
            ("centre", centre),
            ("frequencies", draws * inverse / width),
            ("phases", phases),
            ("weight", torch.zeros_like(self.feature_moments.rw.T)),
            ("bias", torch.zeros_like(self.moments.w_mean)),
        ):
            self.register_buffer(name, value)

    def features(self, r: Tensor) -> Tensor:
        """Return φ(r), (n, units) → (n, features)."""
        centred = r - self.centre.to(r.dtype)  # before the product: a mean may be large beside its deviation
        angles = nn.functional.linear(centred, self.frequencies.to(r.dtype), self.phases.to(r.dtype))
        return angles.cos() * math.sqrt(2 / len(self.phases))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Add a chunk of pairs."""
        self.moments.add(r, w)
        self.feature_moments.add(self.features(wide(r)), w)

    def merge(self, other: FourierMap) -> None:
        """Add the pairs of another map.

        Raises:
            ValueError: the other map has different features.
        """
        names = ("centre", "frequencies", "phases")
        if not all(torch.equal(getattr(self, name).cpu(), getattr(other, name).cpu()) for name in names):
            raise ValueError(
                "the links have different Fourier features, because the first chunk of each link fixes them; start "
                "all of them from one link's blank()."
            )
        self.moments.merge(other.moments)
        self.feature_moments.merge(other.feature_moments)

    def blank(self) -> FourierMap:
        """Return a map with these features and no pairs."""
        new = copy.deepcopy(self)
        m = self.moments
        new.moments, new.solution = Moments(m.units, m.latent_dim, m.rr.device), None
        new.feature_moments = Moments(len(self.phases), m.latent_dim, m.rr.device)
        return new

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Set weight and bias; return how well the pairs determine them (in features), and the λ used."""
        self.solution = solve(self.feature_moments, self.ridge)
        self.weight, self.bias = self.solution.weight, self.solution.bias
        return self.solution.path.report, {"all": self.solution.ridge}

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the latents of representations, (n, units) → (n, latent_dim)."""
        return nn.functional.linear(self.features(r), self.weight.to(r.dtype), self.bias.to(r.dtype))

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Raise ValueError: the map is not linear, so a unit has no single direction."""
        raise ValueError(
            "a fourier_features link is not linear, so a unit has no single partial direction; use kind='marginal' or "
            "'within_class', or change the representation and call the link."
        )

    def leave_one_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """Return the prediction for each pair by the map of all others (PRESS); the features stay the same."""
        return (self.solution or solve(self.feature_moments, self.ridge)).leave_one_out(self.features(wide(r)), w)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        features = {name: getattr(self, name) for name in ("centre", "frequencies", "phases")}
        pairs = {f"pairs.{k}": v for k, v in self.moments.tensors().items()}
        return features | pairs | {f"features.{k}": v for k, v in self.feature_moments.tensors().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> FourierMap:
        """Return the map that :meth:`tensors` describes, not solved yet."""
        groups = _group_by_prefix(tensors)
        moments = Moments.from_tensors(groups["pairs"])
        new = cls(moments.r_mean.expand(2, -1), moments.w_mean[None], ridge, features=len(tensors["phases"]))
        new.moments, new.feature_moments = moments, Moments.from_tensors(groups["features"])
        new.centre, new.frequencies, new.phases = (tensors[k] for k in ("centre", "frequencies", "phases"))
        return new


def _group_by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return {"a": {"b": …}} of {"a.b": …}; names without a dot are left out."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        if rest:
            groups.setdefault(group, {})[rest] = value
    return groups


def _require_classes(classes: Tensor | None) -> Tensor:
    if classes is None:
        raise ValueError(
            "a per_class link needs the class of each sample; give classes=, for real images the model's predictions."
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
    """Return an empty map for pairs of this size; a Fourier map takes its features from them."""
    if variant == "linear":
        return LinearMap(r, w, ridge)
    if variant == "per_class":
        return PerClassMap(r, w, ridge)
    return FourierMap(r, w, ridge, features=features, seed=seed)
