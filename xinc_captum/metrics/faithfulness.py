"""Metrics of attribution maps: faithfulness (deletion, insertion, ROAD), localization, overlap and sparseness."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batch import python_index, random_generator
from ..hooks import ForwardFunc, protect
from .spread import check_weights
from .statistics import (
    Probability,
    Scores,
    as_probabilities,
    class_outputs,
    class_scores,
    in_range,
    output_with_graph,
    probabilities,
    probability_kind,
)

Target = int | Sequence[int] | Tensor


class DeletionInsertion(NamedTuple):
    """Areas under the deletion and the insertion curve, (N,) each; a faithful map has a small and a large one."""

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
    batch_size: int = 32,
) -> DeletionInsertion:
    r"""Return the areas under the target's score while pixels are removed or inserted in the order of a map.

    .. math:: \mathrm{AUC} = \int_0^1 s\bigl(x \text{ with its most important fraction } p \text{ replaced}\bigr)\, dp

    Symbols: s the target's score of image x. Deletion goes from the image to ``baseline``; the default, 0, is the mean
    colour of normalised inputs, as in RISE. Insertion goes from ``start``, by default a blurred image, to the image.
    Each curve has ``steps`` + 1 points, integrated by the trapezoidal rule. Images are independent of each other.

    Args:
        forward_func: images to (rows, classes); it runs without gradients, and its state is restored.
        images: (N, C, H, W), as ``forward_func`` takes them.
        maps: (N, H, W), large for important pixels; equal values are ordered by rows, from left to right. The result is
            nan for a map that is not finite.
        target: a class, or one for each row.
        baseline: the value of deleted pixels, a number or a tensor that broadcasts to the images.
        start: (N, C, H, W), the first images of insertion; None is :func:`blur_images`.
        steps: number of steps, at most one for each pixel.
        scores: how outputs become scores, before the target is selected: a kind of outputs as in
            :func:`~xinc_captum.metrics.probabilities`, or a function from (n, classes) to (n, classes). "auto" is
            decided once, on the first ``batch_size`` images; passing the function ``probabilities`` means "auto".
        batch_size: number of images per forward pass.

    Raises:
        TypeError: the model returns no tensor.
        ValueError: shapes or a number of targets that do not fit, no images or steps, or outputs that are not of the
            kind.
        IndexError: a target that is not a class.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.ones_(model[1].weight)
        >>> image, map_ = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[0.9, 0.1]]])
        >>> deletion_insertion(model, image, map_, 0, start=0 * image, scores=lambda outputs: outputs)
        DeletionInsertion(deletion=tensor([1.5000]), insertion=tensor([2.5000]))

    Source: Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC 2018).
    """
    _check_maps(images, maps, steps=steps, batch_size=batch_size)
    targets = targets_of(target, images)
    start = blur_images(images) if start is None else start
    if start.shape != images.shape:
        raise ValueError(f"start has shape {tuple(start.shape)}; expected that of images, {tuple(images.shape)}.")
    empty = torch.as_tensor(baseline, device=images.device).to(images.dtype)
    sizes = images.shape[images.dim() - empty.dim() :] if empty.dim() <= images.dim() else None
    if sizes is None or any(extent not in {1, side} for extent, side in zip(empty.shape, sizes, strict=True)):
        raise ValueError(
            f"baseline has shape {tuple(empty.shape)}; expected a number, or a tensor that broadcasts to the images' "
            f"{tuple(images.shape)}, for example (C, 1, 1)."
        )
    empty = empty.expand_as(images)
    pixels = maps[0].numel()
    counts = [round(step * pixels / min(steps, pixels)) for step in range(min(steps, pixels) + 1)]
    moved = torch.tensor(counts, device=images.device)
    maps = maps.detach().to(images.device)
    places = removal_order(maps)
    kind = resolve_scores(forward_func, images, targets, scores, batch_size)

    def area(before: Tensor, after: Tensor) -> Tensor:
        pairs, parts = len(images) * len(counts), []
        for first in range(0, pairs, batch_size):
            pair = torch.arange(first, min(first + batch_size, pairs), device=images.device)
            row, point = pair // len(counts), pair % len(counts)
            gone = places[row] < moved[point][:, None, None]
            mixed = torch.where(gone[:, None], after[row], before[row])
            parts.append(_score(class_scores(forward_func(mixed), len(mixed)), targets[row], kind))
        curves = _in_range(torch.cat(parts), kind).view(len(images), len(counts))
        areas = torch.trapezoid(curves, moved.to(curves.dtype) / pixels, dim=1)
        return areas.masked_fill(~maps.isfinite().flatten(1).all(1), torch.nan)

    with protect(forward_func), torch.no_grad():
        return DeletionInsertion(area(images, empty), area(start, images))


def target_score(
    forward_func: ForwardFunc, images: Tensor, target: Target, *, scores: Scores = probabilities, batch_size: int = 32
) -> Tensor:
    """Return the target's score of each image, the first point of deletion and the last of insertion: (N,).

    Arguments and errors are those of :func:`deletion_insertion`; "auto" is decided once, on all images.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> target_score(model, torch.rand(5, 3, 2, 2), target=1).shape
        torch.Size([5])
    """
    return score_outputs(forward_func, images, target, scores, batch_size)[0]


def score_outputs(
    forward_func: ForwardFunc, images: Tensor, target: Target, scores: Scores, batch_size: int = 32
) -> tuple[Tensor, Scores]:
    """Return :func:`target_score`, and the kind of outputs, determined on all images for "auto"."""
    targets = targets_of(target, images)
    outputs, kind = _outputs(forward_func, images, targets, scores, batch_size)
    return _in_range(_score(outputs, targets, kind), kind), kind


def resolve_scores(
    forward_func: ForwardFunc, images: Tensor, targets: Tensor, scores: Scores, batch_size: int = 32
) -> Scores:
    """Check outputs and targets on the first images, and return the kind of the outputs, which is never "auto"."""
    sure = scores is not probabilities and scores != "auto"
    return _outputs(forward_func, images[: 1 if sure else batch_size], targets, scores, batch_size)[1]


def _outputs(
    forward_func: ForwardFunc, images: Tensor, targets: Tensor, scores: Scores, batch_size: int
) -> tuple[Tensor, Scores]:
    """Return outputs, (N, classes), and their kind; check that the targets are classes."""
    outputs = class_outputs(forward_func, images, batch_size)
    low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[1]
    if low < 0 or high >= classes:  # before the loop: on a device, an index out of range would fail later
        hint = " Its one column is the logit of one class, target 0." if classes == 1 else ""
        raise IndexError(f"target {low if low < 0 else high} is not a class of a model with {classes} classes.{hint}")
    if callable(scores) and scores is not probabilities:
        return outputs, scores
    kind: Probability = "auto" if callable(scores) else scores
    graph = partial(output_with_graph, forward_func, images)
    return outputs, probability_kind(outputs, kind, graph, saturated="none")


def blur_images(images: Tensor) -> Tensor:
    """Return blurred images: a Gaussian with RISE's 11 taps and σ = 5 at 224 pixels, in proportion at other sizes.

    Example:
        >>> blur_images(torch.ones(1, 3, 8, 8)).allclose(torch.ones(1, 3, 8, 8))
        True
    """
    reach = max(1, round(5 * min(images.shape[-2:]) / 224))
    taps = torch.exp(-((torch.arange(-reach, reach + 1, device=images.device) / reach) ** 2) / 2)
    taps = (taps / taps.sum()).to(images.dtype).repeat(images.shape[1], 1, 1, 1)
    padded = F.pad(images, [reach] * 4, mode="replicate")
    wide = F.conv2d(padded, taps, groups=len(taps))
    return F.conv2d(wide, taps.transpose(2, 3), groups=len(taps))


def removal_order(maps: Tensor) -> Tensor:
    """Return each pixel's rank in its map, 0 for the most important; equal values are ordered by rows: (N, H, W).

    Example:
        >>> removal_order(torch.tensor([[[0.1, 0.9, 0.1]]]))
        tensor([[[1, 0, 2]]])
    """
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def _score(outputs: Tensor, targets: Tensor, scores: Scores) -> Tensor:
    values = scores(outputs) if callable(scores) else as_probabilities(outputs, scores)
    if values.dim() != 2 or len(values) != len(targets):
        raise ValueError(
            f"scores returned shape {tuple(values.shape)} for {len(targets)} images; expected (n, classes)."
        )
    return values.gather(1, targets[:, None])[:, 0]


def _in_range(values: Tensor, scores: Scores) -> Tensor:
    return values if callable(scores) else in_range(values, scores)


def targets_of(target: Target, images: Tensor) -> Tensor:
    """Return one class for each image, on the images' device."""
    if target is None:
        raise TypeError("target is None; give a class number, or one for each image: model(inputs).argmax(1).")
    classes = torch.as_tensor(target)
    if (
        classes.is_floating_point()
        or classes.dtype == torch.bool
        or classes.dim() > 1
        or classes.numel() not in {1, len(images)}
    ):
        raise ValueError(
            f"target is {classes.dtype} of shape {tuple(classes.shape)} for {len(images)} images; expected a class "
            "number, or one for each image."
        )
    return classes.to(images.device).long().flatten().expand(len(images))


def _check_maps(images: Tensor, maps: Tensor, **counts: int) -> None:
    """Check that there is a map (N, H, W) for each image (N, C, H, W), and that counts are at least 1."""
    if images.dim() != 4 or maps.shape != (len(images), *images.shape[2:]) or not maps.numel():
        raise ValueError(
            f"images have shape {tuple(images.shape)} and maps {tuple(maps.shape)}; expected (N, C, H, W) and (N, H, "
            "W), at least one."
        )
    for name, number in counts.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1.")


NEAR, DIAGONAL = 1 / 6, 1 / 12  # weights of the eight neighbours, which sum to one
LOOK = 10  # iterations between two checks of the residual: each check waits for the device
MOST = 2000  # iterations


def noisy_linear_imputation(
    images: Tensor, removed: Tensor, *, noise: float = 0.01, tolerance: float = 1e-4, seed: int = 0
) -> Tensor:
    r"""Return images whose removed pixels are weighted means of their eight neighbours, plus noise: (N, C, H, W).

    .. math:: \Sigma_q\, w_{pq}\, (x_p - x_q) = 0 \quad \text{for each removed } p, \qquad \hat x_p = x_p + \epsilon

    Symbols: q the neighbours of p inside the image; w 1/6 for direct and 1/12 for diagonal neighbours. One system of
    equations for all removed pixels is solved by conjugate gradients on the images' device.

    Args:
        images: floats, (N, C, H, W); half precision is solved in float32.
        removed: (N, H, W) bool; all pixels of an image, or another shape, raise ValueError.
        noise: standard deviation of the normal ε, in units of the images.
        tolerance: largest residual at which the solver stops, in units of the images. For holes of half an image of 224
            pixels, the default leaves errors of .001 on average and of .02 at most.
        seed: row i draws its noise from (seed, i), on the host, so that it is equal on all devices.

    Example:
        >>> image, removed = torch.tensor([[[[0.0, 9.0, 1.0]]]]), torch.tensor([[[False, True, False]]])
        >>> noisy_linear_imputation(image, removed, noise=0.0)
        tensor([[[[0.0000, 0.5000, 1.0000]]]])

    Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022), sec. 4.2.
    """
    _check_imputation(images, removed)
    narrow, images = images, images.to(torch.promote_types(images.dtype, torch.float32))
    gone = removed.to(images.device)[:, None].to(images.dtype)
    known = images * (1 - gone)
    # The solution does not depend on the initial values; coarse averages of the known pixels save most of the steps.
    x = gone * (_spread(known, 1 - gone) - images)
    ring = _around(torch.ones_like(gone))  # below one at the border of the image
    residual = gone * (_around(known + gone * images + x) - ring * (known + gone * images + x))
    direction, power = residual.clone(), _dot(residual, residual)
    for step in range(MOST):
        if step % LOOK == 0 and float(residual.abs().amax()) <= tolerance * (1 - NEAR):
            break
        pushed = gone * (ring * direction - _around(direction))
        pace = power / _dot(direction, pushed).clamp_min(torch.finfo(images.dtype).tiny)
        x, residual = x + pace * direction, residual - pace * pushed
        power, before = _dot(residual, residual), power
        direction = residual + power / before.clamp_min(torch.finfo(images.dtype).tiny) * direction
    generators = [random_generator(1_000_003 * python_index(seed) + i) for i in range(len(images))]
    drawn = torch.stack([torch.randn(images.shape[1:], generator=generator) for generator in generators]).to(images)
    return (images + x + gone * noise * drawn).to(narrow.dtype)


def _around(x: Tensor) -> Tensor:
    """Return the weighted sum over the eight neighbours that are inside the image."""
    rows = F.pad(x, (0, 0, 1, 1))
    beside = rows[..., :-2, :] + rows[..., 2:, :]
    both = F.pad(NEAR * x + DIAGONAL * beside, (1, 1))
    return both[..., :-2] + both[..., 2:] + NEAR * beside


def _spread(known: Tensor, weight: Tensor) -> Tensor:
    """Return known values, with unknown ones interpolated from coarser and coarser grids."""
    if min(known.shape[-2:]) < 2:
        return known.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-6) + 0 * known
    size = (known.shape[-2], known.shape[-1])
    pooled = [F.avg_pool2d(part, 2, ceil_mode=True) for part in (known, weight)]
    coarse = _spread(pooled[0] / pooled[1].clamp_min(1e-6), (pooled[1] > 0).to(weight))
    coarse = F.interpolate(coarse, size, mode="bilinear")
    return torch.where(weight > 0, known, coarse)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((2, 3), keepdim=True)


def _check_imputation(images: Tensor, removed: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point() or removed.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)} and removed has shape {tuple(removed.shape)}; "
            "expected floats (N, C, H, W), and (N, H, W)."
        )
    if removed.dtype != torch.bool:
        raise ValueError(f"removed is {removed.dtype}; expected bool, True where a pixel is to be filled in.")
    if removed.flatten(1).all(1).any():
        raise ValueError("all pixels of an image are removed; expected at least one to fill in from.")


def road(
    forward_func: ForwardFunc,
    images: Tensor,
    maps: Tensor,
    target: Target,
    *,
    shares: Sequence[float] = (0.2, 0.5, 0.8),
    seed: int = 0,
    batch_size: int = 32,
    scores: Scores = probabilities,
) -> Tensor:
    r"""Return how much more the target's score falls without the most than without the least important pixels: (N,).

    .. math:: R = \frac{1}{2|P|} \Sigma_{p \in P}\ s(x \text{ without its least important share } p)
        - s(x \text{ without its most important share } p)

    Symbols: s the target's probability, see :func:`~xinc_captum.metrics.probabilities`; pixels are removed by
    :func:`~xinc_captum.metrics.noisy_linear_imputation`, so that the shape of the removed region carries no
    information. The result lies between -1/2 and 1/2 for probabilities, and is 0 on average for a random map.

    Args:
        forward_func: images to (rows, classes); errors are those of :func:`~xinc_captum.metrics.deletion_insertion`.
        images: (N, C, H, W) in [0, 1].
        maps: (N, H, W), large for important pixels; the result is nan for a map that is not finite.
        target: a class, or one for each image.
        shares: P, fractions of the pixels, each above 0 and below 1, else ValueError.
        seed: random seed of the imputation's noise.
        batch_size: number of images per forward pass.
        scores: how outputs become scores, as for :func:`~xinc_captum.metrics.deletion_insertion`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        >>> road(model, torch.rand(2, 3, 4, 4), torch.rand(2, 4, 4), 1).shape
        torch.Size([2])

    Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022); both
    orders in one figure as Gildenblat's pytorch-grad-cam combines them.
    """
    _check_maps(images, maps, batch_size=batch_size)
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares are {tuple(shares)}; expected at least one, each above 0 and below 1.")
    maps, pixels = maps.detach().to(images.device), maps[0].numel()
    kind = resolve_scores(forward_func, images, targets_of(target, images), scores, batch_size)
    places = removal_order(maps)
    total = torch.zeros(len(images), device=images.device)
    for share in shares:
        count = min(max(round(share * pixels), 1), pixels - 1)
        for gone, sign in ((places >= pixels - count, 1), (places < count, -1)):
            filled = noisy_linear_imputation(images, gone, seed=seed)
            total = total + sign * target_score(forward_func, filled, target, scores=kind, batch_size=batch_size)
    return (total / (2 * len(shares))).masked_fill(~maps.isfinite().flatten(1).all(1), torch.nan)


def energy_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    r"""Return the fraction of a map inside the masked object, (N,); nan if the map or the mask is zero everywhere.

    .. math:: e = \Sigma_p \, m_p \, b_p \, / \, \Sigma_p \, m_p

    A uniform map scores the mask's fraction of the image, so compare with ``masks.float().mean((1, 2))``.

    Args:
        maps: m, (N, H, W), nonnegative, else ValueError.
        masks: b, (N, H, W), bool or weights in [0, 1], else ValueError.

    Example:
        >>> energy_in_mask(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
        tensor([0.7500])

    Source: the energy-based pointing game of Wang et al., "Score-CAM" (CVPR workshops 2020).
    """
    _check_masks(maps, masks)
    if (maps < 0).any():
        raise ValueError(
            f"maps go down to {float(maps.min()):.3g}; expected nonnegative ones. Give maps.clamp_min(0) to ignore "
            "negative values, or maps.abs() to count them."
        )
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return _where_marked((wide * masks).sum((1, 2)) / wide.sum((1, 2)), masks > 0)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether a map's largest value lies on the masked object, 1 or 0 for each image: (N,) float32.

    If several values are largest, the score is the fraction of them inside: 1/2 for two peaks, one of them inside.
    A pixel is inside if its mask is at least 1/2. The result is nan if a map is not finite or its mask is empty. Shapes
    and errors are those of :func:`energy_in_mask`, but maps may be negative.

    Example:
        >>> pointing_game(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[True, False]]]))
        tensor([1.])

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop" (IJCV 2018), sec. 4.2, without its margin
    of 15 pixels.
    """
    _check_masks(maps, masks)
    peaks = (maps == maps.amax((1, 2), keepdim=True)).float()
    inside = masks >= 0.5
    hits = (peaks * inside).sum((1, 2)) / peaks.sum((1, 2))
    return _where_marked(hits.masked_fill(~maps.isfinite().flatten(1).all(1), torch.nan), inside)


def _where_marked(values: Tensor, inside: Tensor) -> Tensor:
    """Return values with nan for images without the object, which must not count as misses."""
    return values.masked_fill(~inside.flatten(1).any(1), torch.nan)


def _check_masks(maps: Tensor, masks: Tensor) -> None:
    if maps.shape != masks.shape or maps.dim() != 3:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and masks {tuple(masks.shape)}; expected the same (N, H, W) twice."
        )
    check_weights(masks)


def top_overlap(first: Tensor, second: Tensor, share: float = 0.1) -> Tensor:
    r"""Return the intersection over union of the largest pixels of two maps, 1 if they are the same: (N,).

    .. math:: \mathrm{IoU} = |T(a) \cap T(b)| \,/\, |T(a) \cup T(b)|

    Symbols: a, b the maps; T(a) the fraction ``share`` of the pixels, at least one, with the largest values in a, equal
    ones ordered by rows. Independent maps score share / (2 - share) on average, .05 at a tenth. The result is nan for a
    map that is not finite. Raises ValueError for maps that are not of one shape (N, H, W), or a share outside (0, 1].

    Example:
        >>> top_overlap(torch.tensor([[[4.0, 3.0, 0.0, 0.0]]]), torch.tensor([[[4.0, 0.0, 3.0, 0.0]]]), share=0.5)
        tensor([0.3333])

    Source: Jaccard 1901.
    """
    if first.shape != second.shape or first.dim() != 3:
        raise ValueError(
            f"maps have shapes {tuple(first.shape)} and {tuple(second.shape)}; expected the same (N, H, W) twice."
        )
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected a fraction of the pixels, above 0 and at most 1.")
    count = max(round(share * first.shape[1] * first.shape[2]), 1)
    one, other = (removal_order(maps) < count for maps in (first, second.to(first.device)))
    both, either = ((one & other).flatten(1).sum(1), (one | other).flatten(1).sum(1))
    known = (first.isfinite() & second.to(first.device).isfinite()).flatten(1).all(1)
    return (both.float() / either).masked_fill(~known, torch.nan)


def gini(maps: Tensor) -> Tensor:
    r"""Return the Gini index of each map's magnitudes, 0 if all are equal and near 1 for a single pixel: (N,).

    .. math:: G = \frac{\Sigma_i (2i - n - 1)\, |m|_{(i)}}{n\, \Sigma_i |m|_{(i)}}

    Symbols: \|m\|_(i) the i-th smallest of n magnitudes. The maps are (N, …) floats, else ValueError; the result is in
    float32 or wider, nan for a map of zeros or one that is not finite.

    Example:
        >>> gini(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]))
        tensor([0.0000, 0.7500])

    Source: Hurley & Rickard, "Comparing Measures of Sparsity" (2009); for maps Chalasani et al. (ICML 2020).
    """
    if maps.dim() < 2:
        raise ValueError(f"maps have shape {tuple(maps.shape)}; expected (N, …), one map for each row.")
    wide = maps.detach().to(torch.promote_types(maps.dtype, torch.float32)).flatten(1).abs()
    ordered, n = wide.sort(1).values, wide.shape[1]
    weights = 2 * torch.arange(1, n + 1, device=wide.device, dtype=wide.dtype) - n - 1
    return (ordered * weights).sum(1) / (n * ordered.sum(1))
