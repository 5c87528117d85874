"""Captum classes of feature accentuation: raise a feature in images, chunk by chunk, and show where it responds."""

import warnings
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any, Unpack

import torch
from captum.robust import Perturbation
from torch import Tensor, nn
from torch.nn.functional import pad

from ..._compat import GradientAttribution, NeuronAttribution
from ...batch import OutputFn, chunks, python_index
from ...hooks import ForwardFunc, check_preprocess, find_layer, modules_behind
from ...metrics.trust import Trust
from ..base import attribution_context, captum_method
from .activations import ModelInputs
from .evidence import assess, target_levels
from .objectives import Feature
from .optimization import Images, Problem, StopAtLevel, Trajectory, balance, optimize
from .parameterizations import ImageParameters, is_lucent_param_f, start_from_images, start_from_noise
from .result import Accentuation
from .settings import Ball, FeatureDistance, Options, Settings, settings_of
from .transforms import Size, seed_all

Preprocess = Callable[[Tensor], Tensor]


class FeatureAccentuation(GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Change an image slightly so that one output rises; the change shows what the output responds to, and where.

    .. math:: x^* = \arg\max_x \; \mathrm{E}_\tau\, f(\tau(x)) - w B\, \mathrm{E}_\tau\, d(\tau(x), \tau(x_0))

    Symbols: x the image, which starts at the input x_0; f the output; E_τ the mean over random augmentations τ, the
    same for x and x_0; d a distance between activations; w its weight; B the ratio of the gradients of f and d near
    x_0.

    Args:
        forward_func: the model, or any function around it.
        preprocess: the model's own normalisation of images in [0, 1]; None where ``forward_func`` includes it.
        size: height and width of the model's input, where images have another size; None takes the images' own.
        output_fn: reads the tensor to explain from the model's output; None uses
            :func:`~xinc_captum.batch.output_tensor`, which reads scores of transformers and torchvision models too.
        layer_to_grid: as of :class:`NeuronFeatureAccentuation`, for objectives that read layers.
        unit_axis: axis of the units in the layers that an objective reads, see :class:`NeuronFeatureAccentuation`.

    Raises:
        ValueError: images outside [0, 1] or with NaN, an impossible target or dose, an output with gradient zero.
        LayerError: a layer is not in the model, never runs, or runs twice.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 26 * 26, 5))
        >>> result = FeatureAccentuation(net).accentuate(torch.rand(2, 3, 28, 28), target=[1, 4], n_steps=3)
        >>> result.images.shape, result.masks.shape
        (torch.Size([2, 3, 28, 28]), torch.Size([2, 3, 28, 28]))

    Source: Hamblin et al., "Feature accentuation" (arXiv 2402.10039).
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        *,
        preprocess: Preprocess | None = None,
        size: int | Size | None = None,
        output_fn: OutputFn | None = None,
        layer_to_grid: Callable[[Tensor], Tensor] | None = None,
        unit_axis: int | None = None,
    ) -> None:
        GradientAttribution.__init__(self, forward_func)
        self.model = _model_inputs(forward_func, preprocess, size, layer_to_grid, unit_axis, output_fn)

    @captum_method
    def attribute(
        self, inputs: Images, target: Any = None, additional_forward_args: Any = None, **options: Unpack[Options]
    ) -> Images:
        """Return where the output is sensitive to the image: Σ of |∂f/∂x| over every ``mask_every``-th step."""
        return _match_container(inputs, self.accentuate(inputs, target, additional_forward_args, **options).masks)

    def perturb(
        self, inputs: Images, target: Any = None, additional_forward_args: Any = None, **options: Unpack[Options]
    ) -> Images:
        """Return the accentuated images, (N, C, H, W) in [0, 1], as ``captum.robust`` expects."""
        return _match_container(inputs, self.accentuate(inputs, target, additional_forward_args, **options).images)

    def accentuate(
        self,
        inputs: Images | None,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        **options: Unpack[Options],
    ) -> Accentuation:
        """Return images, masks, and the record of the optimization.

        Args:
            inputs: (N, C, H, W) in [0, 1]; None starts from noise, which is ordinary feature visualization.
            target: a Captum target (a list or 1-D tensor holds one for each row), an objective of
                :mod:`~xinc_captum.attributions.accentuation.objectives`,
                a function such as ``lambda layers: layers("fc")[:, 0]``, "layer:unit", or a Lucent objective.
            additional_forward_args: additional arguments of the model. A tensor with one entry per sample is sliced
                and repeated with the inputs; any other is passed unchanged
                (:func:`~xinc_captum.batch.settle_arguments` decides).
            shape: (N, C, H, W) of the images where ``inputs`` is None.
            **options: n_steps, lr, regularizer, dose, seed, ... (:class:`.Settings` describes each).
        """
        return _accentuate(self.model, Feature(target), inputs, additional_forward_args, shape, options)


class NeuronFeatureAccentuation(NeuronAttribution, GradientAttribution, Perturbation):  # type: ignore[misc]
    r"""Raise a unit, channel, direction or position of a layer by a small change of an image.

    .. math:: x^* = \arg\max_x \; \mathrm{E}_\tau\, u(a(\tau(x))) - w B\, \mathrm{E}_\tau\, d(\tau(x), \tau(x_0))

    Symbols: a the layer's activation, u the unit in it. All other symbols, arguments and errors are those of
    :class:`FeatureAccentuation`. LayerError is also raised where it cannot be determined which axis holds the units.

    Args:
        layer: a module or dotted name.
        device_ids: unused, part of Captum's signature.
        layer_to_grid: rearranges the activation to (rows, channels, h, w), such as :func:`xinc_captum.layer_to_grid`.
            None lays out the tokens of a vision transformer without its class and register tokens;
            ``unit_axis=-1`` keeps (rows, tokens, channels) with all of them.
        unit_axis: axis of the activation's units, to which an int, a direction or a position refers, for example -1 for
            (rows, h, w, channels) or (rows, tokens, channels). None determines it from the layer's class; for four
            axes also from the input's height and width and the modules inside the layer. Tuples and functions refer
            to the layer's own axes.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
        >>> NeuronFeatureAccentuation(net, "1").attribute(torch.rand(2, 3, 28, 28), 5, n_steps=3).shape
        torch.Size([2, 3, 28, 28])

    Source: as :class:`FeatureAccentuation`.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layer: nn.Module | str,
        device_ids: list[int] | None = None,
        *,
        preprocess: Preprocess | None = None,
        size: int | Size | None = None,
        layer_to_grid: Callable[[Tensor], Tensor] | None = None,
        unit_axis: int | None = None,
    ) -> None:
        NeuronAttribution.__init__(self, forward_func, find_layer(forward_func, layer), device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.model = _model_inputs(forward_func, preprocess, size, layer_to_grid, unit_axis)

    @captum_method
    def attribute(
        self,
        inputs: Images,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        **options: Unpack[Options],
    ) -> Images:
        """Return where the unit is sensitive to the image: Σ of |∂u/∂x| over every ``mask_every``-th step."""
        result = self.accentuate(inputs, neuron_selector, additional_forward_args, **options)
        return _match_container(inputs, result.masks)

    def perturb(
        self,
        inputs: Images,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        **options: Unpack[Options],
    ) -> Images:
        """Return the accentuated images, (N, C, H, W) in [0, 1]."""
        result = self.accentuate(inputs, neuron_selector, additional_forward_args, **options)
        return _match_container(inputs, result.images)

    def accentuate(
        self,
        inputs: Images | None,
        neuron_selector: Any = None,
        additional_forward_args: Any = None,
        *,
        shape: tuple[int, ...] | None = None,
        **options: Unpack[Options],
    ) -> Accentuation:
        """Return images, masks, and the record of the optimization; see :meth:`FeatureAccentuation.accentuate`.

        An int ``neuron_selector`` is a channel's mean over positions, or a unit of a flat layer. A tuple indexes the
        dimensions after the rows, and slices are summed, as in Captum. A function maps the activation to one number for
        each row. A float tensor (channels,) is a direction. A list holds one of these for each row.
        """
        feature = Feature(neuron_selector, self.layer)
        return _accentuate(self.model, feature, inputs, additional_forward_args, shape, options)


def _model_inputs(
    forward_func: ForwardFunc,
    preprocess: Preprocess | None,
    size: int | Size | None,
    layer_to_grid: Callable[[Tensor], Tensor] | None,
    unit_axis: int | None,
    output_fn: OutputFn | None = None,
) -> ModelInputs:
    """Check preprocessing and size; return the model together with its arguments."""
    check_preprocess(forward_func, preprocess)
    size = python_index(size)
    both = size if isinstance(size, tuple | list | None) else (size, size)
    if both is not None and (len(both) != 2 or not all(isinstance(side, int) and side > 0 for side in both)):
        raise ValueError(
            f"size is {size!r}; expected the height and width of the model's input, such as 224 or (224, 160)."
        )
    sides = both if both is None else (both[0], both[1])
    return ModelInputs(forward_func, preprocess, output_fn, layer_to_grid, unit_axis=unit_axis, size=sides)


def _match_container(inputs: Images, result: Tensor) -> Images:
    """Return a tuple where the inputs are one, as Captum's metrics expect."""
    return (result,) if isinstance(inputs, tuple) else result


def _accentuate(
    model: ModelInputs,
    feature: Feature,
    inputs: Images | None,
    args: Any,
    shape: tuple[int, ...] | None,
    options: Options,
) -> Accentuation:
    """Raise a feature's score from images, or from noise of a shape."""
    settings = settings_of(options)
    contrast = modules_behind(settings.contrast) if callable(settings.contrast) else ()
    with attribution_context(model.forward_func, *contrast):
        problem = Problem.of(model, feature, inputs, args, shape, settings)
        # autocast is for the models alone; attribution_context restores it
        torch.set_autocast_enabled(problem.images.device.type, False)
        parts = _solve_chunks(problem)
        if len(parts) > 1:
            parts[0] = replace(parts[0], feature=feature.objective(problem.batch.rows).name)
    return _join(problem, parts)


def _solve_chunks(problem: Problem) -> list[Accentuation]:
    """Solve the problem for ``internal_batch_size`` images at a time; Ctrl-C leaves the remaining images unchanged."""
    n = problem.batch.rows
    stopped, judge = replace(problem.settings, on_step=lambda *_: True), partial(assess, problem)
    parts: list[Accentuation] = []
    for start, stop in chunks(n, problem.settings.internal_batch_size or n):
        chunk = problem.rows(start, stop)
        if any(part.interrupted for part in parts):
            chunk.settings = stopped
        try:
            parts.append(_solve(chunk, judge))
        except KeyboardInterrupt:  # before this chunk's first step: the chunks before it are kept
            if not parts:
                raise
            parts.append(replace(_solve(replace(chunk, settings=stopped), judge), interrupted=True))
    return parts


def _solve(problem: Problem, judge: Callable[[Accentuation], Trust]) -> Accentuation:
    """Raise the score of a chunk of images; ``judge`` computes the verdicts on the joined result of all chunks."""
    settings, seeds = problem.settings, problem.seeds
    seed_all(settings.seed)  # for objectives and parameterizations that draw random numbers
    # Both cached properties run a model. They run here so that models that draw random numbers do so in a fixed order.
    _ = problem.target_score, problem.contrast_score
    distance = problem.distance
    params, draw = _start(problem)
    before = None if seeds is None else problem.score(seeds)
    weight = 0.0 if distance is None else _distance_weight(problem, distance[0], (params, draw))
    reference, stop = None, None
    if before is not None and (settings.dose is not None or settings.activation is not None):
        reference, level = target_levels(problem, before)
        stop = StopAtLevel(params, lambda: problem.score(draw().detach()), before, level)
    if seeds is not None and stop is not None and bool(stop.reached.all()):
        images, after = seeds, stop.start
        trajectory = Trajectory(after.new_zeros(0, len(after)), None, torch.zeros_like(images), 0)
    else:
        project = _projection(problem, (params, draw))
        trajectory = optimize(problem, (params, draw), weight=weight, stop=stop, project=project)
        if stop is not None:
            stop.finish()
        images = _final_images(problem, draw, stop)
        after = problem.score(images)
    dose = None
    if stop is not None and reference is not None and settings.dose is not None:
        span = torch.where(reference == stop.start, 1.0, reference - stop.start)
        dose = (after - stop.start) / span
    return Accentuation(
        images=images,
        seeds=seeds,
        before=before,
        after=after,
        dose=dose,
        level=None if stop is None else stop.level,
        **vars(trajectory),
        feature=problem.target_score.objective.name,
        layer=None if distance is None else problem.model.name_of(distance[1]),
        settings=_describe(settings),
        _assess=judge,
    )


def _start(problem: Problem) -> ImageParameters:
    """Return the parameters to start from, and the function that returns their images."""
    settings, images = problem.settings, problem.images
    if not is_lucent_param_f(settings.parameterization):
        if problem.seeds is not None:
            return start_from_images(settings.parameterization, images)
        generator = torch.Generator().manual_seed(settings.seed)
        return start_from_noise(settings.parameterization, images, generator, problem.batch.start, problem.total)
    if problem.seeds is not None:
        raise ValueError(
            "this parameterization is a function without an image (Lucent's param_f), so it cannot start from "
            "inputs; give inputs=None, or one of Fourier(), Pixel() and Phase()."
        )
    params, image_f = settings.parameterization()
    _check_images_of(image_f, problem)
    return tuple(params), lambda: image_f().to(images.dtype)


def _check_images_of(image_f: Callable[[], Tensor], problem: Problem) -> None:
    """Raise where the images of Lucent's ``param_f`` differ in shape or device from those that ``shape`` describes."""
    with torch.no_grad():
        images: Any = image_f()
    like = problem.images
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.dim() != 4:
        kind = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"the parameterization returns a {kind}; expected float images (N, C, H, W).")
    if images.shape[:2] != like.shape[:2] or images.device != like.device:
        hint = " internal_batch_size cuts the batch; leave it out." if problem.total != like.shape[0] else ""
        raise ValueError(
            f"the parameterization returns images of shape {tuple(images.shape)} on {images.device}; expected the "
            f"numbers of images and channels in shape=, {tuple(like.shape[:2])}, on {like.device}, the model's "
            f"device.{hint}"
        )


def _distance_weight(problem: Problem, regularizer: FeatureDistance, parameters: ImageParameters) -> Tensor:
    """Return the factor of the feature distance: a fixed one, (), or one measured for each image, (N,)."""
    if regularizer.balance is not None:
        return torch.tensor(regularizer.weight * regularizer.balance).to(problem.images.device)
    return regularizer.weight * balance(problem, parameters)


def _projection(problem: Problem, parameters: ImageParameters) -> Callable[[], None] | None:
    """Return a function that projects images that have left the ball, with their parameters, onto its surface."""
    ball, seeds, encode = problem.settings.regularizer, problem.seeds, problem.settings.parameterization
    if not isinstance(ball, Ball) or seeds is None:
        return None
    params, draw = parameters
    with torch.no_grad():
        encoded, decode = encode.at(seeds)
        residual = seeds - decode(encoded)

    def project() -> None:
        with torch.no_grad():
            images = draw()
            inside = ball.project(images, seeds)
            outside = (inside - images).abs().flatten(1).amax(1) > 1e-6
            for p, new in zip(params, encode.at(inside - residual)[0], strict=True):
                p.copy_(torch.where(outside.reshape(-1, *[1] * (p.dim() - 1)), new, p))

    return project


def _final_images(problem: Problem, draw: Callable[[], Tensor], stop: StopAtLevel | None) -> Tensor:
    ball, seeds = problem.settings.regularizer, problem.seeds
    with torch.no_grad():
        images = draw().detach()
        if seeds is not None and isinstance(ball, Ball):
            images = ball.project(images, seeds).clamp(0, 1)
        if seeds is not None and stop is not None:  # a dose of 0 is the seed itself, bit-identical
            images = torch.where((stop.level == stop.start).reshape(-1, 1, 1, 1), seeds, images)
        return images


def _join(problem: Problem, parts: list[Accentuation]) -> Accentuation:
    """Concatenate the results of chunks, in the dtype of the inputs."""

    def cat(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    def cat_steps(values: list[Tensor]) -> Tensor:
        return torch.cat([pad(value, (0, 0, 0, steps - len(value)), value=float("nan")) for value in values], 1)

    dtype = problem.model.dtype or parts[0].images.dtype
    steps = max(len(part.scores) for part in parts)
    distances = None
    if any(part.distances is not None for part in parts):  # chunks that start at their levels have none
        distances = [part.scores[:0] if part.distances is None else part.distances for part in parts]
    result = replace(
        parts[0],
        images=cat("images").to(dtype).contiguous(),
        masks=cat("masks").to(dtype).contiguous(),
        seeds=None if problem.seeds is None else problem.seeds.detach().to(dtype),
        scores=cat_steps([part.scores for part in parts]),
        distances=None if distances is None else cat_steps(distances),
        **{name: cat(name) for name in ("before", "after", "dose", "level")},
        steps=max(part.steps for part in parts),
        interrupted=any(part.interrupted for part in parts),
        layer=parts[-1].layer,
    )
    _warn_of_levels(result)
    return result


def _warn_of_levels(result: Accentuation) -> None:
    if result.level is None or result.before is None:
        return
    span = result.level - result.before
    fractions = (result.after - result.before) / torch.where(span == 0, 1, span)
    short = [row for row, fraction in enumerate(fractions.tolist()) if span[row] != 0 and fraction < 0.98]
    if short:
        row = short[0]
        warnings.warn(
            f"{len(short)} of {len(span)} images did not reach their level: image {row} has the score "
            f"{float(result.after[row]):.4g}, between {float(result.before[row]):.4g} and the level "
            f"{float(result.level[row]):.4g}, after {result.steps} steps. Give more n_steps, a larger lr or a lighter "
            "regularizer, or a smaller dose.",
            stacklevel=5,
        )


def _describe(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values: large tensors as their shape, functions as their name."""

    def describe(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.tolist() if value.numel() <= 16 else f"tensor {tuple(value.shape)}"
        if is_dataclass(value) and not isinstance(value, type):
            return {"kind": type(value).__name__} | {k: describe(v) for k, v in vars(value).items()}
        if isinstance(value, list | tuple):
            return [describe(v) for v in value]
        plain = isinstance(value, int | float | str | bool | None)
        return value if plain else getattr(value, "__name__", type(value).__name__)

    return {name: describe(value) for name, value in vars(settings).items() if name not in ("on_step", "show_progress")}
