"""What one step of the ascent looks at: views of the candidate, their score, and their distance to the seed's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..batch import Batch
from .objectives import Objective
from .reading import Reader
from .regularizers import FeatureDistance
from .transforms import Crops, Schedule, Size, Transform, View, view


@dataclass(frozen=True)
class Aim:
    """A model, the score that is raised in it, and what has to be recorded for that.

    Attributes:
        reader: how images go through the model.
        objective: the score.
        layers: modules that the objective reads.
        whole: whether it reads the output.
    """

    reader: Reader
    objective: Objective
    layers: tuple[nn.Module, ...]
    whole: bool

    def score(self, images: Tensor, args: tuple[Any, ...]) -> Tensor:
        """One number an image: (rows,)."""
        return self.objective(self.reader.read(images, args, self.layers, whole=self.whole))


@dataclass
class Scene:
    """Scores and distances of candidate images, in the views of any step.

    Args:
        aim: what is raised.
        seeds: the images to stay near, (N, C, H, W); without a distance they are not looked at.
        args: additional forward arguments.
        transforms: as for :func:`~xinc_captum.ascent.transforms.view`.
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
    _axis: int | None = None  # of the units at the distance's layer

    def __post_init__(self) -> None:
        if any(_scheduled(t) for t in self.transforms):
            self.bank = self.steps

    def clean(self, images: Tensor) -> Tensor:
        """The score of images as they are, without views, and without a graph: (N,)."""
        with torch.no_grad():
            show = view([], _size(images), self.size, generator=torch.Generator())
            return self._score(show(images)).squeeze(0)

    def evaluate(self, images: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """Mean score and mean distance over the views of a step, (N,) each, in the graph of ``images``."""
        slot = step % self.bank
        show = self._view(slot, images)
        views = show(images)
        if self.distance is None:
            return self._score(views).mean(0), None
        regularizer, layer = self.distance
        aim = self.aim
        seen = aim.reader.read(views.flatten(0, 1), self._args(views), (*aim.layers, layer), whole=aim.whole)
        scores = self._split(aim.objective(seen), views)
        if self.lowered is not None:
            scores = scores - self._split(self.lowered.score(views.flatten(0, 1), self._args(views)), views)
        there = self._seed_features(slot, show, layer)
        if self._axis is None:
            self._axis = seen.unit_axis(layer)
        apart = regularizer.distance(seen(layer), there, unit_axis=self._axis)
        distances = self._split(apart, views)
        return scores.mean(0), distances.mean(0)

    def _score(self, views: Tensor) -> Tensor:
        flat, args = views.flatten(0, 1), self._args(views)
        scores = self._split(self.aim.score(flat, args), views)
        if self.lowered is not None:
            scores = scores - self._split(self.lowered.score(flat, args), views)
        return scores

    def _args(self, views: Tensor) -> tuple[Any, ...]:
        return Batch.of(views[0], self.args).repeat(views.shape[0]).args if self.args else ()

    def _split(self, values: Tensor, views: Tensor) -> Tensor:
        """(views * rows,) to (views, rows)."""
        if values.shape != (views.shape[0] * views.shape[1],):
            raise ValueError(
                f"the objective answered shape {tuple(values.shape)} for {views.shape[0] * views.shape[1]} views; "
                "wanted one number a view. Reduce everything but the rows, for example with .flatten(1).mean(1)."
            )
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
        with torch.no_grad():
            views = show(self.seeds)
            seen = self.aim.reader.read(views.flatten(0, 1), self._args(views), (layer,), whole=False)
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
