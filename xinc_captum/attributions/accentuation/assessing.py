"""Collect the evidence for an accentuation's ``.trust``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...batch import Batch
from ...hooks import modules_behind, snapshot
from ...images import check_images
from ...metrics.trust import (
    Trust,
    high_frequency_energy,
    judged,
    leave_one_out,
    path_similarity,
    path_vector,
)
from ..contract import explaining
from .early import spaced_layers
from .feature import Feature
from .level import scores_of
from .reading import Reader, needs
from .second import beside
from .settings import Settings
from .transforms import Size, view

if TYPE_CHECKING:
    from .accentuated import Accentuation

TOP = 8


def assessor(
    reader: Reader, feature: Feature, settings: Settings, size: Size, batch: Batch
) -> Callable[[Accentuation], Trust]:
    """The function that looks an accentuation over when someone asks."""

    def assess(answer: Accentuation) -> Trust:
        also = modules_behind(settings.transfer) if settings.transfer is not None else ()
        device = answer.images.device.type
        with explaining(reader.forward_func, *also), torch.no_grad(), torch.autocast(device, enabled=False):
            rows = []
            for row in range(batch.rows):
                one = feature.cut(row, row + 1, batch.rows)
                rows.append(judged(**_evidence(reader, one, settings, size, batch.cut(row, row + 1), answer, row)))
        return Trust.of(rows)

    return assess


def _evidence(
    reader: Reader, feature: Feature, settings: Settings, size: Size, batch: Batch, answer: Accentuation, row: int
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
        found |= _paths(reader, feature, settings.natural, size, batch, image, seed)
    if settings.transfer is not None and seed is not None:
        there = beside(reader, settings.transfer)
        same = feature.inside(reader, there)
        before, after = (scores_of(there, same, _shown(x, size), _same(batch)) for x in (seed, image))
        found["transfer"] = way * float(after - before)
    return found


def _paths(
    reader: Reader, feature: Feature, natural: Tensor, size: Size, batch: Batch, image: Tensor, seed: Tensor | None
) -> dict[str, float | None]:
    """Similarity of the image's, the seed's and a shuffled model's path to that of the highest natural images."""
    pool = _shown(check_images(natural).to(image), size)
    scores = scores_of(reader, feature, pool, _same(batch))
    top = pool[scores.topk(min(TOP, len(pool))).indices]
    shown = _shown(image, size)
    layers = spaced_layers(reader, shown, batch.args, tuple(needs(reader, shown, batch.args, feature.objective(1))[0]))
    if not layers or len(top) < 2:
        return {}
    theirs = path_of(reader, feature, layers, top, _same(batch))
    here = path_of(reader, feature, layers, shown, _same(batch))
    found: dict[str, float | None] = {
        "path": float(path_similarity(here, theirs)[0]),
        "natural": float(leave_one_out(theirs).median()),
    }
    if seed is not None:
        own = path_of(reader, feature, layers, _shown(seed, size), _same(batch))
        found["seed"] = float(path_similarity(own, theirs)[0])
        found["kept"] = float(path_similarity(here, own)[0])
    shuffled = replace(reader, call=snapshot(reader.forward_func, change=_shuffled))
    found["shuffled"] = float(path_similarity(path_of(shuffled, feature, layers, shown, _same(batch)), theirs)[0])
    return found


def path_of(
    reader: Reader, feature: Feature, layers: list[nn.Module], views: Tensor, args: Callable[[int], tuple[Any, ...]]
) -> list[Tensor]:
    """One path vector a layer for every view, (views, channels), all for one feature."""
    objective = feature.objective(1)
    wanted, whole = needs(reader, views[:1], args(1), objective)
    with torch.enable_grad():
        seen = reader.read(views, args(len(views)), [*layers, *(w for w in wanted if w not in layers)], whole=whole)
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
