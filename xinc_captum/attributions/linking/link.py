"""Class Link: a map from representations to latents, with the moments of its pairs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, Literal, Self, SupportsFloat

import torch
from torch import Tensor, nn

from ... import store
from ...metrics.links import r2, row_hashes
from .moments import ClassMeans, LinearMap, Moments, RankReport, Reservoir, Ridge, group_by_prefix, wide
from .regressions import KINDS, FourierMap, Variant, new_map

Bounds = Literal["minmax", "quantile", "sd"]
Direction = Literal["marginal", "partial", "within_class"]
FILE_KIND, WRITER = "link", "LatentLink.save()"


class Link(nn.Module):
    """Base class of :class:`LatentLink` without the audit; arguments and attributes are described there.

    ``latent_hashes``, (n,), are hashes of the latents of all pairs, to find repeats and leaks into held-out pairs.
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
        if ridge != "gcv" and (
            isinstance(ridge, str | bool) or not isinstance(ridge, SupportsFloat) or not 0 <= float(ridge) < inf
        ):
            raise ValueError(f"ridge is {ridge!r}; expected a number >= 0, or 'gcv'.")
        self.variant, self.ridge, self.features, self.seed = variant, ridge, features, seed
        self.manifest: dict[str, Any] = {}
        self.ridges: dict[str, float] = {}
        self.map: LinearMap | None = None  # None before the first pairs
        self.class_means: ClassMeans | None = None  # None without classes
        self.reservoir = Reservoir(reservoir, seed)
        self.latent_hashes = torch.empty(0, dtype=torch.int64)
        self._report: RankReport | None = None  # None: pairs were added since the map was solved

    def fit(
        self, r: Tensor, w: Tensor, classes: Tensor | None = None, *, manifest: Mapping[str, Any] | None = None
    ) -> Self:
        """Discard all earlier pairs, add these and solve; warn if there are no more pairs than live units.

        Args:
            r: (n, units) representations, any float dtype.
            w: (n, latent_dim) latents.
            classes: (n,) whole numbers; required for ``"per_class"`` and for directions within classes.
            manifest: what a file records about the pairs, such as ``Pairs.manifest``.

        Raises:
            ValueError: r and w of unequal length, values that are not finite, fewer than two pairs, pairs without
                variation, or a class with too few pairs for a map of its own.
        """
        self.map, self.class_means, self._report = None, None, None
        self.reservoir = Reservoir(self.reservoir.size, self.seed)
        self.latent_hashes = self.latent_hashes[:0]
        self.manifest = dict(manifest or {})
        self.partial_fit(r, w, classes)
        self.solve().warn_of_few_pairs()
        return self

    def partial_fit(self, r: Tensor, w: Tensor, classes: Tensor | None = None) -> Self:
        """Add a chunk of pairs; the map is solved again when it is next used."""
        r, w = (wide(side) for side in check_pairs(r, w, None if self.map is None else self.map.moments))
        classes = check_classes(classes, len(r))
        map_, means = self.map, self.class_means
        if map_ is None:
            map_ = new_map(self.variant, r, w, self.ridge, features=self.features, seed=self.seed)
            means = None if classes is None else ClassMeans()
        elif (classes is None) != (means is None):
            raise ValueError("some chunks have classes and some do not; give classes with every chunk or with none.")
        map_.add(r, w, classes)
        self.map, self.class_means = map_, means  # assigned only now: after an error the link is unchanged
        if classes is not None and means is not None:
            means.add(r, w, classes)
        self.reservoir.add(r)
        self.latent_hashes = torch.cat([self.latent_hashes, row_hashes(w).to(self.latent_hashes.device)])
        self._report = None
        return self

    def merge(self, other: Link) -> Self:
        """Add the pairs of another link.

        Raises:
            ValueError: another variant, ridge, seed or size, or classes in one link only; this link is then unchanged.
        """
        self._check_mergeable(other)
        if other.map is None:
            return self
        if self.map is None:
            self.map, self.class_means = copy.deepcopy(other.map), copy.deepcopy(other.class_means)
        else:
            self.map.merge(other.map)
            if self.class_means is not None and other.class_means is not None:
                self.class_means.merge(other.class_means)
        self.reservoir.merge(other.reservoir)
        self.latent_hashes = torch.cat([self.latent_hashes, other.latent_hashes.to(self.latent_hashes.device)])
        self._report = None
        return self

    def blank(self) -> Self:
        """Return a link with the same settings and Fourier features, and no pairs."""
        new = type(self)(**self.settings)
        if isinstance(self.map, FourierMap):
            new.map = self.map.blank()
            new.class_means = None if self.class_means is None else ClassMeans()
        return new

    def solve(self) -> RankReport:
        """Solve the map if pairs were added since it was last solved; return how well the pairs determine it."""
        if self._report is None:
            self._report, self.ridges = self._require_map().solve()
        return self._report

    def forward(self, r: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the latents of representations, (n, units) → (n, latent_dim), in r's dtype and differentiable.

        A ``"per_class"`` link needs the classes, (n,).

        Raises:
            TypeError, ValueError: r is no float tensor (n, units); missing classes, or one that the pairs do not have.
        """
        map_ = self._solve_map()
        units = map_.moments.units
        if not isinstance(r, Tensor) or r.dim() != 2 or r.shape[1] != units:
            shape = tuple(r.shape) if isinstance(r, Tensor) else type(r).__name__
            raise ValueError(f"representations have shape {shape}; the link has {units} units, expected (n, {units}).")
        if not r.is_floating_point():  # integers would truncate the map's weights
            raise TypeError(f"representations are {r.dtype}; expected a float tensor.")
        latents: Tensor = map_(r, check_classes(classes, len(r)))
        return latents

    def score(self, r: Tensor, w: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return R² on other pairs, over all latents: 1 − Σ‖w − ŵ‖² / Σ‖w − w̄‖²; see :meth:`audit` for more."""
        r, w = check_pairs(r, w)
        return r2(w, self(r.to(torch.float64) if r.device.type != "mps" else r, classes))

    def leave_one_out(self, r: Tensor, w: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the prediction for each pair by the link fitted to all others, exactly and without refitting (PRESS).

        The arguments are the pairs of the fit, in any order; λ and the Fourier features stay fixed. The result is
        (n, latent_dim), float64.

        Raises:
            ValueError: other pairs than those of the fit, or a pair that alone determines a direction.
        """
        map_ = self._solve_map()
        r, w = check_pairs(r, w, map_.moments)
        return map_.leave_one_out(r, w, check_classes(classes, len(r)))

    def direction(
        self,
        units: int | Sequence[int] | Tensor,
        kind: Direction = "marginal",
        *,
        class_: int | None = None,
    ) -> Tensor:
        r"""Return the change of w per unit change of each of k units, (k, latent_dim), float64.

        .. math:: \text{marginal: } \frac{\mathrm{Cov}(w, r_u)}{\mathrm{Var}(r_u)}, \quad
            \text{within class: the same of } r - \bar r_c, w - \bar w_c, \quad \text{partial: } B_{\cdot u}

        Symbols: r̄_c, w̄_c the means of class c, B the link's map; of a ``"per_class"`` link, ``class_`` selects it. The
        marginal direction is the change of w when r_u rises *and the other units change with it as they do over the
        pairs*. The partial direction keeps the other units fixed, which few images can show.

        Raises:
            IndexError: a unit out of range.
            ValueError: a dead unit, an unknown kind, or ``"within_class"`` without classes or variation within one.
        """
        index = check_units(units, self.moments)
        if kind == "marginal":
            return self.moments.rw[index] / self.moments.rr.diagonal()[index, None]
        if kind == "within_class":
            return self._within_class(index)
        if kind != "partial":
            raise ValueError(f"kind is {kind!r}; expected 'marginal', 'partial' or 'within_class'.")
        return self.partial(index, class_)

    def partial(self, units: Tensor, class_: int | None) -> Tensor:
        """Return columns of the map, (k, latent_dim), without checking the units as :meth:`direction` does."""
        return self._solve_map().partial(units, class_)

    def bounds(
        self,
        units: int | Sequence[int] | Tensor,
        kind: Bounds = "minmax",
        *,
        tail: float = 0.05,
        sds: float = 2.0,
    ) -> Tensor:
        """Return the lowest and highest value of each of k units over the pairs, (k, 2), float64.

        ``"minmax"`` is exact; ``"quantile"`` is from ``tail`` to 1 − ``tail`` of the reservoir; ``"sd"`` is the mean ±
        ``sds`` standard deviations, clipped to minmax.

        Raises:
            IndexError: a unit out of range.
            ValueError: a dead unit, an unknown kind, or a ``tail`` or ``sds`` out of range.
        """
        index, moments = check_units(units, self.moments), self.moments
        ends = torch.stack([moments.r_min[index], moments.r_max[index]], 1)
        if kind == "minmax":
            return ends
        if kind == "quantile":
            if not 0 <= tail < 0.5:
                raise ValueError(f"tail is {tail}; expected a fraction in [0, .5).")
            rows = self.reservoir.rows
            levels = torch.tensor([tail, 1 - tail], device=rows.device)
            return rows[:, index.to(rows.device)].quantile(levels, dim=0).T.to(ends)
        if kind != "sd":
            raise ValueError(f"kind is {kind!r}; expected 'minmax', 'quantile' or 'sd'.")
        if not sds > 0:
            raise ValueError(f"sds is {sds}; expected a number of standard deviations above 0.")
        steps = torch.tensor([-sds, sds], dtype=ends.dtype, device=ends.device)
        around = moments.r_mean[index, None] + moments.r_sd[index, None] * steps
        return around.clamp(ends[:, :1], ends[:, 1:])

    def save(self, path: str | Path) -> Path:
        """Write map, moments and manifest into one safetensors file (:func:`~xinc_captum.store.write_tensors`).

        Raises:
            StoreError: the file cannot be written.
            ValueError: the link has no pairs.
        """
        report, map_ = self.solve(), self._require_map()
        tensors = {f"map.{k}": v for k, v in map_.tensors().items()}
        tensors |= {f"solved.{k}": v for k, v in map_.named_buffers() if k in ("weight", "bias", "class_ids")}
        tensors |= {"reservoir.rows": self.reservoir.rows, "reservoir.keys": self.reservoir.keys}
        tensors["seen"] = self.latent_hashes
        if self.class_means is not None:
            tensors |= {f"means.{k}": v for k, v in self.class_means.tensors().items()}
        metadata = {
            "settings": self.settings,
            "ridges": self.ridges,
            "report": report.to_dict(),
            "manifest": self.manifest,
        }
        return store.write_tensors(path, tensors, kind=FILE_KIND, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a link that :meth:`save` wrote; it can be merged and take further pairs.

        Raises:
            FileNotFoundError: no such file.
            StoreError: a pickle, a damaged file, a file of another kind or of a newer version.
        """
        tensors, metadata = store.read_tensors(path, kind=FILE_KIND, writer=WRITER)
        with store.consistent(path, WRITER):
            link, groups = cls(**metadata["settings"]), group_by_prefix(tensors)
            link.map = KINDS[link.variant].from_tensors(groups["map"], link.ridge)
            for name, value in groups.get("solved", {}).items():
                setattr(link.map, name, value)
            link.reservoir.rows, link.reservoir.keys = tensors["reservoir.rows"], tensors["reservoir.keys"]
            link.latent_hashes = tensors["seen"]
            link.class_means = ClassMeans.from_tensors(groups["means"]) if "means" in groups else None
            link.ridges, link.manifest = dict(metadata["ridges"]), dict(metadata["manifest"])
            link._report = RankReport(**metadata["report"])
        return link

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that the link was constructed with."""
        names = ("variant", "ridge", "features", "seed")
        return {name: getattr(self, name) for name in names} | {"reservoir": self.reservoir.size}

    @property
    def moments(self) -> Moments:
        """Moments of all pairs."""
        return self._require_map().moments

    @property
    def report(self) -> RankReport:
        """How well the pairs determine the map; with ``"per_class"``, the map of the class that is determined worst."""
        return self.solve()

    @property
    def weight(self) -> Tensor:
        """The map B."""
        return self._solve_map().weight

    @property
    def bias(self) -> Tensor:
        """The intercept b."""
        return self._solve_map().bias

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

    def _within_class(self, units: Tensor) -> Tensor:
        """Return marginal directions after subtracting each class's means, (k, latent_dim)."""
        moments = self.moments
        if self.class_means is None:
            raise ValueError("directions within classes need the classes of the pairs; give them to fit().")
        between_rr, between_rw = self.class_means.between(moments)
        variance = (moments.rr - between_rr).diagonal()[units]
        constant = (variance <= 1e-12 * moments.rr.diagonal()[units]).nonzero()[:, 0]
        if len(constant):
            raise ValueError(f"unit {int(units[constant[0]])} does not vary within any class; use kind='marginal'.")
        return (moments.rw - between_rw)[units] / variance[:, None]

    def _check_mergeable(self, other: Link) -> None:
        if (self.variant, self.ridge) != (other.variant, other.ridge):
            raise ValueError(
                f"got a {other.variant} link with ridge {other.ridge!r} to merge into a {self.variant} link with ridge "
                f"{self.ridge!r}; expected the same."
            )
        self.reservoir.check_mergeable(other.reservoir)
        fitted = [link for link in (self, other) if link.map is not None]
        if len({link.class_means is None for link in fitted}) > 1:
            raise ValueError("one link has classes and the other has none; give classes to both or to neither.")

    def _solve_map(self) -> LinearMap:
        """Return the map, solved."""
        self.solve()
        return self._require_map()

    def _require_map(self) -> LinearMap:
        if self.map is None:
            raise ValueError("the link has no pairs yet; call fit(r, w) or load a fitted link.")
        return self.map


def check_pairs(r: Tensor, w: Tensor, moments: Moments | None = None) -> tuple[Tensor, Tensor]:
    """Return r (n, units) and w (n, latent_dim); raise unless they are finite floats of the moments' sizes."""
    for name, value, columns in (("representations", r, "units"), ("latents", w, "latent_dim")):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{name} are {kind}; expected a float tensor.")
        if value.dim() != 2 or 0 in value.shape:
            raise ValueError(f"{name} have shape {tuple(value.shape)}; expected (n, {columns}), none of them 0.")
        wrong = (~value.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise ValueError(
                f"{name} hold {len(wrong)} values that are not finite, the first at row {row}, column {column}. Leave "
                "such pairs out, and check the model and the generator that produced them."
            )
    if len(r) != len(w):
        raise ValueError(f"got {len(r)} representations and {len(w)} latents; expected one latent for each.")
    if moments is not None and (r.shape[1], w.shape[1]) != (moments.units, moments.latent_dim):
        raise ValueError(
            f"got pairs of ({r.shape[1]} units, {w.shape[1]} latents); the link has ({moments.units} units, "
            f"{moments.latent_dim} latents)."
        )
    return r, w


def check_classes(classes: Tensor | int | Sequence[int] | None, n: int) -> Tensor | None:
    """Return classes as (n,) integers; a single number is used for all samples."""
    if classes is None:
        return None
    labels = torch.as_tensor(classes)
    if labels.dim() == 0:
        labels = labels.expand(n)
    if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"classes are {labels.dtype} of shape {tuple(labels.shape)}; expected integers, ({n},).")
    return labels


def check_units(units: int | Sequence[int] | Tensor, moments: Moments) -> Tensor:
    """Return units as numbers >= 0, (k,); raise if one is out of range or dead."""
    index = torch.as_tensor(units)
    if not index.numel():
        raise ValueError("units is empty; give at least one.")
    if index.is_floating_point() or index.dtype == torch.bool or index.dim() > 1:
        raise TypeError(f"units are {units!r}; expected an integer or a list of integers.")
    index = index.reshape(-1).to(moments.rr.device, torch.long)
    count = moments.units
    outside = ((index < -count) | (index >= count)).nonzero()[:, 0]
    if len(outside):
        raise IndexError(
            f"unit {int(index[outside[0]])} is out of range: the link has {count} units; expected a number in "
            f"[{-count}, {count - 1}]."
        )
    index = index % count
    dead = (~moments.alive[index]).nonzero()[:, 0]
    if len(dead):
        unit = int(index[dead[0]])
        raise ValueError(
            f"unit {unit} is dead: its value is {float(moments.r_min[unit]):g} in all {moments.n} pairs, so it has no "
            "direction. Choose a unit for which link.alive is True."
        )
    return index
