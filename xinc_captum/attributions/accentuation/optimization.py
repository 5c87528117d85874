"""The optimization of one call: scores and distances of images in random views, and gradient ascent up to a level."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import Batch, settle_arguments
from ...hooks import GradientError, layer_name, leads_to, modules_behind, no_gradient, warn_of_crop
from ...images import check_images
from ...progress import progress
from ..base import as_called, differentiable
from .activations import Activations, ModelInputs, early_layer
from .objectives import Feature, ScoredModel, resolve_contrast
from .parameterizations import ImageParameters, Params, is_lucent_param_f
from .settings import FeatureDistance, Settings
from .transforms import Crops, Geometry, Noise, Schedule, Size, Transform, View, generators_in, same_draws, view

Images = Tensor | tuple[Tensor, ...]


@dataclass(eq=False)
class Problem:
    """A feature whose score is raised in images, with everything that the optimization needs.

    Attributes:
        model: the model and its arguments; its ``size`` is that of the views.
        batch: the seeds (for noise, grey images of the same shape, dtype and device) and the additional arguments.
        contrast: model and feature whose score is subtracted, or None.
        total: number of images in the call; ``batch`` may hold only some of them.
    """

    model: ModelInputs
    feature: Feature
    settings: Settings
    batch: Batch
    from_noise: bool = False
    contrast: tuple[ModelInputs, Feature] | None = None
    total: int = -1

    def __post_init__(self) -> None:
        if self.total < 0:
            self.total = self.batch.rows
        self._views: dict[int, View] = {}
        self._seed_features: dict[int, Tensor] = {}
        self._draws_checked = all(isinstance(t, Geometry | Noise) for t in self.settings.transforms)
        self._graphs_checked = False
        self._distance_axis: int | None = None

    @classmethod
    def of(
        cls,
        model: ModelInputs,
        feature: Feature,
        inputs: Images | None,
        args: Any,
        shape: tuple[int, ...] | None,
        settings: Settings,
    ) -> "Problem":
        """Check the arguments of a call, and switch off gradients of the weights (``attribution_context`` restores)."""
        images = _start_images(model, inputs, shape, settings)
        for function in filter(callable, (model.forward_func, settings.contrast)):
            for weight in (p for root in modules_behind(function) for p in root.parameters() if not p.is_inference()):
                weight.requires_grad_(False)
        call = as_called(differentiable(model.forward_func), images.device.type)
        model = replace(model, call=call, size=model.size or _size(images))
        if images.dtype in (torch.bfloat16, torch.float16):  # spectra and distances need more digits
            model, images = replace(model, dtype=images.dtype), images.float()
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
        """The seeds, (N, C, H, W); for noise, grey images of the same shape."""
        return self.batch.inputs[0]

    @property
    def seeds(self) -> Tensor | None:
        """The images to start from, (N, C, H, W), or None for noise."""
        return None if self.from_noise else self.images

    @cached_property
    def model_inputs(self) -> Tensor:
        """The images at the size of the model's input."""
        return self.model.resize(self.images)

    @cached_property
    def target_score(self) -> ScoredModel:
        """The model and objective whose score is raised."""
        return self.scored(self.model, self.feature)

    @cached_property
    def contrast_score(self) -> ScoredModel | None:
        """The model and objective whose score is subtracted, or None."""
        return None if self.contrast is None else self.scored(*self.contrast)

    def scored(self, model: ModelInputs, feature: Feature) -> ScoredModel:
        """Return a model and the objective of a feature, after a trial run on the images."""
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
            activations = self.target_score.run(*self._inputs(views), layer)
        scores = self._scores(views, activations)
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

    def _scores(self, views: Tensor, activations: Activations | None = None) -> Tensor:
        """Return the scores of views, less those of the contrast: (views, rows)."""
        target, contrast = self.target_score, self.contrast_score
        values = target.score(*self._inputs(views)) if activations is None else target.objective(activations)
        scores = self._split(values, views, target)
        if contrast is not None:
            scores = scores - self._split(contrast.score(*self._inputs(views)), views, contrast)
        return scores

    def _inputs(self, views: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """Return views (views, rows, ...) as one batch, and the additional arguments for it."""
        args = Batch.of(views[0], self.batch.args).repeat(views.shape[0]).args if self.batch.args else ()
        return views.flatten(0, 1), args

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
        """Make the views twice, once in a call, and raise if they differ: candidate and seed need the same views."""
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
        if draw in self._views:
            return self._views[draw]
        device, seed = images.device, _mix(self.settings.seed, draw)
        show = view(
            self.settings.transforms,
            _size(images),
            self.model.size or _size(images),
            progress=draw / max(1, self.n_draws - 1),
            generator=torch.Generator().manual_seed(seed),
            noise_generator=torch.Generator(device).manual_seed(seed),
        )
        if self.n_draws < self.settings.n_steps:  # else used once
            self._views[draw] = show
        return show

    def _features_of_seeds(self, draw: int, show: View, layer: nn.Module) -> Tensor:
        """Return the seeds' activations in the views of a draw: computed once, up to the layer, without a graph."""
        if draw in self._seed_features:
            return self._seed_features[draw]
        with torch.no_grad(), self._same_draws(draw, self.images):
            activations = self.model.run(*self._inputs(show(self.images)), (layer,), to_output=False)
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


def _output(model: ModelInputs, batch: Batch) -> Any:
    return model.run(model.resize(batch.inputs[0]), batch.args, (), to_output=True).output_or_container


def _start_images(
    model: ModelInputs, inputs: Images | None, shape: tuple[int, ...] | None, settings: Settings
) -> Tensor:
    """Check the inputs, and raise for arguments without effect; without inputs return grey images of the shape."""
    if inputs is not None:
        if shape is not None:
            raise ValueError(
                f"inputs and shape={shape} are both given; expected shape= only for images from noise (inputs=None)."
            )
        return check_images(inputs)
    for name in ("dose", "activation"):
        if getattr(settings, name) is not None:
            raise ValueError(
                f"{name}= is a target level relative to a seed image, and inputs is None; give inputs, or stop with "
                "on_step=."
            )
    if shape is None or len(shape) != 4 or min(shape) < 1:
        raise ValueError(
            f"inputs is None and shape is {shape}; to start from noise, give the shape of the images: shape=(rows, "
            "channels, height, width)."
        )
    first = next((p for root in modules_behind(model.forward_func) for p in root.parameters()), torch.zeros(()))
    return torch.full(shape, 0.5, dtype=first.dtype, device=first.device)


@dataclass
class Trajectory:
    """The record of an optimization; :class:`.Accentuation` describes its fields."""

    scores: Tensor
    distances: Tensor | None
    masks: Tensor
    steps: int
    interrupted: bool = False


def optimize(
    problem: Problem,
    parameters: ImageParameters,
    *,
    weight: Tensor | float = 0.0,
    stop: "StopAtLevel | None" = None,
    project: Callable[[], None] | None = None,
) -> Trajectory:
    r"""Raise the score of each image, independently of the others.

    .. math:: p \leftarrow p + \mathrm{step}(\partial (s f - w d) / \partial p)

    Symbols: p the parameters, changed in place; step the optimizer's; f the score; d the distance; w the weight, one
    number or (N,); s = -1 where ``stop`` lowers the score of an image, else 1. ``project`` is called after each update.
    Ctrl-C after the first update ends the optimization and returns its record so far.
    """
    settings, (params, draw) = problem.settings, parameters
    optimizer = settings.optimizer(params, lr=settings.lr)  # default: Steepest in settings.py
    for group in optimizer.param_groups:
        if "rows" in group and is_lucent_param_f(settings.parameterization):  # leaves may be shared by all images
            group["rows"] = problem.batch.rows
    mask_every = settings.mask_every if problem.distance is not None else 1
    steps = progress(range(settings.n_steps), "optimization", show=True) if settings.show_progress else None
    sign = 1.0 if stop is None else stop.sign
    scores: list[Tensor] = []
    distances: list[Tensor] = []
    mask = torch.zeros(())
    step, interrupted = 0, False
    try:
        for step in range(settings.n_steps):
            images = draw()
            # The gradient is taken to the pixels first, because the mask is made of it, and then to the parameters.
            pixels = images.detach().requires_grad_()
            score, distance = problem.evaluate(pixels, step)
            scores.append(score.detach() if stop is None else torch.where(stop.live() > 0, score.detach(), torch.nan))
            if distance is not None:
                distances.append(distance.detach())
            gradient, score_gradient = _gradients(pixels, score * sign, distance, weight, step % mask_every == 0)
            if score_gradient is not None:
                slope = score_gradient.abs()
                slope = slope if stop is None else slope * _expand(stop.live(), slope)
                mask = mask + slope if mask.dim() else slope
            if settings.on_step is not None and settings.on_step(step, pixels.detach(), scores[-1]):
                break
            if step == 0 and score_gradient is not None:
                _check_gradient(problem, score_gradient)
            updates = torch.autograd.grad(images, params, -gradient, allow_unused=True)
            for p, update in zip(params, updates, strict=True):
                p.grad = update
            optimizer.step()
            step += 1
            if steps is not None:
                next(steps, None)
            if project is not None:
                project()
            if stop is not None and stop.after(step):
                break
    except KeyboardInterrupt:
        if step == 0:
            raise
        interrupted = True
    n = min(len(scores), max(step, 1)) if interrupted else len(scores)
    return Trajectory(
        torch.stack(scores[:n]), torch.stack(distances[:n]) if distances else None, mask, step, interrupted
    )


def _check_gradient(problem: Problem, gradient: Tensor) -> None:
    """Raise where the score has no gradient; this is the only time that the loop waits for the device."""
    invalid = ~torch.isfinite(gradient).flatten(1).all(1)
    if bool(invalid.any()):
        raise FloatingPointError(
            f"the score's gradient is NaN or infinite in image {int(invalid.nonzero()[0])}; look for NaN in the "
            "model's weights, an overflow in half precision, or a square root or logarithm of 0 in preprocess."
        )
    zero = ~gradient.flatten(1).ne(0).any(1)
    if bool(zero.any()):
        rows = ", ".join(str(problem.batch.start + row) for row in zero.nonzero()[:, 0].tolist())
        raise ValueError(
            f"{problem.target_score.objective.name} does not respond: its gradient is zero everywhere in image {rows} "
            "(a dead or saturated unit). Choose another unit, the layer before its activation function, or another "
            "image."
        )


def _gradients(
    pixels: Tensor, score: Tensor, distance: Tensor | None, weight: Tensor | float, with_mask: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the objective, and of the score alone (one more backward pass) or None."""
    if distance is None:
        (of_score,) = torch.autograd.grad(score.sum(), pixels)
        return of_score, of_score
    if not with_mask:
        (total,) = torch.autograd.grad((score - weight * distance).sum(), pixels)
        return total, None
    (of_score,) = torch.autograd.grad(score.sum(), pixels, retain_graph=True)
    (of_distance,) = torch.autograd.grad((weight * distance).sum(), pixels)
    return of_score - of_distance, of_score


def balance(problem: Problem, parameters: ImageParameters) -> Tensor:
    r"""Return the ratio of the gradients of score and distance for each image: (N,), float32.

    .. math:: B = \sum |\partial f / \partial p| \,/\, \sum |\partial d / \partial p|

    Symbols: f the score, d the distance, p the parameters. B is measured at a fixed random perturbation of the images
    with the root mean square .01, because at the seed the distance has no gradient. The parameters are restored.
    """
    params, draw = parameters
    generator = torch.Generator().manual_seed(problem.settings.seed)
    with torch.no_grad():
        originals = [p.clone() for p in params]
        noise = [torch.randn((1, *p.shape[1:]), generator=generator).to(p) for p in params]  # the same for every row
        start = draw()
        _perturb(params, originals, noise, torch.full((len(start),), 1e-2).to(start))
        change = (draw() - start).flatten(1).square().mean(1).sqrt().clamp_min(1e-12)
        _perturb(params, originals, noise, 1e-2 * 0.01 / change)
    images = draw()
    pixels = images.detach().requires_grad_()
    score, distance = problem.evaluate(pixels, 0)
    sums = []
    for value, keep in ((score, True), (distance if distance is not None else score, False)):
        (gradient,) = torch.autograd.grad(value.sum(), pixels, retain_graph=keep)
        slopes = torch.autograd.grad(images, params, gradient, retain_graph=keep, allow_unused=True)
        sums.append(
            torch.stack([s.flatten(1).abs().sum(1, dtype=torch.float32) for s in slopes if s is not None]).sum(0)
        )
    with torch.no_grad():
        for p, original in zip(params, originals, strict=True):
            p.copy_(original)
    return sums[0] / sums[1].clamp_min(torch.finfo(torch.float32).tiny)


def _perturb(params: Params, originals: list[Tensor], noise: list[Tensor], scale: Tensor) -> None:
    for p, original, n in zip(params, originals, noise, strict=True):
        p.copy_(original + n * _expand(scale, p))


@dataclass
class StopAtLevel:
    """Stop the optimization of each image when its score without random views, ``score()``, reaches its level.

    Between the last step below a level and the first beyond it, the parameters are bisected towards the crossing, so
    the result lies on the level, and higher levels lie further along the same path. ``start`` are the seeds' scores.
    """

    params: Params
    score: Callable[[], Tensor]
    start: Tensor
    level: Tensor

    def __post_init__(self) -> None:
        self.sign = torch.where(self.level < self.start, -1.0, 1.0).to(self.start)
        self.reached = self.level == self.start
        self._best = self.start * self.sign
        self._best_params = [p.detach().clone() for p in self.params]
        self._low_params = [p.detach().clone() for p in self.params]
        self._last_params = [p.detach().clone() for p in self.params]

    def live(self) -> Tensor:
        """Return 1 for images that have not reached their level, else 0: (N,)."""
        return (~self.reached).to(self.start)

    def after(self, _step: int) -> bool:
        """Update the state after a step; return True when all images have reached their levels."""
        with torch.no_grad():
            score = self.score() * self.sign
            arrived = ~self.reached & (score >= self.level * self.sign)
            better = ~self.reached & (score > self._best)
            self._best = torch.where(better, score, self._best)
            groups = zip(self._best_params, self._low_params, self._last_params, self.params, strict=True)
            for best, low, last, p in groups:
                low.copy_(torch.where(_expand(arrived, p), last, low))
                best.copy_(torch.where(_expand(better, p), p, best))
                last.copy_(p)
            self.reached = self.reached | arrived
        return bool(self.reached.all())

    def finish(self) -> Tensor:
        """Move every image to its level, or else to its score nearest to the level; return the scores, (N,)."""
        with torch.no_grad():
            improved = self._best > self.start * self.sign
            below, above = torch.zeros_like(self.start), torch.ones_like(self.start)
            for _ in range(12):
                middle = (below + above) / 2
                self._interpolate(middle)
                beyond = self.score() * self.sign >= self.level * self.sign
                above = torch.where(beyond, middle, above)
                below = torch.where(beyond, below, middle)
            self._interpolate(torch.where(improved & self.reached, above, torch.ones_like(above)))
            return self.score()

    def _interpolate(self, fraction: Tensor) -> None:
        for p, low, best in zip(self.params, self._low_params, self._best_params, strict=True):
            one = torch.ones((), dtype=p.dtype, device=p.device)
            p.copy_(low + (best - low) * torch.where(_expand(self.reached, p), _expand(fraction, p).to(p), one))


def _expand(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) to broadcast against (N, ...)."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
