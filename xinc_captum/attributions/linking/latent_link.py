"""Class LatentLink."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...generators.protocol import Generator
from ...metrics.links import r2, row_hashes
from . import link_file
from .audit import LinkAudit, audited
from .checks import (
    checked_classes,
    checked_pairs,
    checked_representations,
    checked_same_kind,
    checked_sizes,
    checked_units,
)
from .encoder import Encoder
from .maps import KINDS, FourierMap, Map, Variant, new_map
from .moments import ClassMeans, Moments, Reservoir, wide
from .pairs import Pairs
from .ridge import RankReport, Ridge, checked_ridge

Bounds = Literal["minmax", "quantile", "sd"]


def marginal(moments: Moments, units: Tensor) -> Tensor:
    r"""E[w | r_u] as a straight line: Cov(w, r_u) / Var(r_u), (k, latent_dim)."""
    return moments.rw[units] / moments.rr.diagonal()[units, None]


def within_class(moments: Moments, means: ClassMeans | None, units: Tensor) -> Tensor:
    """The same of what is left when each class's means are taken away, (k, latent_dim).

    Raises:
        ValueError: classes are not known, or a unit does not vary within any.
    """
    if means is None:
        raise ValueError("directions within classes want classes; give them to fit().")
    between = means.between(moments)
    variance = (moments.rr - between.rr).diagonal()[units]
    still = (variance <= 1e-12 * moments.rr.diagonal()[units]).nonzero()[:, 0]
    if len(still):
        raise ValueError(f"unit {int(units[still[0]])} does not vary within any class; take kind='marginal'.")
    return (moments.rw - between.rw)[units] / variance[:, None]


def bounds(moments: Moments, kept: Reservoir, units: Tensor, kind: Bounds, tail: float, sds: float) -> Tensor:
    """Lowest and highest value of units, (k, 2); see :meth:`LatentLink.bounds`."""
    ends = torch.stack([moments.r_min[units], moments.r_max[units]], 1)
    if kind == "minmax":
        return ends
    if kind == "quantile":
        if not 0 <= tail < 0.5:
            raise ValueError(f"tail is {tail}; expected a share in [0, .5).")
        levels = torch.tensor([tail, 1 - tail], device=kept.rows.device)
        return kept.rows[:, units.to(levels.device)].quantile(levels, dim=0).T.to(ends)
    if kind != "sd":
        raise ValueError(f"kind is {kind!r}; expected 'minmax', 'quantile' or 'sd'.")
    if not sds > 0:
        raise ValueError(f"sds is {sds}; expected a number of standard deviations above 0.")
    steps = torch.tensor([-sds, sds], dtype=ends.dtype, device=ends.device)
    around = moments.r_mean[units, None] + moments.r_sd[units, None] * steps
    return around.clamp(ends[:, :1], ends[:, 1:])


class UnitReadings:
    """The part of :class:`LatentLink` that reads units off its moments."""

    class_means: ClassMeans | None
    reservoir: Reservoir

    @property
    def moments(self) -> Moments:
        """Moments of all pairs seen."""
        raise NotImplementedError

    def partial(self, units: Tensor, class_: int | None) -> Tensor:
        """Columns of the map."""
        raise NotImplementedError

    def direction(
        self,
        units: int | Sequence[int] | Tensor,
        kind: Literal["marginal", "partial", "within_class"] = "marginal",
        *,
        class_: int | None = None,
    ) -> Tensor:
        r"""Change of w per unit change of r_u.

        .. math:: \text{marginal: } \frac{\mathrm{Cov}(w, r_u)}{\mathrm{Var}(r_u)}, \quad
            \text{within class: the same of } r - \bar r_c, w - \bar w_c, \quad \text{partial: } B_{\cdot u}

        The marginal direction is where w goes when r_u rises *and the other units go along as they usually do*; the
        partial one holds them still, which pictures mostly cannot.

        Args:
            units: one or several.
            kind: one of the three.
            class_: whose map, for ``"partial"`` of a ``"per_class"`` link.

        Returns:
            (k, latent_dim), float64.

        Raises:
            IndexError: a unit out of range.
            ValueError: a dead unit, an unknown kind, or directions within classes without classes.
        """
        index = checked_units(units, self.moments)
        if kind == "marginal":
            return marginal(self.moments, index)
        if kind == "within_class":
            return within_class(self.moments, self.class_means, index)
        if kind != "partial":
            raise ValueError(f"kind is {kind!r}; expected 'marginal', 'partial' or 'within_class'.")
        return self.partial(index, class_)

    def bounds(
        self,
        units: int | Sequence[int] | Tensor,
        kind: Bounds = "minmax",
        *,
        tail: float = 0.05,
        sds: float = 2.0,
    ) -> Tensor:
        """Lowest and highest value that a unit takes over the pairs.

        Args:
            units: one or several.
            kind: ``"minmax"``, exact; ``"quantile"``, from ``tail`` to 1 − ``tail`` of the reservoir; ``"sd"``, the
                mean ± ``sds`` standard deviations, within minmax.
            tail: share left out on each side.
            sds: standard deviations.

        Returns:
            (k, 2), float64.

        Raises:
            IndexError: a unit out of range.
            ValueError: a dead unit, an unknown kind, or a ``tail`` or ``sds`` that cannot be.
        """
        return bounds(self.moments, self.reservoir, checked_units(units, self.moments), kind, tail, sds)

    @property
    def r_mean(self) -> Tensor:
        """(units,) mean of each unit."""
        return self.moments.r_mean

    @property
    def r_sd(self) -> Tensor:
        """(units,) standard deviation of each unit."""
        return self.moments.r_sd

    @property
    def alive(self) -> Tensor:
        """(units,) bool: whether each unit varies over the pairs."""
        return self.moments.alive

    @property
    def covariance(self) -> Tensor:
        """(units, units) covariance of the representations."""
        return self.moments.rr / max(self.moments.n - 1, 1)


class LatentLink(UnitReadings, nn.Module):
    r"""Tells the latent that draws what a classifier represents.

    .. math:: \hat w = B r + b, \qquad (B, b) = \arg\min
        \sum_i \lVert w_i - B r_i - b \rVert^2 + \lambda \lVert B \rVert^2

    Symbols: r a representation (the pooled input of the classifier's last layer, say), w the latent of the picture that
    it represents; pairs come from a generator's own pictures (:func:`make_pairs`). ``"linear"`` is the paper's link;
    ``"per_class"`` has a map a class; ``"fourier_features"`` bends the map without giving up the closed form.

    Args:
        variant: one of the three.
        ridge: λ, added to sums of squares as scikit-learn does; ``"gcv"`` or ``"held_out"`` choose it, the first by
            generalised cross-validation, the second by the error on every fifth pair, which then joins the fit.
        features: Fourier features, of that variant.
        reservoir: how many representations are kept for quantiles.
        seed: of the Fourier features and the reservoir.

    Attributes:
        weight, bias: of the map, float64: (latent_dim, units) and (latent_dim,); with a leading axis of classes under
            ``"per_class"``; (latent_dim, features) under ``"fourier_features"``.
        manifest: where the pairs came from; goes into the file.
        ridges: the λ taken, one a map.

    Raises:
        ValueError: an unknown variant or ridge, or no features.

    Example:
        >>> r = torch.rand(200, 6)
        >>> w = r @ torch.rand(6, 4)
        >>> link = LatentLink(ridge=0.0).fit(r[:150], w[:150])
        >>> round(float(link.score(r[150:], w[150:])), 6)
        1.0

    Source: Wehrheim, Osuna-Vargas, Kaschube, "Linking in Style" (arXiv 2409.16865).
    """

    def __init__(
        self,
        variant: Variant = "linear",
        ridge: Ridge = "gcv",
        *,
        features: int = 1024,
        reservoir: int = 1024,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if variant not in KINDS:
            raise ValueError(f"variant is {variant!r}; expected one of {', '.join(map(repr, KINDS))}.")
        if features < 1:
            raise ValueError(f"features is {features}; expected at least 1 Fourier feature.")
        self.variant, self.ridge = variant, checked_ridge(ridge)
        self.features, self.seed = features, seed
        self.manifest: dict[str, Any] = {}
        self.ridges: dict[str, float] = {}
        self.map: Map | None = None
        self.class_means: ClassMeans | None = None
        self.reservoir = Reservoir(reservoir, seed)
        self.seen = torch.empty(0, dtype=torch.int64)  # hashes of the latents, for leaks into held-out pairs
        self.solved: RankReport | None = None  # None: pairs came in since

    def fit(
        self, r: Tensor, w: Tensor, classes: Tensor | None = None, *, manifest: Mapping[str, Any] | None = None
    ) -> LatentLink:
        """Forget what was seen, take in these pairs and solve; warns where there are fewer pairs than live units.

        Args:
            r: (n, units) representations, any float dtype.
            w: (n, latent_dim) latents.
            classes: (n,) whole numbers; needed by ``"per_class"`` and for directions within classes.
            manifest: what a file should say of the pairs, as ``Pairs.manifest``.

        Raises:
            ValueError: shapes that do not fit, values that are not finite, fewer than two pairs, representations or
                latents that do not vary, a class too small for a map of its own.
        """
        self.map, self.class_means, self.solved = None, None, None
        self.reservoir = Reservoir(self.reservoir.size, self.seed)
        self.seen = self.seen[:0]
        self.manifest = dict(manifest or {})
        self.partial_fit(r, w, classes)
        self.solve().warn_of_few_pairs()
        return self

    def partial_fit(self, r: Tensor, w: Tensor, classes: Tensor | None = None) -> LatentLink:
        """Take in a chunk of pairs; the map is solved again when it is next asked for."""
        r, w = (wide(side) for side in checked_pairs(r, w))
        classes = checked_classes(classes, len(r))
        own, means = self.map, self.class_means
        if own is None:
            own = new_map(self.variant, r, w, self.ridge, features=self.features, seed=self.seed)
            means = None if classes is None else ClassMeans()
        elif (classes is None) != (means is None):
            raise ValueError("some chunks came with classes and some without; give them with every chunk or none.")
        checked_sizes(r, w, own.moments)
        own.add(r, w, classes)
        self.map, self.class_means = own, means  # only now: pairs that were refused leave the link as it was
        if classes is not None and means is not None:
            means.add(r, w, classes)
        self.reservoir.add(r)
        self.seen = torch.cat([self.seen, row_hashes(w).to(self.seen.device)])
        self.solved = None
        return self

    def merge(self, other: LatentLink) -> LatentLink:
        """Take in what another link of the same kind has seen, as if its pairs had come here.

        Raises:
            ValueError: another variant, ridge, seed or size, or classes on one side only; the link is then as it was.
        """
        checked_same_kind(self, other)
        if other.map is None:
            return self
        if self.map is None:
            self.map, self.class_means = copy.deepcopy(other.map), copy.deepcopy(other.class_means)
        else:
            self.map.merge(other.map)  # type: ignore[arg-type]
            if self.class_means is not None and other.class_means is not None:
                self.class_means.merge(other.class_means)
        self.reservoir.merge(other.reservoir)
        self.seen = torch.cat([self.seen, other.seen.to(self.seen.device)])
        self.solved = None
        return self

    def blank(self) -> LatentLink:
        """A link with the same settings, Fourier features included, that has seen no pairs."""
        new = LatentLink(**self.settings)
        if isinstance(self.map, FourierMap):
            new.map = self.map.blank()
            new.class_means = None if self.class_means is None else ClassMeans()
        return new

    def solve(self) -> RankReport:
        """Solve the map if pairs came in since it was last solved; says how well the pairs determine it."""
        if self.solved is None:
            self.solved, self.ridges = self._fitted().solve()
        return self.solved

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents of representations, (n, units) → (n, latent_dim), in r's dtype and differentiable.

        Args:
            r: (n, units).
            classes: (n,), for a ``"per_class"`` link.

        Raises:
            TypeError: no floats.
            ValueError: another number of units, no classes where they are needed, or one that was never seen.
        """
        self.solve()
        r = checked_representations(r, self.moments.units)
        answer: Tensor = self._fitted()(r, checked_classes(classes, len(r)))
        return answer

    def score(self, r: Tensor, w: Tensor, classes: Tensor | None = None) -> Tensor:
        """R² on other pairs, all latents together: 1 − Σ‖w − ŵ‖² / Σ‖w − w̄‖²; see :meth:`audit` for more."""
        r, w = checked_pairs(r, w)
        return r2(w, self(r.to(torch.float64) if r.device.type != "mps" else r, classes))

    def leave_one_out(self, r: Tensor, w: Tensor, classes: Tensor | None = None) -> Tensor:
        r"""What each fitted pair is given by the link of all others, exactly and without fitting again (PRESS).

        Args:
            r: the pairs of the fit, (n, units), in any order.
            w: (n, latent_dim).
            classes: (n,), for a ``"per_class"`` link.

        Returns:
            (n, latent_dim), float64; λ and, if any, the Fourier features stay as they are.

        Raises:
            ValueError: other pairs than those of the fit, or a pair that alone decides about a direction.
        """
        self.solve()
        r, w = checked_sizes(*checked_pairs(r, w), self.moments)
        return self._fitted().left_out(r, w, checked_classes(classes, len(r)))

    @property
    def settings(self) -> dict[str, Any]:
        """What the link was made with."""
        names = ("variant", "ridge", "features", "seed")
        return {name: getattr(self, name) for name in names} | {"reservoir": self.reservoir.size}

    @property
    def moments(self) -> Moments:
        """Moments of all pairs seen."""
        return self._fitted().moments

    def audit(
        self,
        held_out: Pairs,
        fit: Pairs | None = None,
        *,
        encoder: Encoder | None = None,
        generator: Generator | None = None,
        real: Tensor | None = None,
        ceiling: bool = False,
        search_rows: int = 32,
        seed: int = 0,
    ) -> LinkAudit:
        """Measure the link on pairs that it has not seen, with the controls that would show it up.

        Args:
            held_out: pairs of another seed, or of :meth:`Pairs.split`.
            fit: the pairs of the fit, for the shuffled control and for leaving one out.
            encoder: the classifier's half, to look at linked pictures; with ``generator``.
            generator: draws them.
            real: (n, C, H, W) real pictures in [0, 1] of the size that the encoder takes.
            ceiling: also train a two-layer network on ``fit`` and search latents, which takes a while.
            search_rows: held-out pairs of that search.
            seed: of everything random in here.

        Returns:
            a :class:`LinkAudit`; ``str(audit.trust)`` is the verdict.

        Raises:
            ValueError: pairs of another size, an encoder without a generator or of another layer, ``fit`` that is not
                what was fitted, real pictures of another size or outside [0, 1].
        """
        return audited(self, held_out, fit, encoder, generator, real, ceiling, search_rows, seed)

    def save(self, path: str | Path) -> Path:
        """Write map, moments and manifest into one safetensors file (:func:`~xinc_captum.store.write_tensors`).

        Raises:
            StoreError: the file cannot be written.
            ValueError: the link has seen no pairs.
        """
        self.solve()
        return link_file.write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> LatentLink:
        """A link as :meth:`save` wrote it, which can go on to merge and to take in pairs.

        Raises:
            FileNotFoundError: no such file.
            StoreError: a pickle, a damaged file, a file of something else or of a newer version.
        """
        return link_file.read(cls, path)

    @property
    def weight(self) -> Tensor:
        """The map B."""
        self.solve()
        return self._fitted().weight

    @property
    def bias(self) -> Tensor:
        """The intercept b."""
        self.solve()
        return self._fitted().bias

    @property
    def report(self) -> RankReport:
        """How well the pairs determine the map; under ``"per_class"``, that of the class determined worst."""
        return self.solve()

    def partial(self, units: Tensor, class_: int | None) -> Tensor:
        """Columns of the map, (k, latent_dim); :meth:`direction` checks the units."""
        self.solve()
        return self._fitted().partial(units, class_)

    def _fitted(self) -> Map:
        if self.map is None:
            raise ValueError("the link has seen no pairs; call fit(r, w) or load a fitted one.")
        return self.map
