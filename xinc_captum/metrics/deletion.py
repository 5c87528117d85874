"""Deletion and insertion: whether the score follows the pixels that a map calls important."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..hooks import ForwardFunc, guarded
from .probability import (
    Scores,
    as_probabilities,
    class_outputs,
    class_scores,
    in_range,
    probabilities,
    probability_kind,
    with_gradients,
)

Target = int | Sequence[int] | Tensor


class DeletionInsertion(NamedTuple):
    """Areas under the two curves, one a row: for a faithful map the first is small and the second large."""

    deletion: Tensor
    insertion: Tensor


def deletion_insertion(
    forward_func: ForwardFunc,
    images: Tensor,
    maps: Tensor,
    target: Target,
    *,
    baseline: Tensor | float = 0.0,
    start: Tensor | None = None,
    steps: int = 32,
    scores: Scores = probabilities,
    rows_at_once: int = 32,
) -> DeletionInsertion:
    r"""Areas under the target's score while pixels are taken out of, or put into, an image in order of a map.

    .. math:: \mathrm{AUC} = \int_0^1 s\bigl(x \text{ with its most important fraction } p \text{ replaced}\bigr)\, dp

    Deletion goes from the image to ``baseline``; RISE's constant is 0 for normalised inputs, their mean colour.
    Insertion goes from ``start``, by default the image out of focus, to the image. Each curve has ``steps`` + 1
    points, integrated by trapezoids. Equal values go in reading order: upper row first, then left before right.
    Rows are independent of each other, and a row whose map is not finite answers nan.

    Args:
        forward_func: images to (rows, classes); run without gradients and left as found.
        images: (N, C, H, W), as ``forward_func`` takes them.
        maps: (N, H, W), large where important; the order alone counts.
        target: a class, or one for each row.
        baseline: what replaces a deleted pixel, a number or anything that broadcasts to the images.
        start: (N, C, H, W), where insertion begins; None is :func:`blurred`.
        steps: how often pixels are moved, at most once for each pixel.
        scores: how the outputs become scores before the target is picked: a kind of outputs, as in
            :func:`~xinc_captum.metrics.probabilities` (the function itself is "auto", decided once on the first
            images), or a function (n, classes) to (n, classes).
        rows_at_once: images in one forward.

    Raises:
        TypeError: the model returns no tensor.
        ValueError: shapes that do not fit, no images, a target for another number of rows, no steps, or outputs outside
            [0, 1] where they are said to be probabilities.
        IndexError: a target that is no class.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.ones_(model[1].weight)
        >>> image, map_ = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[0.9, 0.1]]])
        >>> deletion_insertion(model, image, map_, 0, start=0 * image, scores=lambda outputs: outputs)
        DeletionInsertion(deletion=tensor([1.5000]), insertion=tensor([2.5000]))

    Source: Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC 2018).
    """
    _check(images, maps, steps, rows_at_once)
    targets = targets_of(target, images)
    start = blurred(images) if start is None else start
    if start.shape != images.shape:
        raise ValueError(f"start has shape {tuple(start.shape)}; wanted that of images, {tuple(images.shape)}.")
    empty = torch.as_tensor(baseline, device=images.device).to(images.dtype)
    room = images.shape[images.dim() - empty.dim() :] if empty.dim() <= images.dim() else None
    if room is None or any(own not in {1, side} for own, side in zip(empty.shape, room, strict=True)):
        raise ValueError(
            f"baseline has shape {tuple(empty.shape)}; wanted a number, or a tensor that broadcasts to the images' "
            f"{tuple(images.shape)}, for example (C, 1, 1)."
        )
    empty = empty.expand_as(images)
    pixels = maps[0].numel()
    counts = [round(step * pixels / min(steps, pixels)) for step in range(min(steps, pixels) + 1)]
    moved = torch.tensor(counts, device=images.device)
    maps = maps.detach().to(images.device)
    places = removal_order(maps)
    kind = settled(forward_func, images, targets, scores, rows_at_once)

    def area(before: Tensor, after: Tensor) -> Tensor:
        pairs, parts = len(images) * len(counts), []
        for first in range(0, pairs, rows_at_once):
            pair = torch.arange(first, min(first + rows_at_once, pairs), device=images.device)
            row, point = pair // len(counts), pair % len(counts)
            gone = places[row] < moved[point][:, None, None]
            mixed = torch.where(gone[:, None], after[row], before[row])
            parts.append(_score(class_scores(forward_func(mixed), len(mixed)), targets[row], kind))
        curves = _in_range(torch.cat(parts), kind).view(len(images), len(counts))
        areas = torch.trapezoid(curves, moved.to(curves.dtype) / pixels, dim=1)
        return areas.masked_fill(~maps.isfinite().flatten(1).all(1), torch.nan)

    with guarded(forward_func), torch.no_grad():
        return DeletionInsertion(area(images, empty), area(start, images))


def target_score(
    forward_func: ForwardFunc,
    images: Tensor,
    target: Target,
    *,
    scores: Scores = probabilities,
    rows_at_once: int = 32,
) -> Tensor:
    """The target's score of each image: where deletion begins and insertion ends, (N,).

    Args:
        forward_func: images to (rows, classes); run without gradients and left as found.
        images: (N, C, H, W), as ``forward_func`` takes them.
        target: a class, or one for each row.
        scores: as in :func:`deletion_insertion`; "auto" is decided once, on all images.
        rows_at_once: images in one forward.

    Raises:
        TypeError: the model returns no tensor.
        ValueError: a target for another number of rows, outputs that are not (rows, classes), or outputs outside
            [0, 1] where they are said to be probabilities.
        IndexError: a target that is no class.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> target_score(model, torch.rand(5, 3, 2, 2), target=1).shape
        torch.Size([5])
    """
    return scored(forward_func, images, target, scores, rows_at_once)[0]


def scored(
    forward_func: ForwardFunc, images: Tensor, target: Target, scores: Scores, rows_at_once: int = 32
) -> tuple[Tensor, Scores]:
    """Return :func:`target_score`, and the kind of outputs that "auto" was decided to be on all images."""
    targets = targets_of(target, images)
    outputs = class_outputs(forward_func, images, rows_at_once)
    _check_classes(targets, outputs.shape[1])
    kind = _kind(outputs, scores, forward_func, images)
    return _in_range(_score(outputs, targets, kind), kind), kind


def settled(
    forward_func: ForwardFunc, images: Tensor, targets: Tensor, scores: Scores, rows_at_once: int = 32
) -> Scores:
    """Check outputs and targets on the first images, and decide once what the outputs are; "auto" is never returned."""
    sure = scores is not probabilities and scores != "auto"
    first = images[: 1 if sure else rows_at_once]
    outputs = class_outputs(forward_func, first, rows_at_once)
    _check_classes(targets, outputs.shape[1])
    return _kind(outputs, scores, forward_func, first)


def blurred(images: Tensor) -> Tensor:
    """Images out of focus: a Gaussian with RISE's 11 taps and σ = 5 at 224 pixels, in proportion at other sizes.

    Example:
        >>> blurred(torch.ones(1, 3, 8, 8)).allclose(torch.ones(1, 3, 8, 8))
        True
    """
    reach = max(1, round(5 * min(images.shape[-2:]) / 224))
    taps = torch.exp(-((torch.arange(-reach, reach + 1, device=images.device) / reach) ** 2) / 2)
    taps = (taps / taps.sum()).to(images.dtype).repeat(images.shape[1], 1, 1, 1)
    padded = torch.nn.functional.pad(images, [reach] * 4, mode="replicate")
    wide = torch.nn.functional.conv2d(padded, taps, groups=len(taps))
    return torch.nn.functional.conv2d(wide, taps.transpose(2, 3), groups=len(taps))


def removal_order(maps: Tensor) -> Tensor:
    """Each pixel's place in the order of its map, 0 for the most important: (N, H, W).

    Equal values go in reading order.

    Example:
        >>> removal_order(torch.tensor([[[0.1, 0.9, 0.1]]]))
        tensor([[[1, 0, 2]]])
    """
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def _kind(outputs: Tensor, scores: Scores, forward_func: ForwardFunc, images: Tensor) -> Scores:
    if scores is probabilities:
        scores = "auto"
    if callable(scores):
        return scores
    return probability_kind(outputs, scores, with_gradients(forward_func, images))


def _score(outputs: Tensor, targets: Tensor, scores: Scores) -> Tensor:
    found = scores(outputs) if callable(scores) else as_probabilities(outputs, scores)
    if found.dim() != 2 or len(found) != len(targets):
        raise ValueError(f"scores returned shape {tuple(found.shape)} for {len(targets)} images; wanted (n, classes).")
    return found.gather(1, targets[:, None])[:, 0]


def _in_range(values: Tensor, scores: Scores) -> Tensor:
    return values if callable(scores) else in_range(values, scores)


def targets_of(target: Target, images: Tensor) -> Tensor:
    """One class a row, on the images' device."""
    if target is None:
        raise TypeError("target is None; give a class number, or one for each image: model(inputs).argmax(1).")
    given = torch.as_tensor(target)
    if (
        given.is_floating_point()
        or given.dtype == torch.bool
        or given.dim() > 1
        or given.numel() not in {1, len(images)}
    ):
        raise ValueError(
            f"target is {given.dtype} of shape {tuple(given.shape)} for {len(images)} images; wanted a class number, "
            "or one for each image."
        )
    return given.to(images.device).long().flatten().expand(len(images))


def checked_maps(images: Tensor, maps: Tensor) -> None:
    """Check that there is a map for each image.

    Raises:
        ValueError: other shapes, or no images.
    """
    if images.dim() != 4 or maps.shape != (len(images), *images.shape[2:]) or not maps.numel():
        raise ValueError(
            f"images have shape {tuple(images.shape)} and maps {tuple(maps.shape)}; wanted (N, C, H, W) and (N, H, W), "
            "at least one."
        )


def _check(images: Tensor, maps: Tensor, steps: int, rows_at_once: int) -> None:
    checked_maps(images, maps)
    for name, number in (("steps", steps), ("rows_at_once", rows_at_once)):
        if number < 1:
            raise ValueError(f"{name} is {number}; wanted at least 1.")


def _check_classes(targets: Tensor, classes: int) -> None:
    """Check the targets once, before the loop: a wrong one would only surface on the device."""
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        hint = " Its one column is the logit of one class, target 0." if classes == 1 else ""
        raise IndexError(f"target {low if low < 0 else high} is no class of a model with {classes} classes.{hint}")
