"""Score and feature distance of candidate images under random views."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...hooks import GradientError, layer_name, leads_to, no_gradient
from .activations import ImageModel, Layer
from .objectives import Objective
from .transforms import Crops, Geometry, Noise, Schedule, Size, Transform, View, generators_in, same_draws, view


@dataclass(frozen=True)
class FeatureDistance:
    r"""Distance to the seed's activations at a layer, subtracted from the score.

    .. math:: d(a, a^0) = \mathrm{mean}_{hw}\Bigl(\sqrt{\textstyle\sum_c (a_{chw} - a^0_{chw})^2 + \epsilon^2} -
        \epsilon\Bigr), \quad \epsilon = s \cdot \mathrm{mean}_{hw} \lVert a^0_{hw} \rVert

    Symbols: a, a⁰ the activations of candidate and seed in the same view, s ``smooth``. The total to raise is
    f - weight · B · d, where B = Σ|∂f/∂p| / Σ|∂d/∂p| is measured at a small fixed perturbation of the seed, row by
    row. At the seed itself d has gradient zero, where the plain norm has the direction of rounding noise.

    Args:
        layer: whose activations are compared; None picks one early in the model that the images reach
            (``early_layer``).
        weight: 0 is no regulariser; 1 weighs score and distance alike.
        smooth: s; 0 is the original's plain norm.
        balance: a number fixes B instead of measuring it.

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039), the regulariser; there s = 0 and B is measured
    at the seed.
    """

    layer: Layer | None = None
    weight: float = 1.0
    smooth: float = 0.01
    balance: float | None = None

    def __post_init__(self) -> None:
        if self.weight < 0 or self.smooth < 0:
            raise ValueError(
                f"FeatureDistance(weight={self.weight:g}, smooth={self.smooth:g}): expected both at least 0."
            )

    def distance(self, candidate: Tensor, seed: Tensor, *, unit_axis: int | None = None) -> Tensor:
        """One d for each row of two activations: (rows,), float32 or wider.

        Args:
            candidate: (rows, units), or with places too.
            seed: likewise.
            unit_axis: which axis holds the units. None is the last of three axes, (rows, tokens, units), and axis 1
                otherwise; an accentuation gives the one that it determined for the layer.
        """
        a, b = (t if t.dtype == torch.float64 else t.float() for t in (candidate, seed))
        axis = unit_axis if unit_axis is not None else 2 if a.dim() == 3 else 1
        a, b = a.movedim(axis, 1), b.movedim(axis, 1)
        squares = (a - b).square().flatten(2).sum(1) if a.dim() > 2 else (a - b).square().sum(1, keepdim=True)
        if not self.smooth:
            positive = squares > 0  # sqrt has no gradient at exactly 0
            plain: Tensor = torch.where(positive, squares, 1.0).sqrt().where(positive, 0.0)
            return plain.mean(1)
        norms = b.flatten(2).norm(dim=1) if b.dim() > 2 else b.norm(dim=1, keepdim=True)
        epsilon = self.smooth * norms.mean(1, keepdim=True).clamp_min(torch.finfo(a.dtype).tiny ** 0.5)
        smooth: Tensor = (squares + epsilon.square()).sqrt() - epsilon
        return smooth.mean(1)


@dataclass(frozen=True)
class Ball:
    r"""The image stays within a radius of its seed, projected after every step.

    .. math:: \lVert x - x_0 \rVert_2 \le r \quad \text{or} \quad \lVert x - x_0 \rVert_\infty \le r

    Args:
        radius: r, in units of [0, 1]; the L2 norm is over all of a row's values.
        norm: "L2" or "Linf", as in ``captum.robust.PGD``.

    Example:
        >>> Ball(0.1, "Linf").project(torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)).max()
        tensor(0.6000)
    """

    radius: float
    norm: Literal["L2", "Linf"] = "L2"

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.norm not in ("L2", "Linf"):
            raise ValueError(f'Ball({self.radius!r}, {self.norm!r}): expected a radius above 0, and "L2" or "Linf".')

    def project(self, images: Tensor, seeds: Tensor) -> Tensor:
        """The nearest images within the ball around the seeds: (N, C, H, W)."""
        change = images - seeds
        if self.norm == "Linf":
            return seeds + change.clamp(-self.radius, self.radius)
        length: Tensor = change.flatten(1).norm(dim=1).clamp_min(torch.finfo(change.dtype).tiny)
        share = (self.radius / length).clamp_max(1)
        return seeds + change * share.reshape(-1, *[1] * (change.dim() - 1))


Regularizer = FeatureDistance | Ball


@dataclass(frozen=True)
class Aim:
    """A model, the score that is raised in it, and what has to be recorded for that.

    Attributes:
        model: how images go through the model.
        objective: the score.
        layers: modules that the objective reads.
        whole: whether it reads the output.
    """

    model: ImageModel
    objective: Objective
    layers: tuple[nn.Module, ...]
    whole: bool

    def score(self, images: Tensor, args: tuple[Any, ...]) -> Tensor:
        """One number an image: (rows,)."""
        return self.objective(self.model.run(images, args, self.layers, to_output=self.whole))


@dataclass
class Scene:
    """Scores and distances of candidate images, in the views of any step.

    Args:
        aim: what is raised.
        seeds: the images to stay near, (N, C, H, W); without a distance they are not looked at.
        args: additional forward arguments.
        transforms: as for :func:`~xinc_captum.attributions.accentuation.transforms.view`.
        size: height and width of the views.
        steps: how many steps the run has, for schedules.
        bank: so many different draws of views, used in turn; the seed's features are computed once for each.
        seed: of the views.
        lowered: an aim whose score is subtracted.
        distance: the feature distance, and the module it is measured at.
    """

    aim: Aim
    seeds: Tensor
    args: tuple[Any, ...]
    transforms: Sequence[Transform]
    size: Size
    steps: int
    bank: int
    seed: int
    lowered: Aim | None = None
    distance: tuple[FeatureDistance, nn.Module] | None = None
    _views: dict[int, View] = field(default_factory=dict)
    _features: dict[int, Tensor] = field(default_factory=dict)
    _held: list[Any] = field(default_factory=list)
    _draws_compared: bool = False
    _graphs_checked: bool = False
    _axis: int | None = None  # of the units at the distance's layer

    def __post_init__(self) -> None:
        if any(_scheduled(t) for t in self.transforms):
            self.bank = self.steps
        self._held = generators_in(self.aim.model.preprocess)
        self._draws_compared = all(isinstance(t, Geometry | Noise) for t in self.transforms)

    def clean(self, images: Tensor) -> Tensor:
        """The score of images as they are, without views, and without a graph: (N,).

        Whatever is drawn at random meanwhile is drawn alike in every call, so that scores can be compared.
        """
        with torch.no_grad(), self._drawn(-1, images):
            show = view([], _size(images), self.size, generator=torch.Generator())
            return self._score(show(images)).squeeze(0)

    def evaluate(self, images: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """Mean score and mean distance over the views of a step, (N,) each, in the graph of ``images``."""
        slot = step % self.bank
        show = self._view(slot, images)
        views = show(images)
        if self.distance is None:
            scores = self._score(views)
            self._graphs_checked = True
            return scores.mean(0), None
        self._compare_draws(show, images, views)
        regularizer, layer = self.distance
        aim = self.aim
        with self._drawn(slot, images):  # preprocess and the model draw for the candidate as for the seed
            seen = aim.model.run(views.flatten(0, 1), self._args(views), (*aim.layers, layer), to_output=aim.whole)
        scores = self._split(aim.objective(seen), views, aim)
        if self.lowered is not None:
            low = self.lowered.score(views.flatten(0, 1), self._args(views))
            scores = scores - self._split(low, views, self.lowered)
        there = self._seed_features(slot, show, layer)
        if self._axis is None:
            self._axis = seen.unit_axis(layer)
        distances = regularizer.distance(seen(layer), there, unit_axis=self._axis)
        if self._to_check(views) and not leads_to(distances, views):
            way = f"from layer {layer_name(aim.model.forward_func, layer)} (regularizer) to the images"
            raise GradientError(no_gradient(way, aim.model.forward_func))
        distances = self._split(distances, views, aim)
        self._graphs_checked = True
        return scores.mean(0), distances.mean(0)

    def _to_check(self, views: Tensor) -> bool:
        return not self._graphs_checked and torch.is_grad_enabled() and views.requires_grad

    def _drawn(self, slot: int, like: Tensor) -> AbstractContextManager[None]:
        return same_draws(_mixed(self.seed, slot), self._held, like)

    def _compare_draws(self, show: View, images: Tensor, views: Tensor) -> None:
        """Show an image twice, once a run: the seed's views must be those of the candidate."""
        if self._draws_compared:
            return
        self._draws_compared = True
        with torch.no_grad():
            again = show(images)
        if again.shape != views.shape or not torch.allclose(again, views, atol=1e-4, rtol=0):
            raise ValueError(
                "transforms show one image in two ways when they are called twice with the same random seeds: a "
                "function among them has a state of its own (a counter, an iterator, the time). The candidate and its "
                "seed need the same views; draw from torch, numpy.random or random, or give regularizer=None."
            )

    def _score(self, views: Tensor) -> Tensor:
        flat, args = views.flatten(0, 1), self._args(views)
        scores = self._split(self.aim.score(flat, args), views, self.aim)
        if self.lowered is not None:
            scores = scores - self._split(self.lowered.score(flat, args), views, self.lowered)
        return scores

    def _args(self, views: Tensor) -> tuple[Any, ...]:
        return Batch.of(views[0], self.args).repeat(views.shape[0]).args if self.args else ()

    def _split(self, values: Tensor, views: Tensor, aim: Aim) -> Tensor:
        """(views * rows,) to (views, rows); a term that has no graph to the views would be ignored silently."""
        if values.shape != (views.shape[0] * views.shape[1],):
            raise ValueError(
                f"the objective answered shape {tuple(values.shape)} for {views.shape[0] * views.shape[1]} views; "
                "expected one number a view. Reduce everything but the rows, for example with .flatten(1).mean(1)."
            )
        if self._to_check(views) and not leads_to(values, views):
            raise GradientError(no_gradient(f"from {aim.objective.name} to the images", aim.model.forward_func))
        return values.reshape(views.shape[0], views.shape[1])

    def _view(self, slot: int, images: Tensor) -> View:
        if slot not in self._views:
            device = images.device
            show = view(
                self.transforms,
                _size(images),
                self.size,
                progress=slot / max(1, self.bank - 1),
                generator=torch.Generator().manual_seed(_mixed(self.seed, slot)),
                noise_generator=torch.Generator(device).manual_seed(_mixed(self.seed, slot)),
            )
            if self.bank >= self.steps:
                return show  # used once
            self._views[slot] = show
        return self._views[slot]

    def _seed_features(self, slot: int, show: View, layer: nn.Module) -> Tensor:
        """The seed's activations in the views of a draw: forwarded once, only to the layer, without a graph."""
        if slot in self._features:
            return self._features[slot]
        with torch.no_grad(), self._drawn(slot, self.seeds):
            views = show(self.seeds)
            seen = self.aim.model.run(views.flatten(0, 1), self._args(views), (layer,), to_output=False)
            features = seen(layer).detach()
        if self.bank < self.steps:
            self._features[slot] = features
        return features


def _mixed(seed: int, slot: int) -> int:
    return (seed * 1_000_003 + slot * 7919 + 17) % (1 << 62)


def _size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]


def _scheduled(transform: Transform) -> bool:
    values = vars(transform).values() if hasattr(transform, "__dict__") else ()
    sides = transform.side if isinstance(transform, Crops) else ()
    return any(isinstance(value, Schedule) for value in (*values, *sides))


Evaluate = Callable[[Tensor, int], tuple[Tensor, Tensor | None]]
