"""From a dose or an absolute activation to the score at which each row stops."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...batch import Batch, chunks
from ...images import check_images
from .feature import Feature
from .reading import Reader, needs
from .settings import Settings
from .transforms import Size, view

MULTIPLE = 5.0
QUANTILE = 0.98


def levels(
    reader: Reader,
    feature: Feature,
    against: tuple[Reader, Feature] | None,
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
        reader: how images go through the model.
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
    wanted = torch.as_tensor(asked, dtype=torch.float32)
    if wanted.dim() > 1 or (wanted.dim() == 1 and len(wanted) != rows) or not bool(wanted.isfinite().all()):
        raise ValueError(
            f"{name} is {asked!r}; wanted one finite number, or one a row for {rows} rows (0 is the seed's own "
            "activation, 1 the reference level)."
        )
    wanted = wanted.expand(rows)[start : start + batch.rows].to(batch.inputs[0].device)

    def level(before: Tensor) -> tuple[Tensor, Tensor]:
        if name == "activation":
            return wanted.to(before), wanted.to(before)
        if not bool(wanted.any()):
            return before, before
        top = reference(reader, feature, against, settings, size, batch, before)
        if not bool((top > before).all()):
            row = int((~(top > before)).nonzero()[0])
            raise ValueError(
                f"a dose has no scale for image {start + row}: its score is {float(before[row]):.4g} already, and the "
                f"reference level is {float(top[row]):.4g}. Give activation= as an absolute level, or natural= images "
                "that respond more."
            )
        return top, before + wanted.to(before) * (top - before)

    return level


def reference(
    reader: Reader,
    feature: Feature,
    against: tuple[Reader, Feature] | None,
    settings: Settings,
    size: Size,
    batch: Batch,
    before: Tensor,
) -> Tensor:
    """The level of dose 1 for each row, (N,)."""
    if settings.natural is not None:
        scores = natural_scores(reader, feature, settings.natural, size, batch)
        if against is not None:
            low = natural_scores(*against, settings.natural, size, batch)
            scores = [raised - lowered for raised, lowered in zip(scores, low, strict=True)]
        return torch.stack([s.float().quantile(QUANTILE) for s in scores]).to(before)
    shown = view([], (batch.inputs[0].shape[-2], batch.inputs[0].shape[-1]), size, generator=torch.Generator())
    views = shown(batch.inputs[0])[0]
    layers, whole = needs(reader, views, batch.args, feature.objective(batch.rows))
    with torch.no_grad():
        spread = feature.spread(reader.read(views, batch.args, layers, whole=whole))
    if spread is None:
        raise ValueError(
            "a dose needs a scale, and this feature has no peers to take one from (it is no single output or channel); "
            "give natural= images, whose .98 quantile is dose 1, or activation= as an absolute level."
        )
    return before + MULTIPLE * spread.to(before)


def natural_scores(reader: Reader, feature: Feature, natural: Tensor, size: Size, batch: Batch) -> list[Tensor]:
    """The clean scores of natural images for each row's feature: a list of (M,)."""
    pool = check_images(natural).to(batch.inputs[0])
    shown = view([], (pool.shape[-2], pool.shape[-1]), size, generator=torch.Generator())
    found: dict[int, Tensor] = {}
    answers = []
    for row in range(batch.rows):
        one = feature.cut(row, row + 1, batch.rows)
        key = row if feature.one_a_row(batch.rows) else -1
        if key not in found:
            found[key] = scores_of(reader, one, shown(pool)[0], _single(batch, row))
        answers.append(found[key])
    return answers


def scores_of(reader: Reader, feature: Feature, views: Tensor, args: Any, at_once: int = 16) -> Tensor:
    """The score of every view, one feature for all: (M,)."""
    parts = []
    with torch.no_grad():
        for start, stop in chunks(len(views), at_once):
            piece = views[start:stop]
            objective = feature.objective(1)
            layers, whole = needs(reader, piece[:1], args(1), objective)
            parts.append(objective(reader.read(piece, args(len(piece)), layers, whole=whole)))
    return torch.cat(parts)


def _single(batch: Batch, row: int) -> Callable[[int], tuple[Any, ...]]:
    """One row's additional arguments, for any number of images."""
    return lambda count: batch.cut(row, row + 1).repeat(count).args
