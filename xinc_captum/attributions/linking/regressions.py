"""The other kinds of map from representations to latents: one linear map per class, and Fourier features."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn

from ...batch import random_generator
from .moments import LinearMap, Moments, RankReport, Ridge, Solved, group_by_prefix, solve, wide

SAMPLE = 512  # samples from which the width of the kernel is estimated


class PerClassMap(LinearMap):
    """One ridge regression per class, w = B_c r + b_c, each with its own λ.

    ``weight`` is (classes, latent_dim, units), ``bias`` is (classes, latent_dim), ``class_ids`` the class of each.
    """

    class_ids: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge) -> None:
        super().__init__(r, w, ridge)
        self.class_moments: dict[int, Moments] = {}
        self.solutions: dict[int, Solved] = {}
        self.register_buffer("class_ids", torch.zeros(0, dtype=torch.long, device=r.device))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Add a chunk of pairs with classes."""
        classes = _require_classes(classes)
        self.moments.add(r, w)
        for c in classes.unique().tolist():
            rows = classes == c
            self._moments_of(int(c)).add(r[rows.to(r.device)], w[rows.to(w.device)])

    def merge(self, other: Self) -> None:
        """Add the pairs of another map."""
        super().merge(other)
        for c, moments in other.class_moments.items():
            self._moments_of(c).merge(moments)

    def solve(self) -> tuple[RankReport, dict[str, float]]:
        """Set weights and biases; return the report of the class that is determined worst, and each λ."""
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
        """Return the latents of representations and their classes, (n, units) → (n, latent_dim)."""
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
        """Return the prediction for each pair by its class's map, fitted to all other pairs of the class (PRESS)."""
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
    def from_tensors(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> Self:
        """Return the map that :meth:`tensors` describes, not solved yet."""
        groups = group_by_prefix(tensors)
        new = super().from_tensors(groups.pop("all"), ridge)
        new.class_moments = {int(k.removeprefix("class")): Moments.from_tensors(v) for k, v in groups.items()}
        return new

    def _moments_of(self, c: int) -> Moments:
        if c not in self.class_moments:
            self.class_moments[c] = self.moments.blank()
        return self.class_moments[c]

    def _check_class(self, c: int) -> int:
        if c not in self.class_moments:
            raise ValueError(f"class {c} is not linked; the classes of the fit are {sorted(self.class_moments)}.")
        return c

    def _index(self, c: int) -> int:
        return sorted(self.class_moments).index(self._check_class(c))


class FourierMap(LinearMap):
    r"""Kernel ridge regression with a Gaussian kernel, by random Fourier features.

    .. math:: \hat w = B \phi(r) + b, \qquad
        \phi_j(r) = \sqrt{2 / D}\, \cos\Big(\omega_j^\top \frac{r - \bar r}{s} + \beta_j\Big), \quad
        \omega_j \sim N(0, \sigma^{-2} I), \; \beta_j \sim U[0, 2\pi)

    Symbols: D the number of features; r̄ and s the mean and standard deviation of the *first* chunk; σ the median
    distance between its standardised samples. The first chunk fixes all of them, so it should be a fair sample. Streams
    that are merged later must start from the same features (:meth:`LatentLink.blank`).

    Source: Rahimi, Recht 2007, "Random features for large-scale kernel machines".
    """

    centre: Tensor
    frequencies: Tensor
    phases: Tensor

    def __init__(self, r: Tensor, w: Tensor, ridge: Ridge, *, features: int = 1024, seed: int = 0) -> None:
        r = wide(r)
        if len(r) < 2:
            raise ValueError(
                f"the first chunk has {len(r)} pair(s); Fourier features need at least 2, a fair sample of the pairs."
            )
        super().__init__(r, w, ridge)
        generator = random_generator(seed)
        centre, spread = r.mean(0), r.std(0)
        inverse = torch.where((r == r[0]).all(0), 0.0, 1 / spread)  # the rounding of a constant is no spread
        rows = ((r - centre) * inverse)[torch.randperm(len(r), generator=generator)[:SAMPLE].to(r.device)]
        width = float(nn.functional.pdist(rows).median()) or 1.0
        draws = torch.randn(features, r.shape[1], dtype=torch.float64, generator=generator).to(r.device)
        phases = torch.rand(features, dtype=torch.float64, generator=generator).to(r.device) * 2 * math.pi
        self.register_buffer("centre", centre)
        self.register_buffer("frequencies", draws * inverse / width)
        self.register_buffer("phases", phases)
        self.feature_moments = Moments(features, w.shape[1], r.device)  # of the pairs (φ(r), w)
        self.weight = torch.zeros_like(self.feature_moments.rw.T)

    def features(self, r: Tensor) -> Tensor:
        """Return φ(r), (n, units) → (n, features)."""
        centred = r - self.centre.to(r.dtype)  # before the product: a mean may be much larger than its deviation
        angles = nn.functional.linear(centred, self.frequencies.to(r.dtype), self.phases.to(r.dtype))
        return angles.cos() * math.sqrt(2 / len(self.phases))

    def add(self, r: Tensor, w: Tensor, classes: Tensor | None) -> None:
        """Add a chunk of pairs."""
        self.moments.add(r, w)
        self.feature_moments.add(self.features(wide(r)), w)

    def merge(self, other: Self) -> None:
        """Add the pairs of another map; raise ValueError if it has different features."""
        if not all(torch.equal(getattr(self, name).cpu(), getattr(other, name).cpu()) for name in _FEATURES):
            raise ValueError(
                "the links have different Fourier features, because the first chunk of each link fixes them; start "
                "all of them from one link's blank()."
            )
        super().merge(other)
        self.feature_moments.merge(other.feature_moments)

    def blank(self) -> Self:
        """Return a map with these features and no pairs."""
        new = copy.deepcopy(self)
        new.moments, new.feature_moments, new.solution = self.moments.blank(), self.feature_moments.blank(), None
        return new

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the latents of representations, (n, units) → (n, latent_dim)."""
        return super().forward(self.features(r))

    def partial(self, units: Tensor, class_: int | None = None) -> Tensor:
        """Raise ValueError: the map is not linear, so a unit has no single direction."""
        raise ValueError(
            "a fourier_features link is not linear, so a unit has no single partial direction; use kind='marginal' or "
            "'within_class', or change the representation and call the link."
        )

    def leave_one_out(self, r: Tensor, w: Tensor, classes: Tensor | None) -> Tensor:
        """Return the prediction for each pair by the map fitted to all others (PRESS); the features stay the same."""
        return super().leave_one_out(self.features(wide(r)), w, classes)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file stores."""
        features = {name: getattr(self, name) for name in _FEATURES}
        pairs = {f"pairs.{k}": v for k, v in self.moments.tensors().items()}
        return features | pairs | {f"features.{k}": v for k, v in self.feature_moments.tensors().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], ridge: Ridge) -> Self:
        """Return the map that :meth:`tensors` describes, not solved yet."""
        groups = group_by_prefix(tensors)
        moments = Moments.from_tensors(groups["pairs"])
        new = cls(moments.r_mean.expand(2, -1), moments.w_mean[None], ridge, features=len(tensors["phases"]))
        new.moments, new.feature_moments = moments, Moments.from_tensors(groups["features"])
        for name in _FEATURES:
            setattr(new, name, tensors[name])
        return new

    def _regression_moments(self) -> Moments:
        return self.feature_moments


_FEATURES = ("centre", "frequencies", "phases")


def _require_classes(classes: Tensor | None) -> Tensor:
    if classes is None:
        raise ValueError(
            "a per_class link needs the class of each sample; give classes=, for real images the model's predictions."
        )
    return classes


Variant = Literal["linear", "per_class", "fourier_features"]
KINDS: dict[str, type[LinearMap]] = {"linear": LinearMap, "per_class": PerClassMap, "fourier_features": FourierMap}


def new_map(variant: Variant, r: Tensor, w: Tensor, ridge: Ridge, *, features: int, seed: int) -> LinearMap:
    """Return an empty map for pairs of this size; a Fourier map takes its features from them."""
    if variant == "fourier_features":
        return FourierMap(r, w, ridge, features=features, seed=seed)
    return KINDS[variant](r, w, ridge)
