"""One call: check the arguments, optimize chunk by chunk, and join the results."""

import warnings
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...batch import chunks
from ...hooks import modules_behind
from ...metrics.trust import Trust
from ..base import attribution_context
from .activations import ImageModel
from .evidence import assess, target_levels
from .objectives import Feature
from .optimize import StopAtLevel, Trajectory, balance, optimize
from .parameterizations import ImageParameters, is_lucent_param_f, start_from_images, start_from_noise
from .problem import Images, Problem
from .result import Accentuation
from .settings import Ball, FeatureDistance, Options, Settings, settings_of
from .transforms import seed_all


def accentuate(
    model: ImageModel,
    feature: Feature,
    inputs: Images | None,
    args: Any,
    shape: tuple[int, ...] | None,
    options: Options,
) -> Accentuation:
    """Raise a feature's score from images, or from noise of a shape.

    The models run in :func:`~xinc_captum.attributions.base.attribution_context`.
    """
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
    """Solve the problem for ``internal_batch_size`` images at a time; after Ctrl-C the others stay unchanged."""
    n = problem.batch.rows
    stopped, judge = replace(problem.settings, on_step=_stop), partial(assess, problem)
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
    """Raise the score of a chunk of images; ``judge`` is called with the result of all chunks."""
    settings, seeds = problem.settings, problem.seeds
    seed_all(settings.seed)  # for objectives and parameterizations that draw random numbers
    # Both cached properties run a model. They run here so that models that draw random numbers do so in a fixed order.
    _ = problem.target_score, problem.contrast_score
    distance = problem.distance
    params, draw = _start(problem)
    before = None if seeds is None else problem.score(seeds)
    weight: Tensor | float = 0.0 if distance is None else _distance_weight(problem, distance[0], (params, draw))
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
        masks=trajectory.mask,
        seeds=seeds,
        scores=trajectory.scores,
        distances=trajectory.distances,
        before=before,
        after=after,
        dose=dose,
        level=None if stop is None else stop.level,
        steps=trajectory.steps,
        interrupted=trajectory.interrupted,
        feature=problem.target_score.objective.name,
        layer=None if distance is None else problem.model.name_of(distance[1]),
        settings=_describe(settings),
        _assess=judge,
    )


def _stop(*_: Any) -> bool:
    return True


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
    """Return the factor of the feature distance, fixed () or measured (N,)."""
    if regularizer.balance is not None:
        return torch.tensor(regularizer.weight * regularizer.balance).to(problem.images.device)
    return regularizer.weight * balance(problem, parameters)


def _projection(problem: Problem, parameters: ImageParameters) -> Callable[[], None] | None:
    """Return a function that moves images outside the ball, and their parameters, to its surface, as the original."""
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
    regularizer, seeds = problem.settings.regularizer, problem.seeds
    with torch.no_grad():
        images = draw().detach()
        if seeds is None:
            return images
        if isinstance(regularizer, Ball):
            images = regularizer.project(images, seeds).clamp(0, 1)
        if stop is not None:  # a dose of 0 is the seed itself, bit-identical
            images = torch.where((stop.level == stop.start).reshape(-1, 1, 1, 1), seeds, images)
        return images


def match_container(inputs: Images, result: Tensor) -> Images:
    """Return a tuple where the inputs are one, as Captum's metrics expect."""
    return (result,) if isinstance(inputs, tuple) else result


def _join(problem: Problem, parts: list[Accentuation]) -> Accentuation:
    """Concatenate the results of chunks, in the dtype of the inputs."""

    def cat(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if any(value is None for value in values) else torch.cat(values)

    dtype = problem.model.dtype or parts[0].images.dtype
    steps = max(part.scores.shape[0] for part in parts)
    distances = None
    if any(part.distances is not None for part in parts):  # none of images that were at their level from the start
        empty = parts[0].scores.new_zeros
        distances = [empty(0, len(part.after)) if part.distances is None else part.distances for part in parts]
    result = replace(
        parts[0],
        images=cat("images").to(dtype).contiguous(),
        masks=cat("masks").to(dtype).contiguous(),
        seeds=None if problem.seeds is None else problem.seeds.detach().to(dtype),
        scores=torch.cat([_pad(part.scores, steps) for part in parts], 1),
        distances=None if distances is None else torch.cat([_pad(d, steps) for d in distances], 1),
        before=cat("before"),
        after=cat("after"),
        dose=cat("dose"),
        level=cat("level"),
        steps=max(part.steps for part in parts),
        interrupted=any(part.interrupted for part in parts),
        layer=parts[-1].layer,
    )
    _warn_of_levels(result)
    return result


def _pad(values: Tensor, steps: int) -> Tensor:
    missing = steps - values.shape[0]
    return values if not missing else torch.cat([values, values.new_full((missing, values.shape[1]), float("nan"))])


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
    """Return the settings as JSON values: tensors and functions by their shape or name."""

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
