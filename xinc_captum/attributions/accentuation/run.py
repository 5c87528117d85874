"""One ascent from beginning to end: start, balance, climb, stop at a level, answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...progress import progress
from .ascend import Climb, ascend, balance
from .dose import Dosing
from .parameterizations import Params, seeded, unseeded
from .regularizers import Ball, FeatureDistance
from .scene import Aim, Scene
from .settings import Settings
from .transforms import Size


@dataclass(frozen=True)
class Outcome:
    """What an ascent found.

    Attributes:
        images: (N, C, H, W) in [0, 1].
        climb: scores, distances, mask and steps.
        before: clean scores of the seeds, (N,), or None.
        level: the scores that were asked for, (N,), or None.
        dose: what was reached on the reference's scale, (N,), or None.
        after: clean scores of the images, (N,).
        weight: what the distance was multiplied with, (N,), or None.
    """

    images: Tensor
    climb: Climb
    before: Tensor | None
    after: Tensor
    weight: Tensor | None
    level: Tensor | None = None
    dose: Tensor | None = None


def run(
    aim: Aim,
    lowered: Aim | None,
    seeds: Tensor | None,
    like: Tensor,
    args: tuple[Any, ...],
    settings: Settings,
    size: Size,
    layer: nn.Module | None,
    level: Callable[[Tensor], tuple[Tensor, Tensor]] | None,
    start: int = 0,
    total: int | None = None,
) -> Outcome:
    """Raise an aim's score from the seeds (or from noise), as the settings say.

    Args:
        aim: what is raised.
        lowered: what is lowered, or None.
        seeds: images to start from, or None for noise.
        like: shape, dtype and device of the images.
        args: additional forward arguments.
        settings: the caller's choices.
        size: height and width of the views.
        layer: where a FeatureDistance is measured.
        level: from the seeds' clean scores (N,) to the reference level and the level to stop at, or None.
        start: where these images begin in the batch they were cut from.
        total: how many images that batch has (default: as many as ``like``).
    """
    regularizer = settings.regularizer
    distance = (
        (regularizer, layer) if isinstance(regularizer, FeatureDistance) and layer and seeds is not None else None
    )
    scene = Scene(
        aim,
        like if seeds is None else seeds,
        args,
        settings.transforms,
        size,
        settings.n_steps,
        settings.n_draws,
        settings.seed,
        lowered,
        distance,
    )
    params, draw = _start(settings, seeds, like, start, total)
    before = scene.clean(seeds) if seeds is not None else None
    weight = None
    if distance is not None:
        weight = _weight(distance[0], params, draw, scene, settings.seed)
    dosing, top = None, None
    if level is not None and before is not None:
        top, stop = level(before)
        dosing = Dosing(params, lambda: scene.clean(draw().detach()), before, stop)
    after = _after(dosing, _projection(regularizer, settings, seeds, params, draw))
    bar = progress(range(settings.n_steps), "ascent", show=settings.show_progress)

    def ended(step: int) -> bool:
        next(bar, None)
        return after(step)

    if dosing is not None and bool(dosing.reached.all()):
        nothing = torch.zeros_like(like)
        climb = Climb(before.new_zeros(0, len(before)) if before is not None else nothing, None, nothing, 0)
        dose = None if settings.dose is None else torch.zeros_like(dosing.start)
        return Outcome(like, climb, before, dosing.start, weight, dosing.level, dose)
    climb = ascend(
        params,
        draw,
        scene.evaluate,
        n_steps=settings.n_steps,
        lr=settings.lr,
        optimizer=settings.optimizer,
        weight=0.0 if weight is None else weight,
        mask_every=settings.mask_every if distance is not None else 1,
        sign=1.0 if dosing is None else dosing.sign,
        live=None if dosing is None else dosing.live,
        on_step=settings.on_step,
        after=ended,
        rows=None if hasattr(settings.parameterization, "at") else like.shape[0],
    )
    if dosing is not None:
        dosing.finish()
    with torch.no_grad():
        images = draw().detach()
        if seeds is not None:
            if isinstance(regularizer, Ball):
                images = regularizer.project(images, seeds).clamp(0, 1)
            if dosing is not None:  # a dose of nothing is the seed itself, bit for bit
                still = (dosing.level == dosing.start).reshape(-1, 1, 1, 1)
                images = torch.where(still, seeds, images)
    after_all = scene.clean(images)
    dose = None
    if dosing is not None and top is not None and settings.dose is not None:
        dose = (after_all - dosing.start) / torch.where(top == dosing.start, 1.0, top - dosing.start)
    return Outcome(images, climb, before, after_all, weight, None if dosing is None else dosing.level, dose)


def _start(
    settings: Settings, seeds: Tensor | None, like: Tensor, start: int, total: int | None
) -> tuple[Params, Callable[[], Tensor]]:
    if not hasattr(settings.parameterization, "at"):  # Lucent's param_f
        if seeds is not None:
            raise ValueError(
                "this parameterization is a function without an image (Lucent's param_f), so it cannot start from "
                "inputs; give inputs=None, or one of Fourier(), Pixel() and Phase()."
            )
        params, image_f = settings.parameterization()
        _check_drawn(image_f, like, total)
        return tuple(params), lambda: image_f().to(like.dtype)
    if seeds is None:
        return unseeded(settings.parameterization, like, torch.Generator().manual_seed(settings.seed), start, total)
    return seeded(settings.parameterization, seeds)


def _check_drawn(image_f: Callable[[], Tensor], like: Tensor, total: int | None) -> None:
    """Refuse images that a function without an image (Lucent's ``param_f``) draws and the model was not asked about."""
    with torch.no_grad():
        drawn: Any = image_f()
    if not isinstance(drawn, Tensor) or not drawn.is_floating_point() or drawn.dim() != 4:
        kind = f"{drawn.dtype} {tuple(drawn.shape)}" if isinstance(drawn, Tensor) else type(drawn).__name__
        raise ValueError(f"the parameterization draws a {kind}; wanted float images (N, C, H, W).")
    if drawn.shape[:2] != like.shape[:2] or drawn.device != like.device:
        cut = " internal_batch_size cuts the batch; leave it out." if total not in (None, like.shape[0]) else ""
        raise ValueError(
            f"the parameterization draws images of shape {tuple(drawn.shape)} on {drawn.device}; wanted as many images "
            f"and channels as shape says, {tuple(like.shape[:2])}, on {like.device}, the model's device.{cut}"
        )


def _weight(
    regularizer: FeatureDistance, params: Params, draw: Callable[[], Tensor], scene: Scene, seed: int
) -> Tensor:
    if regularizer.balance is not None:
        return torch.tensor(regularizer.weight * regularizer.balance).to(params[0].device)
    return regularizer.weight * balance(params, draw, scene.evaluate, seed=seed)


def _projection(
    regularizer: Any, settings: Settings, seeds: Tensor | None, params: Params, draw: Callable[[], Tensor]
) -> Callable[[], None] | None:
    """Write the image of each row that left the ball back into its parameters, as the original does."""
    if not isinstance(regularizer, Ball) or seeds is None:
        return None
    with torch.no_grad():
        encoded, decode = settings.parameterization.at(seeds)
        lost = seeds - decode(encoded)

    def project() -> None:
        with torch.no_grad():
            images = draw()
            inside = regularizer.project(images, seeds)
            left = (inside - images).abs().flatten(1).amax(1) > 1e-6
            for p, new in zip(params, settings.parameterization.at(inside - lost)[0], strict=True):
                p.copy_(torch.where(left.reshape(-1, *[1] * (p.dim() - 1)), new, p))

    return project


def _after(dosing: Dosing | None, project: Callable[[], None] | None) -> Callable[[int], bool]:
    def after(step: int) -> bool:
        if project is not None:
            project()
        return dosing.after(step) if dosing is not None else False

    return after
