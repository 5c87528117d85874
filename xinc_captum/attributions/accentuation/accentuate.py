"""One call: problem → optimise chunks → Accentuation."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import Batch, chunks, settle_arguments
from ...hooks import modules_behind, warn_of_crop
from ...images import check_images
from ...progress import progress
from ..base import as_called, attribution_context, differentiable
from .activations import ImageModel, needs
from .default_layers import early_layer, name_of
from .evidence import assessor, beside, is_model, levels
from .objectives import Feature, OutputFeature
from .optimize import Climb, DeadError, Dosing, ascend, balance
from .parameterizations import Params, seeded, unseeded
from .result import Accentuation
from .score import Aim, Ball, FeatureDistance, Scene
from .settings import Options, Settings, settings_of
from .transforms import Size, reseed, view


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
        raise ValueError(f"the parameterization draws a {kind}; expected float images (N, C, H, W).")
    if drawn.shape[:2] != like.shape[:2] or drawn.device != like.device:
        cut = " internal_batch_size cuts the batch; leave it out." if total not in (None, like.shape[0]) else ""
        raise ValueError(
            f"the parameterization draws images of shape {tuple(drawn.shape)} on {drawn.device}; expected as "
            "many images "
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


Images = Tensor | tuple[Tensor, ...]


def accentuated(
    model: ImageModel,
    feature: Feature,
    inputs: Images | None,
    args: Any,
    size: Size | None,
    shape: tuple[int, ...] | None,
    options: Options,
) -> Accentuation:
    """Check what was given, climb chunk by chunk, and put the answer together."""
    settings = settings_of(options)
    also = tuple(modules_behind(settings.contrast)) if callable(settings.contrast) else ()
    with attribution_context(model.forward_func, *also):
        _freeze(model, *also)
        _check_start(inputs, shape, settings)
        seeds, like = _begin(model, inputs, shape)
        model = replace(model, call=as_called(differentiable(model.forward_func), like.device.type))
        if like.dtype in (torch.bfloat16, torch.float16):  # spectra and distances want more digits
            model = replace(model, dtype=like.dtype)
            seeds, like = (None if seeds is None else seeds.float()), like.float()
        rows, size = like.shape[0], size or (like.shape[-2], like.shape[-1])
        batch = settle_arguments(Batch.of(like, args), partial(_output, model, size))
        warn_of_crop(model.preprocess, _shown(like[:1], size))
        against = _against(model, feature, settings.contrast, batch, size)
        torch.set_autocast_enabled(like.device.type, False)  # for the models alone; ``explaining`` puts it back
        parts: list[Outcome] = []
        layer, name = None, ""
        for start, stop in chunks(rows, settings.internal_batch_size or rows):
            one = partial(_chunk, model, feature, against, seeds is not None, batch, start, stop, size)
            try:
                outcome, layer, name = one(settings)
            except KeyboardInterrupt:  # before this chunk's first step: the chunks before it are kept
                if not parts:
                    raise
                outcome, layer, name = one(replace(settings, on_step=_end))
                outcome.climb.interrupted = True
            parts.append(outcome)
            if outcome.climb.interrupted:  # the rows that have not begun stay as they are
                settings = replace(settings, on_step=_end)
        name = name if len(parts) == 1 else feature.objective(rows).name
    return _answer(parts, seeds, model, feature, settings, size, batch, name, layer)


def _chunk(
    model: ImageModel,
    feature: Feature,
    against: tuple[ImageModel, Feature] | None,
    seeded: bool,
    batch: Batch,
    start: int,
    stop: int,
    size: Size,
    settings: Settings,
) -> tuple[Outcome, nn.Module | None, str]:
    """One ascent for some of the rows; also the layer its distance is measured at, and what the feature is called."""
    reseed(settings.seed)  # for objectives and parameterizations that draw something at random
    piece, part = batch.cut(start, stop), feature.cut(start, stop, batch.rows)
    images = piece.inputs[0]
    views = _shown(images, size)
    aim = _aim(model, part, views, piece.args)
    low = None if against is None else (against[0], against[1].cut(start, stop, batch.rows))
    lowered = None if low is None else _aim(*low, views, piece.args)
    layer = _distance_layer(model, settings, views, piece.args, aim, seeded)
    level = levels(model, part, low, settings, size, piece, start, batch.rows)
    try:
        seeds = images if seeded else None
        outcome = run(aim, lowered, seeds, images, piece.args, settings, size, layer, level, start, batch.rows)
    except DeadError as dead:
        raise ValueError(
            f"{aim.objective.name} does not respond: its gradient is zero everywhere in image "
            f"{', '.join(str(start + r) for r in dead.rows)} (a dead or saturated unit). Choose another unit, "
            "the layer before its activation function, or another image."
        ) from dead
    return outcome, layer, aim.objective.name


def _shown(images: Tensor, size: Size) -> Tensor:
    return view([], (images.shape[-2], images.shape[-1]), size, generator=torch.Generator())(images)[0]


def _output(model: ImageModel, size: Size, batch: Batch) -> Any:
    """What the model makes of the images at the size of the views."""
    return model.run(_shown(batch.inputs[0], size), batch.args, (), to_output=True).output


def _end(*_: Any) -> bool:
    return True


def echoed(inputs: Images, answer: Tensor) -> Images:
    """A tuple where the inputs were one, as Captum's metrics expect."""
    return (answer,) if isinstance(inputs, tuple) else answer


def _freeze(model: ImageModel, *also: nn.Module) -> None:
    """No gradients for weights; ``explaining`` puts the flags back."""
    for root in (*modules_behind(model.forward_func), *also):
        for p in root.parameters():
            if not p.is_inference():
                p.requires_grad_(False)


def _check_start(inputs: Images | None, shape: tuple[int, ...] | None, settings: Settings) -> None:
    """Refuse what would be ignored."""
    if inputs is not None and shape is not None:
        raise ValueError(f"inputs and shape={shape} are both given; shape is for pictures from noise (inputs=None).")
    for name in ("dose", "activation"):
        if inputs is None and getattr(settings, name) is not None:
            raise ValueError(
                f"{name}= says how far to go from an image, and inputs is None; give inputs, or end with on_step=."
            )


def _begin(model: ImageModel, inputs: Images | None, shape: tuple[int, ...] | None) -> tuple[Tensor | None, Tensor]:
    """The seeds, and a tensor with the images' shape, dtype and device."""
    if inputs is not None:
        seeds = check_images(inputs)
        return seeds, seeds
    if shape is None or len(shape) != 4 or min(shape) < 1:
        raise ValueError(
            f"inputs is None and shape is {shape}; to start from noise, say how large the pictures are: "
            "shape=(rows, channels, height, width)."
        )
    first = next((p for root in modules_behind(model.forward_func) for p in root.parameters()), torch.zeros(()))
    return None, torch.full(shape, 0.5, dtype=first.dtype, device=first.device)


def _aim(model: ImageModel, feature: Feature, views: Tensor, args: tuple[Any, ...]) -> Aim:
    objective = feature.objective(views.shape[0])
    layers, whole = needs(model, views, args, objective)
    return Aim(model, objective, tuple(layers), whole)


def _against(
    model: ImageModel, feature: Feature, contrast: Any, batch: Batch, size: Size
) -> tuple[ImageModel, Feature] | None:
    """What is lowered: the same feature of another model, or another feature of this one."""
    if contrast is None:
        return None

    def probe() -> tuple[Tensor, tuple[Any, ...]]:
        one = batch.cut(0, 1)
        return _shown(one.inputs[0], size), one.args

    if is_model(contrast, feature, probe):
        there = beside(model, contrast, as_called(differentiable(contrast), batch.inputs[0].device.type))
        return there, feature.inside(model, there)
    return model, replace(feature, **{"target" if isinstance(feature, OutputFeature) else "selector": contrast})  # type: ignore[type-var]


def _distance_layer(
    model: ImageModel, settings: Settings, views: Tensor, args: tuple[Any, ...], aim: Aim, seeded: bool
) -> nn.Module | None:
    regularizer = settings.regularizer
    if not isinstance(regularizer, FeatureDistance) or not regularizer.weight or not seeded:
        return None
    if regularizer.layer is not None:
        return model.module(regularizer.layer)
    return early_layer(model, views, args, aim.layers)


def _answer(
    parts: list[Outcome],
    seeds: Tensor | None,
    model: ImageModel,
    feature: Feature,
    settings: Settings,
    size: Size,
    batch: Batch,
    name: str,
    layer: nn.Module | None,
) -> Accentuation:
    def joined(pick: Callable[[Outcome], Tensor | None]) -> Tensor | None:
        found = [pick(part) for part in parts]
        return None if any(f is None for f in found) else torch.cat([f for f in found if f is not None])

    steps = max(part.climb.scores.shape[0] for part in parts)
    scores = torch.cat([_padded(part.climb.scores, steps) for part in parts], 1)
    measured = any(part.climb.distances is not None for part in parts)
    distances = [_distances(part) for part in parts]
    dtype = model.dtype or parts[0].images.dtype
    level, dose = joined(lambda part: part.level), joined(lambda part: part.dose)
    answer = Accentuation(
        images=torch.cat([part.images for part in parts]).to(dtype).contiguous(),
        masks=torch.cat([part.climb.mask for part in parts]).to(dtype).contiguous(),
        seeds=None if seeds is None else seeds.detach().to(dtype),
        scores=scores,
        distances=torch.cat([_padded(d, steps) for d in distances], 1) if measured else None,
        before=joined(lambda part: part.before),
        after=torch.cat([part.after for part in parts]),
        dose=dose,
        level=level,
        steps=max(part.climb.steps for part in parts),
        interrupted=any(part.climb.interrupted for part in parts),
        feature=name,
        layer=None if layer is None else name_of(model, layer),
        settings=_described(settings),
        _assess=assessor(model, feature, settings, size, batch),
    )
    _warn_of_levels(answer)
    return answer


def _distances(part: Outcome) -> Tensor:
    """Those of a climb, or none for rows that had arrived before they began."""
    return part.climb.scores.new_zeros(0, len(part.after)) if part.climb.distances is None else part.climb.distances


def _padded(values: Tensor, steps: int) -> Tensor:
    missing = steps - values.shape[0]
    return values if not missing else torch.cat([values, values.new_full((missing, values.shape[1]), float("nan"))])


def _warn_of_levels(answer: Accentuation) -> None:
    if answer.level is None or answer.before is None:
        return
    way = answer.level - answer.before
    gone = (answer.after - answer.before) / torch.where(way == 0, 1, way)
    short = [row for row, share in enumerate(gone.tolist()) if way[row] != 0 and share < 0.98]
    if short:
        row = short[0]
        warnings.warn(
            f"{len(short)} of {len(gone)} rows did not reach their level: row {row} came to "
            f"{float(answer.after[row]):.4g} on the way from {float(answer.before[row]):.4g} to "
            f"{float(answer.level[row]):.4g} in {answer.steps} steps. Give more n_steps, a larger lr or a lighter "
            "regularizer, or a smaller dose.",
            stacklevel=5,
        )


def _described(settings: Settings) -> dict[str, Any]:
    """The settings as JSON takes them: tensors and functions by a word."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.tolist() if value.numel() <= 16 else f"tensor {tuple(value.shape)}"
        if is_dataclass(value) and not isinstance(value, type):
            return {"kind": type(value).__name__} | {k: plain(v) for k, v in vars(value).items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return (
            value
            if isinstance(value, int | float | str | bool | None)
            else getattr(value, "__name__", type(value).__name__)
        )

    return {name: plain(value) for name, value in vars(settings).items() if name not in ("on_step", "show_progress")}
