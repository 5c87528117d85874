"""Network dissection: overlap of units with concepts, effects of ablations, and correspondence between networks."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..batch import chunks, python_index
from ..hooks import ForwardFunc, LayerError, capture, find_layer, layer_name, one_tensor, patch, protect
from ..hooks import unit_axis as axis_of
from .spread import share
from .statistics import chance_of, false_discovery_rate, rank_vectors

BLOCK = 16  # units whose enlarged maps are in memory at a time


class ConceptUnits(NamedTuple):
    """Units that detect a concept, the strongest first, with values of :class:`Concepts`: (selected units,) each."""

    units: Tensor
    iou: Tensor
    q: Tensor


class Concepts(NamedTuple):
    """Overlap of every unit with every concept.

    Attributes:
        iou: intersection over union, (units, concepts), float64; nan if neither the unit is active nor the concept
            present.
        p: p-values under exchanged masks, (units, concepts).
        q: smallest false discovery rate at which a pair is selected, over all pairs, (units, concepts).
        thresholds: activation above which a unit is active, (units,).
        shuffled: mean overlap with exchanged masks, (units, concepts).
    """

    iou: Tensor
    p: Tensor
    q: Tensor
    thresholds: Tensor
    shuffled: Tensor

    def __repr__(self) -> str:
        """Return the numbers of units and concepts, and the highest overlap."""
        units, concepts = self.iou.shape
        best = self.iou.nan_to_num(0).max() if self.iou.numel() else torch.tensor(0.0)
        return f"Concepts({units} units, {concepts} concepts, highest overlap {float(best):.2f})"

    def units_for(self, concept: int, *, least: float = 0.04, fdr: float = 0.05) -> ConceptUnits:
        """Return the units with an overlap of at least ``least`` and a false discovery rate of at most ``fdr``."""
        if not 0 <= concept < self.iou.shape[1]:
            raise ValueError(f"concept is {concept}; expected 0 to {self.iou.shape[1] - 1}.")
        overlap, rate = self.iou[:, concept], self.q[:, concept]
        selected = ((overlap >= least) & (rate <= fdr)).nonzero()[:, 0]
        order = selected[overlap[selected].argsort(descending=True, stable=True)]
        return ConceptUnits(order, overlap[order], rate[order])


def concept_overlap(
    activations: Tensor, masks: Tensor, *, generator: torch.Generator, quantile: float = 0.99, repeats: int = 20
) -> Concepts:
    r"""Return the intersection over union of units' highest activations with masks of concepts, and p-values.

    .. math:: \mathrm{IoU}_{u,c} = \frac{\Sigma_{i,p}\, [\uparrow a_{u,i,p} > t_u]\, m_{c,i,p}}
              {\Sigma_{i,p}\, \max([\uparrow a_{u,i,p} > t_u],\, m_{c,i,p})}, \qquad P(a_u > t_u) = 1 - \text{quantile}

    Symbols: a the activation of unit u in image i, ↑ bilinear upsampling to the masks' size, m the mask of concept c.
    The control permutes the masks over the images: it keeps the overlap due to the typical position of the concept.
    Overlaps are standardised for each unit, over the true masks and the permutations, and compared with those
    of all units under the permutations.

    Args:
        activations: (n, units, h, w), any float dtype.
        masks: (n, concepts, H, W), bool or 0 and 1; they may overlap.
        generator: of the permutations.
        quantile: in (0, 1).
        repeats: number of permutations; the smallest p is 1 / (1 + repeats · units).

    Raises:
        ValueError: shapes that do not match, soft masks, a concept without pixels, values that are not finite, a
            quantile out of range, or fewer than three images or repeats.

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
        # Interpolation between equal largest values can round up; no value is above the largest one.
        edge = level.where(level < chunk.amax((0, 2, 3)), torch.inf)
        active = (large > edge[:, None, None]).float().cpu().flatten(2)
        size = active.sum((0, 2)).double()[:, None] + areas
        overlaps.append(_overlap(active, flags, size))
        nulls.append(torch.stack([_overlap(active, flags[order], size) for order in orders], 1))
        levels.append(level.cpu())
    iou, null = torch.cat(overlaps), torch.cat(nulls)
    # standardised over the true masks and the permutations alike, so that both are treated equally
    every = torch.cat([iou[:, None], null], 1)
    spread = every.std(1, keepdim=True, correction=0)
    z = (every - every.mean(1, keepdim=True)) / spread.where(spread > 1e-12, torch.nan)
    p = torch.stack([_chance(z[:, 0, c], z[:, 1:, c].flatten()) for c in range(iou.shape[1])], 1)
    q = false_discovery_rate(p.flatten()).view_as(p)
    return Concepts(iou, p, q, torch.cat(levels), null.mean(1))


def _chance(overlaps: Tensor, null: Tensor) -> Tensor:
    """Return p-values; 1 if the overlap does not vary under the permutations."""
    return torch.ones_like(overlaps) if null.isnan().all() else chance_of(overlaps, null)


def _overlap(active: Tensor, flags: Tensor, size: Tensor) -> Tensor:
    """Return the intersection over union of units and concepts, whose sizes add up to ``size``; nan for no pixel."""
    met = torch.einsum("iup,icp->uc", active, flags).double()
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
        raise ValueError("masks have values between 0 and 1; expected 0 or 1. Compare them with a threshold first.")
    nowhere = (~masks.flatten(2).any(2).any(0)).nonzero()[:, 0]
    if len(nowhere):
        raise ValueError(f"concept {int(nowhere[0])} is in none of the images; leave it out.")
    if not 0 < quantile < 1 or repeats < 3:
        raise ValueError(f"quantile is {quantile} with {repeats} repeats; expected one in (0, 1), and at least 3.")


class Correspondence(NamedTuple):
    """Similarity of neuron i's contribution maps across networks fitted to different images.

    The first three fields are nan if no neuron contributes anything.

    Attributes:
        retrieval: fraction of neurons whose most similar canvas in the other network has the same index.
        same: mean cosine of canvases with the same index.
        other: mean cosine of canvases with different indices.
        chance: retrieval by guessing, 1 / neurons.
        queries: number of compared neurons, over all ordered pairs of images.
        silent: number of neurons that contribute nothing to their own image and are not compared.
    """

    retrieval: float
    same: float
    other: float
    chance: float
    queries: int
    silent: int


def correspondence(canvases: Tensor) -> Correspondence:
    r"""Return how often each neuron's most similar canvas in every other image's network has the same index.

    .. math:: \mathrm{mean}_{a \ne b,\, i}\; \bigl[\arg\max_j \cos(C_{a,i}, C_{b,j}) = i\bigr]

    Symbols: C_{a,i} the canvas of neuron i in the network of image a. A neuron without contributions in b has cosine 0
    with all neurons there and counts as not retrieved. Compare the result with controls: networks generated from shared
    base weights correspond *before any training*, and networks fitted one by one from the same initial weights also
    correspond to some extent. See :func:`.identical_inits` and :func:`.independent_inits`, and an unfitted model.

    Args:
        canvases: C, (images, neurons, *image), finite contributions with their signs; at least 2 of each, else
            ValueError.

    Example:
        >>> maps = torch.eye(4)
        >>> correspondence(torch.stack([maps, maps[[0, 1, 3, 2]]])).retrieval
        0.5

    Source: the protocol is ours; aligned neurons follow from Chen & Wang (ECCV 2022), eq. 3.
    """
    vectors = _unit(canvases)
    images, neurons = vectors.shape[:2]
    contributing = vectors.abs().sum(-1) > 0
    hits = same = other = 0.0
    for a in range(images):
        similar = vectors[a] @ vectors.mT  # (images, neurons of a, neurons)
        other_images = torch.arange(images, device=vectors.device) != a
        similarities = similar[other_images][:, contributing[a]]
        index = contributing[a].nonzero()[:, 0]
        matches = similarities.gather(2, index.expand(len(similarities), -1)[..., None])[..., 0]
        rivals = similarities.scatter(2, index.expand(len(similarities), -1)[..., None], -torch.inf).amax(2)
        hits += float(((matches > rivals) & (matches != 0)).sum())
        same += float(matches.sum())
        other += float((similarities.sum(2) - matches).sum()) / (neurons - 1)
    queries = int(contributing.sum()) * (images - 1)
    retrieval, same, other = (total / queries if queries else float("nan") for total in (hits, same, other))
    return Correspondence(retrieval, same, other, 1 / neurons, queries, int((~contributing).sum()) * (images - 1))


def region_use(canvases: Tensor, masks: Tensor) -> Tensor:
    r"""Return each neuron's :func:`share` of the contributions in each region: (images, regions, neurons).

    .. math:: U_{b,r,i} = \Sigma_{p \in r} |C_{b,i,p}| \, / \, \Sigma_v \Sigma_{p \in r} |C_{b,v,p}|

    Symbols: b an image, r a region, i and v neurons, p a pixel.

    Args:
        canvases: C, (images, neurons, channels, H, W); channels are summed. Shapes that do not fit raise ValueError.
        masks: (regions, H, W), or (images, regions, H, W) where each image has its own; bool or in [0, 1].

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
    r"""Return how well images agree on the neurons that contribute to a region: (regions,) float64.

    .. math:: \mathrm{mean}_{a \ne b}\; \rho(U_{a,r,\cdot}, U_{b,r,\cdot})

    Symbols: U the result of :func:`region_use`, (images, regions, neurons), 2 or more images and neurons, else
    ValueError; ρ Spearman's correlation over neurons, nan if those of an image contribute equally to a region.

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
    """Return the overlap of each unit of a layer with each concept: :func:`concept_overlap` of the layer's output.

    Args:
        forward_func: a classifier called with images, or a generator's ``synthesize`` called with latents.
        layer: a module or dotted name; its output is (n, units, h, w), or has its units on another axis.
        inputs: of ``forward_func``, (n, …).
        masks: (n, concepts, H, W), of the input images, or of a generator's output images.
        generator: as for :func:`concept_overlap`.
        quantile: likewise.
        repeats: likewise.
        batch_size: number of inputs per forward pass.
        unit_axis: which axis of the layer's output holds the units; None determines it.

    Raises:
        LayerError: the layer is unknown, does not return maps, or its unit axis cannot be determined.
        ValueError: as :func:`concept_overlap`.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> model, images = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), torch.rand(6, 3, 8, 8, generator=g)
        >>> dissect(model, "0", images, images[:, :1] > 0.8, generator=g).iou.shape
        torch.Size([4, 1])

    Source: as :func:`concept_overlap`.
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
                    f"layer {layer_name(forward_func, module)} returns {tuple(value.shape)}; expected maps (n, units, "
                    "h, w). Choose a convolution before it."
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
    r"""Return by how much a score falls when units are set to a constant, which measures their causal effect.

    .. math:: \delta_{u} = \mathrm{mean}_i\, \bigl(s(f(x_i)) - s(f(x_i;\, a_u := v))\bigr)

    In a classifier, s may be the classes' probabilities; in a generator, the area of each part of the image.

    Args:
        forward_func: f, as for :func:`dissect`.
        layer: a module or dotted name, whose output is a.
        inputs: x, (n, …).
        units: each entry is one unit, or several that are set together.
        score: s, function from the output of ``forward_func`` to (n, scores).
        value: v, the constant.
        batch_size: number of inputs per forward pass.
        unit_axis: as for :func:`dissect`.

    Returns:
        (entries, scores), float64, on the CPU; nan scores are left out of the mean.

    Raises:
        ValueError: no inputs, no units, one out of range, or a score of another shape.
        LayerError: the layer is unknown, returns no single tensor, or its unit axis cannot be determined.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
        >>> model[0].weight.data = torch.eye(2)
        >>> ablate(model, "1", torch.tensor([[3.0, 5.0]]), [0, [0, 1]], lambda y: y).tolist()
        [[3.0, 0.0], [3.0, 5.0]]

    Source: as :func:`concept_overlap`.
    """
    if not len(inputs) or not len(units):
        raise ValueError(f"got {len(inputs)} inputs and {len(units)} entries of units; expected at least one of each.")
    groups = [[entry] if isinstance(entry, int) else list(entry) for entry in python_index(list(units))]
    module = find_layer(forward_func, layer)
    totals, counts = [], []
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
            totals.append(change.nansum(1))
            counts.append((~change.isnan()).sum(1))
    count = reduce(torch.add, counts)
    return reduce(torch.add, totals) / count.where(count > 0, torch.nan)


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
        raise ValueError(f"score returned {shape} for {rows} inputs; expected a tensor ({rows}, scores).")
    return values.double().cpu()
