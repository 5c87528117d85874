"""Dose scale from natural images, and the evidence for ``.trust``."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...batch import Batch, chunks
from ...hooks import modules_behind, snapshot
from ...images import check_images
from ...metrics.trust import (
    Trust,
    high_frequency_energy,
    judge_accentuation,
    leave_one_out,
    path_similarity,
    path_vector,
)
from ..base import attribution_context
from .activations import ModelInputs, late_layers
from .objectives import Feature, ScoredModel
from .optimization import Problem

if TYPE_CHECKING:
    from .result import Accentuation

QUANTILE = 0.98


def target_levels(problem: Problem, before: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the reference level and the level at which to stop, (N,) each, from the seeds' scores (N,).

    .. math:: L = f(x_0) + \mathrm{dose} \cdot (r - f(x_0))

    Symbols: L the level; f(x_0) the seed's score; r the reference, the .98 quantile of the ``natural`` images' scores,
    or else f(x_0) plus five standard deviations of all outputs or channels. With ``activation``, both are its value.
    """
    settings, n = problem.settings, problem.total
    name = "dose" if settings.dose is not None else "activation"
    value = getattr(settings, name)
    targets = torch.as_tensor(value, dtype=torch.float32)
    if targets.dim() > 1 or (targets.dim() == 1 and len(targets) != n) or not bool(targets.isfinite().all()):
        raise ValueError(
            f"{name} is {value!r}; expected one finite number, or one for each of {n} images (0 is the seed's own "
            "activation, 1 the reference level)."
        )
    start = problem.batch.start
    targets = targets.expand(n)[start : start + problem.batch.rows].to(before)
    if name == "activation":
        return targets, targets
    if not bool(targets.any()):
        return before, before
    top = reference_level(problem, before)
    if not bool((top > before).all()):
        row = int((~(top > before)).nonzero()[0])
        raise ValueError(
            f"dose= cannot be used for image {start + row}: its score {float(before[row]):.4g} is not below the "
            f"reference level {float(top[row]):.4g}. Give activation= as an absolute level, or natural= images with "
            "higher scores."
        )
    return top, before + targets * (top - before)


def reference_level(problem: Problem, before: Tensor) -> Tensor:
    """Return the level of dose 1 for each image, (N,)."""
    if problem.settings.natural is not None:
        scores = natural_scores(problem, problem.model, problem.feature)
        if problem.contrast is not None:
            contrast_scores = natural_scores(problem, *problem.contrast)
            scores = [a - b for a, b in zip(scores, contrast_scores, strict=True)]
        return torch.stack([s.float().quantile(QUANTILE) for s in scores]).to(before)
    scored = problem.scored(problem.model, problem.feature)
    with torch.no_grad():
        deviation = problem.feature.peer_deviation(scored.run(problem.model_inputs, problem.batch.args))
    if deviation is None:
        raise ValueError(
            "dose= needs a reference level, and none can be computed from the model: the feature is neither a single "
            "output nor a channel. Give natural= images (dose 1 is the .98 quantile of their scores), or activation= "
            "as an absolute level."
        )
    return before + 5.0 * deviation.to(before)


def natural_scores(problem: Problem, model: ModelInputs, feature: Feature) -> list[Tensor]:
    """Return the scores of the natural images for each image's feature: a list of (M,)."""
    pool = model.resize(check_images(problem.settings.natural).to(problem.images))
    n = problem.batch.rows
    scores = [
        score_images(model, feature.cut(row, row + 1, n), pool, problem.batch.cut(row, row + 1))
        for row in range(n if feature.is_per_row(n) else 1)
    ]
    return scores if feature.is_per_row(n) else scores * n


def score_images(model: ModelInputs, feature: Feature, images: Tensor, one: Batch) -> Tensor:
    """Return the scores, (M,), of images in the model's input size, all with the additional arguments in ``one``."""
    scores = []
    with torch.no_grad():
        for start, stop in chunks(len(images), 16):
            part = images[start:stop]
            scored = ScoredModel.of(model, feature.objective(1), part[:1], one.args)
            scores.append(scored.score(part, one.repeat(len(part)).args))
    return torch.cat(scores)


def assess(problem: Problem, result: "Accentuation") -> Trust:
    """Collect the evidence for each image of an accentuation and judge it."""
    transfer, device = problem.settings.transfer, result.images.device.type
    modules = modules_behind(transfer) if transfer is not None else ()
    context = attribution_context(problem.model.forward_func, *modules)
    with context, torch.no_grad(), torch.autocast(device, enabled=False):
        evidence = [_evidence(problem.rows(row, row + 1), result, row) for row in range(problem.batch.rows)]
        return Trust.of([judge_accentuation(**of_row) for of_row in evidence])


def _evidence(problem: Problem, result: "Accentuation", row: int) -> dict[str, float | None]:
    """Return the arguments of ``judge_accentuation`` for one image."""
    dtype, model = problem.images.dtype, problem.model
    image = result.images[row : row + 1].to(dtype)
    seed = None if result.seeds is None else result.seeds[row : row + 1].to(dtype)
    evidence: dict[str, float | None] = {}
    sign = 1.0
    if seed is not None and result.before is not None:
        if result.level is not None and float(result.level[row]) < float(result.before[row]):
            sign = -1.0  # a suppressed feature should fall, in a second model too
        evidence["gained"] = sign * float(result.after[row] - result.before[row])
        fraction = float(high_frequency_energy(image - seed)[0])
        unchanged = fraction != fraction  # NaN: no pixel changed, and the gain is rounding
        evidence["high_frequency"] = None if unchanged else fraction
        if unchanged:
            evidence["gained"] = 0.0
    if problem.settings.natural is not None:
        evidence |= _path_evidence(problem, image, seed)
    if problem.settings.transfer is not None and seed is not None:
        second = model.with_forward_func(problem.settings.transfer)
        feature = problem.feature.in_model(model, second)
        before, after = (score_images(second, feature, model.resize(x), problem.batch) for x in (seed, image))
        evidence["transfer"] = sign * float(after - before)
    return evidence


def _path_evidence(problem: Problem, image: Tensor, seed: Tensor | None) -> dict[str, float | None]:
    """Compare paths with those of the top natural images: of the image, of its seed, and in a shuffled model."""
    model, feature, one = problem.model, problem.feature, problem.batch
    pool = model.resize(check_images(problem.settings.natural).to(image))
    scores = score_images(model, feature, pool, one)
    top = pool[scores.topk(min(8, len(pool))).indices]
    resized = model.resize(image)
    scored = ScoredModel.of(model, feature.objective(1), resized, one.args)
    layers = late_layers(model, resized, one.args, scored.layers)
    if not layers or len(top) < 2:
        return {}
    of_natural = path_of(model, feature, layers, top, one)
    of_image = path_of(model, feature, layers, resized, one)
    evidence: dict[str, float | None] = {
        "path": float(path_similarity(of_image, of_natural)[0]),
        "natural": float(leave_one_out(of_natural).median()),
    }
    if seed is not None:
        of_seed = path_of(model, feature, layers, model.resize(seed), one)
        evidence["seed"] = float(path_similarity(of_seed, of_natural)[0])
        evidence["kept"] = float(path_similarity(of_image, of_seed)[0])
    shuffled = replace(model, call=snapshot(model.forward_func, change=_shuffle))
    of_shuffled = path_of(shuffled, feature, layers, resized, one)
    evidence["shuffled"] = float(path_similarity(of_shuffled, of_natural)[0])
    return evidence


def path_of(model: ModelInputs, feature: Feature, layers: list[nn.Module], images: Tensor, one: Batch) -> list[Tensor]:
    """Return path vectors of M images, (M, channels) for each layer, all with the additional arguments in ``one``."""
    scored = ScoredModel.of(model, feature.objective(1), images[:1], one.args)
    with torch.enable_grad():
        result = scored.run(images, one.repeat(len(images)).args, *layers)
        score = scored.objective(result)
        activations = [result(layer) for layer in layers]
        gradients = torch.autograd.grad(score.sum(), activations, allow_unused=True)
    return [
        path_vector(a, torch.zeros_like(a) if g is None else g, result.unit_axis(layer))
        for layer, a, g in zip(layers, activations, gradients, strict=True)
    ]


def _shuffle(weight: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(weight.numel())
    order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
    return weight.flatten()[order].reshape(weight.shape)
