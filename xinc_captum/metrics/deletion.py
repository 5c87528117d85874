"""Deletion and insertion: whether the score follows the pixels that a map calls important."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..hooks import ForwardFunc, guarded

Target = int | Sequence[int] | Tensor


class DeletionInsertion(NamedTuple):
    """Areas under the two curves, one a row: for a faithful map the first is small and the second large."""

    deletion: Tensor
    insertion: Tensor


def probabilities(outputs: Tensor) -> Tensor:
    """Softmax over classes, in float32 or wider: (rows, classes) logits to (rows, classes)."""
    return outputs.softmax(1, dtype=torch.promote_types(outputs.dtype, torch.float32))


def deletion_insertion(
    forward_func: ForwardFunc,
    images: Tensor,
    maps: Tensor,
    target: Target,
    *,
    baseline: Tensor | float = 0.0,
    start: Tensor | None = None,
    steps: int = 32,
    scores: Callable[[Tensor], Tensor] = probabilities,
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
        scores: what is made of the outputs before the target is picked.
        rows_at_once: images in one forward.

    Raises:
        ValueError: shapes that do not fit, a target for another number of rows, or no steps.
        IndexError: a target that is no class.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.ones_(model[1].weight)
        >>> image, map_ = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[0.9, 0.1]]])
        >>> deletion_insertion(model, image, map_, 0, start=0 * image, scores=lambda outputs: outputs)
        DeletionInsertion(deletion=tensor([1.5000]), insertion=tensor([2.5000]))

    Source: Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC 2018).
    """
    _check(images, maps, steps)
    targets = _targets(target, images)
    start = blurred(images) if start is None else start
    if start.shape != images.shape:
        raise ValueError(f"start has shape {tuple(start.shape)}; wanted that of images, {tuple(images.shape)}.")
    empty = torch.as_tensor(baseline, device=images.device).to(images.dtype).expand_as(images)
    pixels = maps[0].numel()
    counts = [round(step * pixels / min(steps, pixels)) for step in range(min(steps, pixels) + 1)]
    moved = torch.tensor(counts, device=images.device)
    maps = maps.detach().to(images.device)
    places = removal_order(maps)

    def area(before: Tensor, after: Tensor) -> Tensor:
        pairs, parts = len(images) * len(counts), []
        for first in range(0, pairs, rows_at_once):
            pair = torch.arange(first, min(first + rows_at_once, pairs), device=images.device)
            row, point = pair // len(counts), pair % len(counts)
            gone = places[row] < moved[point][:, None, None]
            mixed = torch.where(gone[:, None], after[row], before[row])
            parts.append(_score(forward_func(mixed), targets[row], scores))
        curves = torch.cat(parts).view(len(images), len(counts))
        areas = torch.trapezoid(curves, moved.to(curves.dtype) / pixels, dim=1)
        return areas.masked_fill(~maps.isfinite().flatten(1).all(1), torch.nan)

    with guarded(forward_func), torch.no_grad():
        _check_classes(forward_func(images[:1]), targets)
        return DeletionInsertion(area(images, empty), area(start, images))


def target_score(
    forward_func: ForwardFunc,
    images: Tensor,
    target: Target,
    *,
    scores: Callable[[Tensor], Tensor] = probabilities,
    rows_at_once: int = 32,
) -> Tensor:
    """The target's score of each image: where deletion begins and insertion ends, (N,).

    Raises:
        ValueError: a target for another number of rows, or outputs that are not (rows, classes).
        IndexError: a target that is no class.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> target_score(model, torch.rand(5, 3, 2, 2), target=1).shape
        torch.Size([5])
    """
    targets = _targets(target, images)
    with guarded(forward_func), torch.no_grad():
        _check_classes(forward_func(images[:1]), targets)
        pieces = zip(images.split(rows_at_once), targets.split(rows_at_once), strict=True)
        return torch.cat([_score(forward_func(some), wanted, scores) for some, wanted in pieces])


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


def _score(outputs: Tensor, targets: Tensor, scores: Callable[[Tensor], Tensor]) -> Tensor:
    return scores(outputs).gather(1, targets[:, None])[:, 0]


def _targets(target: Target, images: Tensor) -> Tensor:
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


def _check(images: Tensor, maps: Tensor, steps: int) -> None:
    if images.dim() != 4 or maps.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"images have shape {tuple(images.shape)} and maps {tuple(maps.shape)}; wanted (N, C, H, W) and (N, H, W)."
        )
    if steps < 1:
        raise ValueError(f"steps is {steps}; wanted at least 1.")


def _check_classes(outputs: Tensor, targets: Tensor) -> None:
    """Look at the targets once, before the loop: a wrong one would only surface on the device."""
    if outputs.dim() != 2:
        raise ValueError(
            f"forward_func answers shape {tuple(outputs.shape)} for one image; wanted (1, classes). For another "
            "output, wrap it: lambda images: model(images)[...]."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= outputs.shape[1]:
        raise IndexError(f"target {low if low < 0 else high} is no class of a model with {outputs.shape[1]} classes.")
