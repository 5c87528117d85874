"""The problem that one call solves: the score of images under random views, and their distance to the seeds."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import Batch, settle_arguments
from ...hooks import GradientError, layer_name, leads_to, modules_behind, no_gradient, preprocesses, warn_of_crop
from ...images import check_images
from ..base import as_called, differentiable
from .activations import Activations, ImageModel, find_required_layers
from .default_layers import early_layer
from .objectives import Feature, Objective, OutputFeature, UnitFeature, is_lucent
from .settings import FeatureDistance, Settings
from .transforms import Crops, Geometry, Noise, Schedule, Size, Transform, View, generators_in, same_draws, view

Images = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class ScoredModel:
    """A model, an objective, and what the objective reads.

    Attributes:
        model: how images go through the model.
        objective: the score.
        layers: modules that the objective reads.
        to_output: whether it reads the output.
    """

    model: ImageModel
    objective: Objective
    layers: tuple[nn.Module, ...]
    to_output: bool

    @classmethod
    def of(cls, model: ImageModel, objective: Objective, images: Tensor, args: tuple[Any, ...]) -> "ScoredModel":
        """Find out what the objective reads, by evaluating it on ``images``."""
        return cls(model, objective, *find_required_layers(model, images, args, objective))

    def run(self, images: Tensor, args: tuple[Any, ...], *layers: nn.Module) -> Activations:
        """Run the model as far as the objective needs, and record its layers and the given ones."""
        recorded = (*layers, *(layer for layer in self.layers if layer not in layers))
        return self.model.run(images, args, recorded, to_output=self.to_output)

    def score(self, images: Tensor, args: tuple[Any, ...]) -> Tensor:
        """Return one number for each image, (rows,)."""
        return self.objective(self.run(images, args))


@dataclass(eq=False)
class Problem:
    """A feature whose score is raised in images, with everything that the optimization needs.

    Attributes:
        model: how images go through the model; its ``size`` is that of the views.
        feature: the feature whose score is raised.
        settings: the caller's settings.
        batch: the seeds, or images of the same shape, dtype and device; and the additional forward arguments.
        from_noise: there are no seeds.
        contrast: model and feature whose score is subtracted, or None.
        total: number of images in the call, of which these may be some.
    """

    model: ImageModel
    feature: Feature
    settings: Settings
    batch: Batch
    from_noise: bool = False
    contrast: tuple[ImageModel, Feature] | None = None
    total: int = -1
    _views: dict[int, View] = field(default_factory=dict, init=False)
    _seed_features: dict[int, Tensor] = field(default_factory=dict, init=False)
    _draws_checked: bool = field(default=False, init=False)
    _graphs_checked: bool = field(default=False, init=False)
    _distance_axis: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.total < 0:
            self.total = self.batch.rows
        self._draws_checked = all(isinstance(t, Geometry | Noise) for t in self.settings.transforms)

    @classmethod
    def of(
        cls,
        model: ImageModel,
        feature: Feature,
        inputs: Images | None,
        args: Any,
        shape: tuple[int, ...] | None,
        settings: Settings,
    ) -> "Problem":
        """Check the arguments of a call. Gradients of the models' parameters are switched off."""
        _check_start(inputs, shape, settings)
        _freeze(model.forward_func, settings.contrast)
        images = _images_from_noise(model, shape) if inputs is None else check_images(inputs)
        model = replace(model, call=as_called(differentiable(model.forward_func), images.device.type))
        if images.dtype in (torch.bfloat16, torch.float16):  # spectra and distances need more digits
            model = replace(model, dtype=images.dtype)
            images = images.float()
        model = replace(model, size=model.size or _size(images))
        batch = settle_arguments(Batch.of(images, args), partial(_output, model))
        warn_of_crop(model.preprocess, model.resize(images[:1]))
        contrast = resolve_contrast(model, feature, settings.contrast, batch)
        return cls(model, feature, settings, batch, inputs is None, contrast)

    def rows(self, start: int, stop: int) -> "Problem":
        """Return the problem of some of the images."""
        n = self.batch.rows
        contrast = self.contrast and (self.contrast[0], self.contrast[1].cut(start, stop, n))
        feature = self.feature.cut(start, stop, n)
        return replace(self, feature=feature, batch=self.batch.cut(start, stop), contrast=contrast)

    @property
    def images(self) -> Tensor:
        """The seeds, or images of the same shape, (N, C, H, W)."""
        return self.batch.inputs[0]

    @property
    def seeds(self) -> Tensor | None:
        """The images to start from, or None."""
        return None if self.from_noise else self.images

    @cached_property
    def model_inputs(self) -> Tensor:
        """The images at the size of the model's input."""
        return self.model.resize(self.images)

    @cached_property
    def target_score(self) -> ScoredModel:
        """The model and objective whose score is raised."""
        return ScoredModel.of(self.model, self.feature.objective(self.batch.rows), self.model_inputs, self.batch.args)

    @cached_property
    def contrast_score(self) -> ScoredModel | None:
        """The model and objective whose score is subtracted, or None."""
        if self.contrast is None:
            return None
        model, feature = self.contrast
        return ScoredModel.of(model, feature.objective(self.batch.rows), self.model_inputs, self.batch.args)

    @cached_property
    def distance(self) -> tuple[FeatureDistance, nn.Module] | None:
        """The regularizer and the layer at which it is measured, where there is one."""
        regularizer = self.settings.regularizer
        if not isinstance(regularizer, FeatureDistance) or not regularizer.weight or self.from_noise:
            return None
        if regularizer.layer is not None:
            return regularizer, self.model.module(regularizer.layer)
        layer = early_layer(self.model, self.model_inputs, self.batch.args, self.target_score.layers)
        return None if layer is None else (regularizer, layer)

    @cached_property
    def n_draws(self) -> int:
        """Number of different sets of views; with a schedule, each step has its own."""
        scheduled = any(_is_scheduled(t) for t in self.settings.transforms)
        return self.settings.n_steps if scheduled else self.settings.n_draws

    @cached_property
    def _generators(self) -> list[Any]:
        return generators_in(self.model.preprocess)

    def score(self, images: Tensor) -> Tensor:
        """Return the scores of images without random views and without a graph, (N,).

        Random numbers that the model or ``preprocess`` draws are the same in every call, so that scores are comparable.
        """
        with torch.no_grad(), self._same_draws(-1, images):
            return self._scores(self.model.resize(images)[None]).squeeze(0)

    def evaluate(self, images: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """Return mean score and mean distance over the views of a step, (N,) each, in the graph of ``images``."""
        draw = step % self.n_draws
        show = self._view(draw, images)
        views = show(images)
        if self.distance is None:
            scores = self._scores(views)
            self._graphs_checked = True
            return scores.mean(0), None
        self._check_draws(show, images, views)
        regularizer, layer = self.distance
        with self._same_draws(draw, images):  # preprocess and the model draw the same for candidate and seed
            activations = self.target_score.run(views.flatten(0, 1), self._args(views), layer)
        scores = self._split(self.target_score.objective(activations), views, self.target_score)
        if self.contrast_score is not None:
            scores = scores - self._split(
                self.contrast_score.score(views.flatten(0, 1), self._args(views)), views, self.contrast_score
            )
        seed_features = self._features_of_seeds(draw, show, layer)
        if self._distance_axis is None:
            self._distance_axis = activations.unit_axis(layer)
        distances = regularizer.distance(activations(layer), seed_features, unit_axis=self._distance_axis)
        if self._needs_check(views) and not leads_to(distances, views):
            name = layer_name(self.model.forward_func, layer)
            raise GradientError(no_gradient(f"from layer {name} (regularizer) to the images", self.model.forward_func))
        distances = self._split(distances, views, self.target_score)
        self._graphs_checked = True
        return scores.mean(0), distances.mean(0)

    def _scores(self, views: Tensor) -> Tensor:
        flat, args = views.flatten(0, 1), self._args(views)
        scores = self._split(self.target_score.score(flat, args), views, self.target_score)
        if self.contrast_score is not None:
            scores = scores - self._split(self.contrast_score.score(flat, args), views, self.contrast_score)
        return scores

    def _args(self, views: Tensor) -> tuple[Any, ...]:
        return Batch.of(views[0], self.batch.args).repeat(views.shape[0]).args if self.batch.args else ()

    def _split(self, values: Tensor, views: Tensor, scored: ScoredModel) -> Tensor:
        """Reshape (views * rows,) to (views, rows); raise where the values have no graph to the views."""
        if values.shape != (views.shape[0] * views.shape[1],):
            raise ValueError(
                f"the objective returned shape {tuple(values.shape)} for {views.shape[0] * views.shape[1]} views; "
                "expected one number a view. Reduce everything but the rows, for example with .flatten(1).mean(1)."
            )
        if self._needs_check(views) and not leads_to(values, views):
            raise GradientError(no_gradient(f"from {scored.objective.name} to the images", scored.model.forward_func))
        return values.reshape(views.shape[0], views.shape[1])

    def _needs_check(self, views: Tensor) -> bool:
        return not self._graphs_checked and torch.is_grad_enabled() and views.requires_grad

    def _same_draws(self, draw: int, like: Tensor) -> AbstractContextManager[None]:
        return same_draws(_mix(self.settings.seed, draw), self._generators, like)

    def _check_draws(self, show: View, images: Tensor, views: Tensor) -> None:
        """Make the views a second time, once in a run: the seed's views must be those of the candidate."""
        if self._draws_checked:
            return
        self._draws_checked = True
        with torch.no_grad():
            again = show(images)
        if again.shape != views.shape or not torch.allclose(again, views, atol=1e-4, rtol=0):
            raise ValueError(
                "transforms returned two different views of one image for the same random seeds: one of the functions "
                "has a state of its own (a counter, an iterator, the time). Expected the same views for the candidate "
                "and its seed; draw from torch, numpy.random or random, or give regularizer=None."
            )

    def _view(self, draw: int, images: Tensor) -> View:
        if draw not in self._views:
            device, seed = images.device, _mix(self.settings.seed, draw)
            show = view(
                self.settings.transforms,
                _size(images),
                self.model.size or _size(images),
                progress=draw / max(1, self.n_draws - 1),
                generator=torch.Generator().manual_seed(seed),
                noise_generator=torch.Generator(device).manual_seed(seed),
            )
            if self.n_draws >= self.settings.n_steps:
                return show  # used once
            self._views[draw] = show
        return self._views[draw]

    def _features_of_seeds(self, draw: int, show: View, layer: nn.Module) -> Tensor:
        """Return the seeds' activations in the views of a draw: computed once, up to the layer, without a graph."""
        if draw in self._seed_features:
            return self._seed_features[draw]
        with torch.no_grad(), self._same_draws(draw, self.images):
            views = show(self.images)
            activations = self.model.run(views.flatten(0, 1), self._args(views), (layer,), to_output=False)
            features = activations(layer).detach()
        if self.n_draws < self.settings.n_steps:
            self._seed_features[draw] = features
        return features


def _mix(seed: int, draw: int) -> int:
    return (seed * 1_000_003 + draw * 7919 + 17) % (1 << 62)


def _size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]


def _is_scheduled(transform: Transform) -> bool:
    values = vars(transform).values() if hasattr(transform, "__dict__") else ()
    sides = transform.side if isinstance(transform, Crops) else ()
    return any(isinstance(value, Schedule) for value in (*values, *sides))


def _output(model: ImageModel, batch: Batch) -> Any:
    """Return the model's output for the images at the size of its input."""
    return model.run(model.resize(batch.inputs[0]), batch.args, (), to_output=True).output


def _check_start(inputs: Images | None, shape: tuple[int, ...] | None, settings: Settings) -> None:
    """Raise for arguments that would have no effect."""
    if inputs is not None and shape is not None:
        raise ValueError(
            f"inputs and shape={shape} are both given; expected shape= only for images from noise (inputs=None)."
        )
    for name in ("dose", "activation"):
        if inputs is None and getattr(settings, name) is not None:
            raise ValueError(
                f"{name}= is a target level relative to a seed image, and inputs is None; give inputs, or stop with "
                "on_step=."
            )


def _freeze(*functions: Any) -> None:
    """Switch off gradients of the weights; ``attribution_context`` restores the flags."""
    for root in (root for function in functions if callable(function) for root in modules_behind(function)):
        for p in root.parameters():
            if not p.is_inference():
                p.requires_grad_(False)


def _images_from_noise(model: ImageModel, shape: tuple[int, ...] | None) -> Tensor:
    """Return grey images with the dtype and device of the model."""
    if shape is None or len(shape) != 4 or min(shape) < 1:
        raise ValueError(
            f"inputs is None and shape is {shape}; to start from noise, give the shape of the images: shape=(rows, "
            "channels, height, width)."
        )
    first = next((p for root in modules_behind(model.forward_func) for p in root.parameters()), torch.zeros(()))
    return torch.full(shape, 0.5, dtype=first.dtype, device=first.device)


def resolve_contrast(
    model: ImageModel, feature: Feature, contrast: Any, batch: Batch
) -> tuple[ImageModel, Feature] | None:
    """Return the model and feature of ``contrast=``: the same feature in another model, or another feature in this."""
    if contrast is None:
        return None

    def sample() -> tuple[Tensor, tuple[Any, ...]]:
        one = batch.cut(0, 1)
        return model.resize(one.inputs[0]), one.args

    if is_model(contrast, feature, sample):
        call = as_called(differentiable(contrast), batch.inputs[0].device.type)
        second = model.with_forward_func(contrast, call)
        return second, feature.in_model(model, second)
    return model, replace(feature, **{"target" if isinstance(feature, OutputFeature) else "selector": contrast})  # type: ignore[type-var]


def is_model(value: Any, feature: Any, sample: Callable[[], tuple[Tensor, tuple[Any, ...]]]) -> bool:
    """Return whether ``contrast=`` is a second model, and not an objective, a target or a selector.

    Modules, zoo classifiers, and methods and partials of modules are models. Any other function is a model where it
    accepts images: functions of the layers and of an activation fail on them. For a unit's feature it must also hold a
    module, in which the unit's layer is looked up.

    Args:
        value: the argument.
        feature: the feature that is raised.
        sample: returns an image and the additional forward arguments, to try a function on.
    """
    if isinstance(value, nn.Module) or preprocesses(value):
        return True
    if not callable(value) or isinstance(value, Objective) or is_lucent(value):
        return False
    owner = value.func if isinstance(value, functools.partial) else getattr(value, "__self__", None)
    if isinstance(owner, nn.Module):
        return True
    if isinstance(feature, UnitFeature) and not modules_behind(value):
        return False
    images, args = sample()
    try:
        with torch.no_grad():
            output = value(images, *args)
    except (TypeError, AttributeError):
        return False
    except Exception:  # a model that cannot process the image: running it later raises the error that says so
        return True
    return not (isinstance(feature, UnitFeature) and isinstance(output, Tensor) and output.dim() < 2)
