"""Dose scale from natural images; evidence for .trust."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...batch import Batch, chunks
from ...hooks import ForwardFunc, modules_behind, preprocesses, snapshot
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
from .activations import ImageModel, needs
from .default_layers import spaced_layers
from .objectives import Feature, Objective, UnitFeature, is_lucent
from .settings import Settings
from .transforms import Size, view

if TYPE_CHECKING:
    from .result import Accentuation


MULTIPLE = 5.0
QUANTILE = 0.98


def levels(
    model: ImageModel,
    feature: Feature,
    against: tuple[ImageModel, Feature] | None,
    settings: Settings,
    size: Size,
    batch: Batch,
    start: int,
    rows: int,
) -> Callable[[Tensor], tuple[Tensor, Tensor]] | None:
    r"""The function from the seeds' scores to the reference level and the level to stop at, or None.

    .. math:: L = f(x_0) + \mathrm{dose} \cdot (r - f(x_0))

    Symbols: r the reference: the .98 quantile of the scores of ``natural`` images, or else f(x_0) plus five standard
    deviations over the feature's peers in its layer.

    Args:
        model: how images go through the model.
        feature: of these rows.
        against: what is lowered meanwhile, and in which model, or None.
        settings: dose or activation, natural.
        size: of the views.
        batch: these rows.
        start: the first of them among all ``rows``.
        rows: how many there are in all.
    """
    asked = settings.dose if settings.dose is not None else settings.activation
    if asked is None:
        return None
    name = "dose" if settings.dose is not None else "activation"
    expected = torch.as_tensor(asked, dtype=torch.float32)
    if expected.dim() > 1 or (expected.dim() == 1 and len(expected) != rows) or not bool(expected.isfinite().all()):
        raise ValueError(
            f"{name} is {asked!r}; expected one finite number, or one a row for {rows} rows (0 is the seed's own "
            "activation, 1 the reference level)."
        )
    expected = expected.expand(rows)[start : start + batch.rows].to(batch.inputs[0].device)

    def level(before: Tensor) -> tuple[Tensor, Tensor]:
        if name == "activation":
            return expected.to(before), expected.to(before)
        if not bool(expected.any()):
            return before, before
        top = reference(model, feature, against, settings, size, batch, before)
        if not bool((top > before).all()):
            row = int((~(top > before)).nonzero()[0])
            raise ValueError(
                f"a dose has no scale for image {start + row}: its score is {float(before[row]):.4g} already, and the "
                f"reference level is {float(top[row]):.4g}. Give activation= as an absolute level, or natural= images "
                "that respond more."
            )
        return top, before + expected.to(before) * (top - before)

    return level


def reference(
    model: ImageModel,
    feature: Feature,
    against: tuple[ImageModel, Feature] | None,
    settings: Settings,
    size: Size,
    batch: Batch,
    before: Tensor,
) -> Tensor:
    """The level of dose 1 for each row, (N,)."""
    if settings.natural is not None:
        scores = natural_scores(model, feature, settings.natural, size, batch)
        if against is not None:
            low = natural_scores(*against, settings.natural, size, batch)
            scores = [raised - lowered for raised, lowered in zip(scores, low, strict=True)]
        return torch.stack([s.float().quantile(QUANTILE) for s in scores]).to(before)
    shown = view([], (batch.inputs[0].shape[-2], batch.inputs[0].shape[-1]), size, generator=torch.Generator())
    views = shown(batch.inputs[0])[0]
    layers, whole = needs(model, views, batch.args, feature.objective(batch.rows))
    with torch.no_grad():
        spread = feature.spread(model.run(views, batch.args, layers, to_output=whole))
    if spread is None:
        raise ValueError(
            "a dose needs a scale, and this feature has no peers to take one from (it is no single output or channel); "
            "give natural= images, whose .98 quantile is dose 1, or activation= as an absolute level."
        )
    return before + MULTIPLE * spread.to(before)


def natural_scores(model: ImageModel, feature: Feature, natural: Tensor, size: Size, batch: Batch) -> list[Tensor]:
    """The clean scores of natural images for each row's feature: a list of (M,)."""
    pool = check_images(natural).to(batch.inputs[0])
    shown = view([], (pool.shape[-2], pool.shape[-1]), size, generator=torch.Generator())
    found: dict[int, Tensor] = {}
    answers = []
    for row in range(batch.rows):
        one = feature.cut(row, row + 1, batch.rows)
        key = row if feature.one_a_row(batch.rows) else -1
        if key not in found:
            found[key] = scores_of(model, one, shown(pool)[0], _single(batch, row))
        answers.append(found[key])
    return answers


def scores_of(model: ImageModel, feature: Feature, views: Tensor, args: Any, at_once: int = 16) -> Tensor:
    """The score of every view, one feature for all: (M,)."""
    parts = []
    with torch.no_grad():
        for start, stop in chunks(len(views), at_once):
            piece = views[start:stop]
            objective = feature.objective(1)
            layers, whole = needs(model, piece[:1], args(1), objective)
            parts.append(objective(model.run(piece, args(len(piece)), layers, to_output=whole)))
    return torch.cat(parts)


def _single(batch: Batch, row: int) -> Callable[[int], tuple[Any, ...]]:
    """One row's additional arguments, for any number of images."""
    return lambda count: batch.cut(row, row + 1).repeat(count).args


def beside(model: ImageModel, second: ForwardFunc, call: ForwardFunc | None = None) -> ImageModel:
    """The reader of a second model: like the first, without ``preprocess`` where the model has its own."""
    preprocess = None if preprocesses(second) else model.preprocess
    return replace(model, forward_func=second, call=call, preprocess=preprocess)


def is_model(thing: Any, feature: Any, probe: Callable[[], tuple[Tensor, tuple[Any, ...]]]) -> bool:
    """Whether ``contrast=`` is a second model, and not an objective, a target or a selector.

    Modules, zoo classifiers, and methods and partials of modules are models. Any other function is a model where it
    takes images: functions of the layers and of an activation fail on them. Beside a unit's feature it must also hold
    a module, because the unit's layer is looked up in it.

    Args:
        thing: what was given.
        feature: the feature that is raised.
        probe: an image and the additional forward arguments to try a function on.
    """
    if isinstance(thing, nn.Module) or preprocesses(thing):
        return True
    if not callable(thing) or isinstance(thing, Objective) or is_lucent(thing):
        return False
    owner = thing.func if isinstance(thing, functools.partial) else getattr(thing, "__self__", None)
    if isinstance(owner, nn.Module):
        return True
    if isinstance(feature, UnitFeature) and not modules_behind(thing):
        return False
    images, args = probe()
    try:
        with torch.no_grad():
            output = thing(images, *args)
    except (TypeError, AttributeError):
        return False
    except Exception:  # a model that refuses the image: reading it raises the error that says so
        return True
    return not (isinstance(feature, UnitFeature) and isinstance(output, Tensor) and output.dim() < 2)


TOP = 8


def assessor(
    model: ImageModel, feature: Feature, settings: Settings, size: Size, batch: Batch
) -> Callable[[Accentuation], Trust]:
    """The function that looks an accentuation over when someone asks."""

    def assess(answer: Accentuation) -> Trust:
        also = modules_behind(settings.transfer) if settings.transfer is not None else ()
        device = answer.images.device.type
        with attribution_context(model.forward_func, *also), torch.no_grad(), torch.autocast(device, enabled=False):
            rows = []
            for row in range(batch.rows):
                one = feature.cut(row, row + 1, batch.rows)
                rows.append(
                    judge_accentuation(**_evidence(model, one, settings, size, batch.cut(row, row + 1), answer, row))
                )
        return Trust.of(rows)

    return assess


def _evidence(
    model: ImageModel, feature: Feature, settings: Settings, size: Size, batch: Batch, answer: Accentuation, row: int
) -> dict[str, float | None]:
    work = batch.inputs[0].dtype
    image = answer.images[row : row + 1].to(work)
    seed = None if answer.seeds is None else answer.seeds[row : row + 1].to(work)
    found: dict[str, float | None] = {}
    way = 1.0  # what is suppressed should fall, in a second model too
    if seed is not None and answer.before is not None:
        if answer.level is not None and float(answer.level[row]) < float(answer.before[row]):
            way = -1.0
        found["gained"] = way * float(answer.after[row] - answer.before[row])
        share = float(high_frequency_energy(image - seed)[0])
        found["high_frequency"] = None if share != share else share
        if share != share:  # not a number: no pixel changed, and what is left of a gain is rounding
            found["gained"] = 0.0
    if settings.natural is not None:
        found |= _paths(model, feature, settings.natural, size, batch, image, seed)
    if settings.transfer is not None and seed is not None:
        there = beside(model, settings.transfer)
        same = feature.inside(model, there)
        before, after = (scores_of(there, same, _shown(x, size), _same(batch)) for x in (seed, image))
        found["transfer"] = way * float(after - before)
    return found


def _paths(
    model: ImageModel, feature: Feature, natural: Tensor, size: Size, batch: Batch, image: Tensor, seed: Tensor | None
) -> dict[str, float | None]:
    """Similarity of the image's, the seed's and a shuffled model's path to that of the highest natural images."""
    pool = _shown(check_images(natural).to(image), size)
    scores = scores_of(model, feature, pool, _same(batch))
    top = pool[scores.topk(min(TOP, len(pool))).indices]
    shown = _shown(image, size)
    layers = spaced_layers(model, shown, batch.args, tuple(needs(model, shown, batch.args, feature.objective(1))[0]))
    if not layers or len(top) < 2:
        return {}
    theirs = path_of(model, feature, layers, top, _same(batch))
    here = path_of(model, feature, layers, shown, _same(batch))
    found: dict[str, float | None] = {
        "path": float(path_similarity(here, theirs)[0]),
        "natural": float(leave_one_out(theirs).median()),
    }
    if seed is not None:
        own = path_of(model, feature, layers, _shown(seed, size), _same(batch))
        found["seed"] = float(path_similarity(own, theirs)[0])
        found["kept"] = float(path_similarity(here, own)[0])
    shuffled = replace(model, call=snapshot(model.forward_func, change=_shuffled))
    found["shuffled"] = float(path_similarity(path_of(shuffled, feature, layers, shown, _same(batch)), theirs)[0])
    return found


def path_of(
    model: ImageModel, feature: Feature, layers: list[nn.Module], views: Tensor, args: Callable[[int], tuple[Any, ...]]
) -> list[Tensor]:
    """One path vector a layer for every view, (views, channels), all for one feature."""
    objective = feature.objective(1)
    expected, whole = needs(model, views[:1], args(1), objective)
    with torch.enable_grad():
        seen = model.run(views, args(len(views)), [*layers, *(w for w in expected if w not in layers)], to_output=whole)
        score = objective(seen)
        activations = [seen(layer) for layer in layers]
        gradients = torch.autograd.grad(score.sum(), activations, allow_unused=True)
    return [
        path_vector(a, torch.zeros_like(a) if g is None else g, seen.unit_axis(layer))
        for layer, a, g in zip(layers, activations, gradients, strict=True)
    ]


def _shuffled(weight: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(weight.numel())
    order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
    return weight.flatten()[order].reshape(weight.shape)


def _shown(images: Tensor, size: Size) -> Tensor:
    return view([], (images.shape[-2], images.shape[-1]), size, generator=torch.Generator())(images)[0]


def _same(batch: Batch) -> Callable[[int], tuple[Any, ...]]:
    return lambda count: batch.repeat(count).args
