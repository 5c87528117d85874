"""Network dissection, concepts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..batch import chunks
from ..hooks import (
    ForwardFunc,
    LayerError,
    capture,
    find_layer,
    layer_name,
    one_tensor,
    patch,
    protect,
)
from ..hooks import unit_axis as axis_of
from ..selectors import python_index
from .spread import share
from .statistics import chance_of, false_discovery_rate, rank_vectors

BLOCK = 16  # units whose enlarged maps are held at a time


class ConceptUnits(NamedTuple):
    """Units that stand for a concept, the strongest first: (kept,) each."""

    units: Tensor
    iou: Tensor
    q: Tensor


class Concepts(NamedTuple):
    """Every unit beside every concept.

    Attributes:
        iou: intersection over union, (units, concepts), float64; nan where a unit is never active and the concept
            nowhere.
        p: chance of as much when masks belong to other images, (units, concepts).
        q: smallest rate of false discoveries at which a pair is kept, over all pairs, (units, concepts).
        thresholds: above which a unit counts as active, (units,).
        shuffled: mean overlap under the exchange of images, (units, concepts).
    """

    iou: Tensor
    p: Tensor
    q: Tensor
    thresholds: Tensor
    shuffled: Tensor

    def __repr__(self) -> str:
        """How many, and the highest overlap, not every number."""
        units, concepts = self.iou.shape
        best = self.iou.nan_to_num(0).max() if self.iou.numel() else torch.tensor(0.0)
        return f"Concepts({units} units, {concepts} concepts, highest overlap {float(best):.2f})"

    def units_for(self, concept: int, *, least: float = 0.04, fdr: float = 0.05) -> ConceptUnits:
        """Units with an overlap of at least ``least`` that chance does not explain.

        Raises:
            ValueError: a concept that is not there.
        """
        if not 0 <= concept < self.iou.shape[1]:
            raise ValueError(f"concept is {concept}; there are 0 to {self.iou.shape[1] - 1}.")
        overlap, rate = self.iou[:, concept], self.q[:, concept]
        selected = ((overlap >= least) & (rate <= fdr)).nonzero()[:, 0]
        order = selected[overlap[selected].argsort(descending=True, stable=True)]
        return ConceptUnits(order, overlap[order], rate[order])


def concept_overlap(
    activations: Tensor, masks: Tensor, *, generator: torch.Generator, quantile: float = 0.99, repeats: int = 20
) -> Concepts:
    r"""Intersection over union of units' highest activations with concepts' masks, beside exchanged images.

    .. math:: \mathrm{IoU}_{u,c} = \frac{\Sigma_{i,p}\, [\uparrow a_{u,i,p} > t_u]\, m_{c,i,p}}
              {\Sigma_{i,p}\, \max([\uparrow a_{u,i,p} > t_u],\, m_{c,i,p})}, \qquad P(a_u > t_u) = 1 - \text{quantile}

    Symbols: a the activation of unit u in image i, ↑ bilinear enlargement to the masks' size, m the mask of concept
    c. The control hands the images' masks round at random: what remains is what any unit gets that likes the places
    where the concept usually is. Overlaps are standardised unit by unit, the true one among those of the control, and
    compared with the control's of all units.

    Args:
        activations: (n, units, h, w), any float dtype.
        masks: (n, concepts, H, W), bool or 0 and 1; they may overlap.
        generator: of the exchanges.
        quantile: in (0, 1).
        repeats: exchanges; the smallest p is 1 / (1 + repeats · units).

    Returns:
        :class:`Concepts`, on the CPU.

    Raises:
        ValueError: shapes that do not match, fewer than three images, masks that are soft, a concept that is nowhere,
            a quantile outside (0, 1), or fewer than three repeats.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> masks = torch.rand(8, 1, 4, 4, generator=g) > 0.9
        >>> activations = torch.cat([masks.float(), torch.rand(8, 1, 4, 4, generator=g)], 1)
        >>> concept_overlap(activations, masks, generator=g, quantile=0.85).iou[0]
        tensor([1.], dtype=torch.float64)

    Source: Bau et al., "Understanding the role of individual units in a deep neural network" (PNAS 2020); the control
    is ours.
    """
    _check(activations, masks, quantile, repeats)
    flags = masks.to(torch.float32).cpu().flatten(2)
    areas = flags.sum((0, 2)).double()
    orders = [torch.randperm(len(masks), generator=generator, device=generator.device).cpu() for _ in range(repeats)]
    overlaps, nulls, levels = [], [], []
    for start, stop in chunks(activations.shape[1], BLOCK):
        chunk = activations[:, start:stop].detach().float()
        level = chunk.transpose(0, 1).flatten(1).double().quantile(quantile, dim=1).to(chunk)
        large = F.interpolate(chunk, masks.shape[2:], mode="bilinear", align_corners=False)
        # Between equal largest values, enlargement rounds up: nothing is above the largest one.
        edge = level.where(level < chunk.amax((0, 2, 3)), torch.inf)
        active = (large > edge[:, None, None]).float().cpu().flatten(2)
        size = active.sum((0, 2)).double()[:, None] + areas
        overlaps.append(_over(_intersections(active, flags), size))
        nulls.append(torch.stack([_over(_intersections(active, flags[order]), size) for order in orders], 1))
        levels.append(level.cpu())
    iou, null = torch.cat(overlaps), torch.cat(nulls)
    # standardised with the truth among its exchanges: each of them is treated as the truth is
    every = torch.cat([iou[:, None], null], 1)
    z = (every - every.mean(1, keepdim=True)) / _positive(every.std(1, keepdim=True, correction=0))
    p = torch.stack([_chance(z[:, 0, c], z[:, 1:, c].flatten()) for c in range(iou.shape[1])], 1)
    q = false_discovery_rate(p.flatten()).view_as(p)
    return Concepts(iou, p, q, torch.cat(levels), null.mean(1))


def _chance(overlaps: Tensor, null: Tensor) -> Tensor:
    """p-values; 1 where nothing varies under the exchange, so that it cannot say anything."""
    return torch.ones_like(overlaps) if null.isnan().all() else chance_of(overlaps, null)


def _positive(spread: Tensor) -> Tensor:
    return spread.where(spread > 1e-12, torch.nan)


def _intersections(active: Tensor, flags: Tensor) -> Tensor:
    """Pixels that each unit and concept share over all images, (units, concepts)."""
    return torch.einsum("iup,icp->uc", active, flags).double()


def _over(met: Tensor, size: Tensor) -> Tensor:
    union = size - met
    return met / union.where(union > 0, torch.nan)


def _check(activations: Tensor, masks: Tensor, quantile: float, repeats: int) -> None:
    if activations.dim() != 4 or masks.dim() != 4 or len(activations) != len(masks) or len(masks) < 3:
        raise ValueError(
            f"activations have shape {tuple(activations.shape)} and masks {tuple(masks.shape)}; expected (n, units, h, "
            "w) and (n, concepts, H, W) of the same images, at least 3."
        )
    if not activations.isfinite().all():
        raise ValueError("activations hold nan or infinity; expected finite ones. Leave such images out.")
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError(
            "masks have values between 0 and 1; a concept is there or not. Compare with a threshold first."
        )
    nowhere = (~masks.flatten(2).any(2).any(0)).nonzero()[:, 0]
    if len(nowhere):
        raise ValueError(f"concept {int(nowhere[0])} is in none of the images; leave it out.")
    if not 0 < quantile < 1 or repeats < 3:
        raise ValueError(f"quantile is {quantile} with {repeats} repeats; expected one in (0, 1), and at least 3.")


class Correspondence(NamedTuple):
    """How well a neuron of one network finds itself in another by what it paints.

    Where no neuron paints anything, the first three are nan.

    Attributes:
        retrieval: share of neurons whose most similar canvas in the other network has the same index.
        same: mean cosine of canvases with the same index.
        other: mean cosine of canvases with different indices.
        chance: retrieval by guessing, 1 / neurons.
        queries: how many neurons looked, over all ordered pairs of images.
        silent: how many could not look, since they paint nothing in their own image.
    """

    retrieval: float
    same: float
    other: float
    chance: float
    queries: int
    silent: int


def correspondence(canvases: Tensor) -> Correspondence:
    r"""Retrieval of each neuron among the neurons of every other image's network.

    .. math:: \mathrm{mean}_{a \ne b,\, i}\; \bigl[\arg\max_j \cos(C_{a,i}, C_{b,j}) = i\bigr]

    A neuron that is silent in b is similar to none there (cosine 0), so it counts as not found. The number alone says
    little: networks that are written from shared base weights correspond *before any training*, and networks fitted
    one by one from the same first weights find each other too, to some extent. Compare with
    :func:`.shared_start` and :func:`.own_starts`, and with an unfitted model.

    Args:
        canvases: (images, neurons, *image), contributions with their signs; at least 2 of each.

    Raises:
        ValueError: another shape, or values that are not finite.

    Example:
        >>> maps = torch.eye(4)
        >>> correspondence(torch.stack([maps, maps[[0, 1, 3, 2]]])).retrieval
        0.5

    Source: the protocol is ours; aligned neurons follow from Chen & Wang (ECCV 2022), eq. 3.
    """
    vectors = _unit(canvases)
    images, neurons = vectors.shape[:2]
    painting = vectors.abs().sum(-1) > 0
    hits = same = other = 0.0
    for a in range(images):
        similar = vectors[a] @ vectors.mT  # (images, neurons of a, neurons)
        other_images = torch.arange(images, device=vectors.device) != a
        similarities = similar[other_images][:, painting[a]]
        index = painting[a].nonzero()[:, 0]
        matches = similarities.gather(2, index.expand(len(similarities), -1)[..., None])[..., 0]
        rivals = similarities.scatter(2, index.expand(len(similarities), -1)[..., None], -torch.inf).amax(2)
        hits += float(((matches > rivals) & (matches != 0)).sum())
        same += float(matches.sum())
        other += float((similarities.sum(2) - matches).sum()) / (neurons - 1)
    queries = int(painting.sum()) * (images - 1)
    retrieval, same, other = (total / queries if queries else float("nan") for total in (hits, same, other))
    return Correspondence(retrieval, same, other, 1 / neurons, queries, int((~painting).sum()) * (images - 1))


def region_use(canvases: Tensor, masks: Tensor) -> Tensor:
    r"""Each neuron's share of what is painted in each region of each image: (images, regions, neurons).

    .. math:: U_{b,r,i} = \Sigma_{p \in r} |C_{b,i,p}| \, / \, \Sigma_v \Sigma_{p \in r} |C_{b,v,p}|

    Args:
        canvases: (images, neurons, C, H, W); channels are added up.
        masks: (regions, H, W), or (images, regions, H, W) where each image has its own; bool or in [0, 1].

    Returns:
        float64, rows of neurons adding up to 1.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> region_use(torch.ones(2, 4, 1, 3, 3), torch.ones(1, 3, 3)).tolist()
        [[[0.25, 0.25, 0.25, 0.25]], [[0.25, 0.25, 0.25, 0.25]]]
    """
    if canvases.dim() != 5 or masks.dim() not in (3, 4) or (masks.dim() == 4 and len(masks) != len(canvases)):
        raise ValueError(
            f"canvases have shape {tuple(canvases.shape)} and masks {tuple(masks.shape)}; expected (images, neurons, "
            "C, H, W) and (regions, H, W), or (images, regions, H, W)."
        )
    magnitudes = canvases.abs().sum(2)
    each = masks if masks.dim() == 4 else masks.expand(len(canvases), *masks.shape)
    return torch.stack([share(a, m) for a, m in zip(magnitudes, each, strict=True)])


def region_agreement(use: Tensor) -> Tensor:
    r"""Whether the same neurons serve a region in every image: one number a region.

    .. math:: \mathrm{mean}_{a \ne b}\; \rho(U_{a,r,\cdot}, U_{b,r,\cdot})

    Args:
        use: (images, regions, neurons), as :func:`region_use` answers; ρ is Spearman's over neurons.

    Returns:
        (regions,), float64; nan where an image's neurons share a region equally.

    Raises:
        ValueError: fewer than 2 images or neurons.

    Example:
        >>> region_agreement(torch.tensor([[[0.1, 0.2, 0.7]], [[0.2, 0.3, 0.5]]])).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """
    if use.dim() != 3 or use.shape[0] < 2 or use.shape[2] < 2:
        raise ValueError(f"use has shape {tuple(use.shape)}; expected (images, regions, neurons).")
    vectors = rank_vectors(use).movedim(1, 0)  # (regions, images, neurons)
    every = vectors @ vectors.mT
    pairs = use.shape[0] * (use.shape[0] - 1)
    return (every.sum((1, 2)) - every.diagonal(dim1=1, dim2=2).sum(1)) / pairs


def _unit(canvases: Tensor) -> Tensor:
    if canvases.dim() < 3 or min(canvases.shape[:2]) < 2:
        raise ValueError(
            f"canvases have shape {tuple(canvases.shape)}; expected (images, neurons, *image), 2 or more of both."
        )
    flat = canvases.detach().double().flatten(2)
    if not flat.isfinite().all():
        raise ValueError("canvases hold NaN or infinity; expected finite contributions.")
    length = flat.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, flat / length.where(length > 0, 1), 0)


def dissect(
    forward_func: ForwardFunc,
    layer: nn.Module | str,
    inputs: Tensor,
    masks: Tensor,
    *,
    generator: torch.Generator,
    quantile: float = 0.99,
    repeats: int = 20,
    batch_size: int = 32,
    unit_axis: int | None = None,
) -> Concepts:
    """Overlap of each unit of a layer with each concept: :func:`concept_overlap` on what the layer hands on.

    Args:
        forward_func: a classifier called with images, or a generator's ``synthesize`` called with latents.
        layer: a module or dotted name; its output is (n, units, h, w), or has its units on another axis.
        inputs: of ``forward_func``, (n, …).
        masks: (n, concepts, H, W), of the images that go in (or come out, of a generator).
        generator: of the control's exchanges.
        quantile: above which a unit counts as active.
        repeats: of the control.
        batch_size: inputs at once.
        unit_axis: which axis of the layer's output holds the units; None determines it.

    Returns:
        :class:`Concepts`.

    Raises:
        LayerError: the layer is unknown, returns something else than maps, or its unit axis cannot be determined.
        ValueError: as :func:`concept_overlap`.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> model, images = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), torch.rand(6, 3, 8, 8, generator=g)
        >>> dissect(model, "0", images, images[:, :1] > 0.8, generator=g).iou.shape
        torch.Size([4, 1])

    Source: Bau et al., "Understanding the role of individual units in a deep neural network" (PNAS 2020).
    """
    module = find_layer(forward_func, layer)
    activations = []
    with protect(forward_func), torch.no_grad():
        for start, stop in chunks(len(inputs), batch_size):
            with capture(forward_func, module) as captured:
                forward_func(inputs[start:stop].clone())
            value = one_tensor(captured[module], partial(layer_name, forward_func, module), stop - start)
            if value.dim() != 4:
                raise LayerError(
                    f"layer {layer_name(forward_func, module)} returns {tuple(value.shape)}; concepts have places, so "
                    "maps (n, units, h, w) are expected. Choose a convolution before it."
                )
            axis = axis_of(value.shape, module, forward_func, entered=tuple(inputs.shape), requested=unit_axis)
            activations.append(value.detach().movedim(axis, 1))
    return concept_overlap(torch.cat(activations), masks, generator=generator, quantile=quantile, repeats=repeats)


def ablate(
    forward_func: ForwardFunc,
    layer: nn.Module | str,
    inputs: Tensor,
    units: Sequence[int | Sequence[int]],
    score: Callable[[Tensor], Tensor],
    *,
    value: float = 0.0,
    batch_size: int = 64,
    unit_axis: int | None = None,
) -> Tensor:
    r"""By how much a score falls when units are held at a constant: what they cause, not what they go along with.

    .. math:: \delta_{u} = \mathrm{mean}_i\, \bigl(s(f(x_i)) - s(f(x_i;\, a_u := v))\bigr)

    Symbols: f the network, s the score, a the layer's output, v the constant. In a classifier, s may be the classes'
    probabilities; in a generator, the area of each part of the image.

    Args:
        forward_func: a classifier called with images, or a generator's ``synthesize`` called with latents.
        layer: a module or dotted name.
        inputs: of ``forward_func``, (n, …).
        units: each entry is one unit, or several that are held together.
        score: the output of ``forward_func`` to (n, scores).
        value: what they are held at.
        batch_size: inputs at once.
        unit_axis: which axis of the layer's output holds the units; None determines it.

    Returns:
        (entries, scores), float64, on the CPU; nan scores are left out of the mean.

    Raises:
        ValueError: no inputs, no units, one out of range, or a score of another shape.
        LayerError: the layer is unknown, returns no single tensor, or its unit axis cannot be determined.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
        >>> model[0].weight.data = torch.eye(2)
        >>> ablate(model, "1", torch.tensor([[3.0, 5.0]]), [0, [0, 1]], lambda y: y)
        tensor([[3., 0.],
                [3., 5.]], dtype=torch.float64)

    Source: Bau et al., "Understanding the role of individual units in a deep neural network" (PNAS 2020).
    """
    if not len(inputs) or not len(units):
        raise ValueError(f"got {len(inputs)} inputs and {len(units)} entries of units; expected at least one of each.")
    groups = [[entry] if isinstance(entry, int) else list(entry) for entry in python_index(list(units))]
    module = find_layer(forward_func, layer)
    total: Tensor | None = None
    count: Tensor | None = None
    with protect(forward_func), torch.no_grad():
        for start, stop in chunks(len(inputs), batch_size):
            rows = inputs[start:stop]
            before = _score(score, forward_func(rows.clone()), len(rows))
            fallen = []
            entered = tuple(inputs.shape)
            for group in groups:
                axis = partial(axis_of, layer=module, forward_func=forward_func, entered=entered, requested=unit_axis)
                with patch(forward_func, module, _set_group(group, value, axis)):
                    after = forward_func(rows.clone())  # the model may write into its input
                fallen.append(before - _score(score, after, len(rows)))
            change = torch.stack(fallen)
            known = ~change.isnan()
            sums, counts = change.nansum(1), known.sum(1)
            total, count = (sums, counts) if total is None or count is None else (total + sums, count + counts)
    if total is None or count is None:  # there is at least one chunk
        raise ValueError("no inputs.")
    return total / count.where(count > 0, torch.nan)


def _set_group(group: list[int], value: float, axis_of_shape: Callable[..., int]) -> Callable[[Tensor], Tensor]:
    def edit(activation: Tensor) -> Tensor:
        if not isinstance(activation, Tensor) or activation.dim() < 2:
            raise LayerError("the layer returns no single tensor with an axis of units; choose a module inside it.")
        axis = axis_of_shape(tuple(activation.shape))
        wide = activation.shape[axis]
        if not group or min(group) < 0 or max(group) >= wide:
            raise ValueError(f"units are {group}; expected some of 0 to {wide - 1}.")
        changed = activation.clone()
        changed.movedim(axis, 1)[:, group] = value
        return changed

    return edit


def _score(score: Callable[[Tensor], Tensor], output: Tensor, rows: int) -> Tensor:
    values = score(output)
    if not isinstance(values, Tensor) or values.dim() != 2 or len(values) != rows:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"score gave {shape} for {rows} inputs; expected a tensor ({rows}, scores).")
    return values.double().cpu()
