"""Build lazy canvases and judge their trust."""

import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...batch import Batch, Selector, chunks
from ...metrics.trust import CanvasTrust, ablation_agreement, judge_canvas
from ..base import plain, shares_statistics
from .canvas import Canvas
from .frames import FrameCanvas
from .rules import Ablation, Rule, Tail, Xinc
from .rules.kernels import Site, kernels_of
from .rules.rules import ChunkPlan, plan_chunks
from .rules.tail import are_frames

# Of a sample: units, pixels in a run and number of runs, pixels of a frame, random sign patterns.
UNITS, RUN, FRAME_PIXELS, PROBES = 16, 8, 1024, 4
ROUNDING = 16  # rounding steps of the output's dtype: the error of a difference of two outputs


def assess(
    canvas: Canvas, make_ablation: Callable[[], Canvas], total: Callable[[int, int], Tensor] | None
) -> CanvasTrust:
    """Judge a canvas by a fixed random sample, in comparison with the same canvas under ablation at zero.

    ``total(first, last)`` returns the output to which the contributions to rows [first, last) must sum; None for rules
    whose contributions have no known sum.
    """
    g = torch.Generator().manual_seed(0)
    samples, rows = _sample([canvas, make_ablation()], g)
    gap = None
    if total is not None and isinstance(canvas, FrameCanvas):
        gap = _frame_gap(canvas, rows[0][0], total, g)
    elif total is not None:
        sums = torch.cat([canvas._shares(*run, None).sum(1) for run in rows])
        output = torch.cat([total(*run) for run in rows]).reshape(sums.shape)
        gap = _relative_gap(sums - output, output)
    return judge_canvas(agreement=ablation_agreement(*samples), gap=gap)


def assess_ablation(canvas: Canvas, output: Callable[[int, int], Tensor]) -> CanvasTrust:
    """Judge a canvas of ablations: it is weak if all sampled contributions are zero within rounding, else it holds."""
    g = torch.Generator().manual_seed(0)
    (sample,), rows = _sample([canvas], g)
    scale = torch.stack([output(*run).abs().max() for run in rows]).max()
    if not bool(sample.abs().max() > ROUNDING * torch.finfo(scale.dtype).eps * scale):
        return CanvasTrust(
            "weak",
            "every contribution that was sampled is zero within rounding: the units are at their baseline already, or "
            "lead nowhere",
        )
    return CanvasTrust("holds", "every unit was set to its baseline and the change measured: true for that baseline")


def _sample(canvases: list[Canvas], generator: torch.Generator) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """Return each canvas at the same random units and pixels, (units, channels, pixels), and the sampled rows."""
    first = canvases[0]
    units = _random_subset(first.units, UNITS, generator)
    if isinstance(first, FrameCanvas):
        (frame,) = _random_subset(first.frames, 1, generator)
        pixels = _random_subset(first.pixels, FRAME_PIXELS, generator)
        keys = [first._grid.key_at(unit) for unit in units]
        return [_sample_frame(canvas, frame, keys, pixels) for canvas in canvases], [(frame, frame + 1)]
    runs = chunks(first.pixels, RUN)
    runs = [runs[at] for at in _random_subset(len(runs), RUN, generator)]
    return [torch.cat([canvas._shares(*run, units) for run in runs]).movedim(0, -1) for canvas in canvases], runs


def _random_subset(count: int, most: int, generator: torch.Generator) -> list[int]:
    return torch.randperm(count, generator=generator)[:most].tolist()


def _sample_frame(canvas: Canvas, frame: int, keys: list[Any], pixels: list[int]) -> Tensor:
    """Return (units, channels, pixels), computed one map at a time because frames may be large."""
    return torch.cat([canvas._shares(frame, frame + 1, [key])[0, ..., pixels].detach() for key in keys])


def _frame_gap(
    canvas: FrameCanvas, frame: int, total: Callable[[int, int], Tensor], generator: torch.Generator
) -> float | None:
    """Return the relative gap between a frame's contributions and its output, or None if the rule needs all maps.

    Both are summed with random signs; such a sum of contributions costs one backward pass and needs no maps.
    """
    output = total(frame, frame + 1).reshape(1, canvas.channels, canvas.pixels)
    signs = torch.randint(0, 2, (PROBES, *output.shape), generator=generator).to(output) * 2 - 1
    sums = canvas._sums(frame, frame + 1, signs)
    if sums is None:
        return None
    return _relative_gap(sums.flatten(2).sum(2) - (signs * output).flatten(2).sum(2), output.norm()[None])


def _relative_gap(gap: Tensor, scale: Tensor) -> float:
    return float(gap.abs().max() / scale.abs().max().clamp_min(torch.finfo(scale.dtype).tiny))


def check_finite(batch: Batch, contributions: Tensor, layer: nn.Module) -> None:
    """Raise a ValueError if inputs, weights or contributions contain NaN or infinity."""
    for i, tensor in enumerate(batch.inputs):
        bad = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if bad:
            raise ValueError(f"input {i} holds {bad} NaN or infinite values; replace them before making a canvas.")
    for name, weight in layer.named_parameters():
        if not bool(torch.isfinite(weight.detach()).all()):
            raise ValueError(
                f"the layer's parameter {name!r} holds NaN or infinite values; check whether its training diverged."
            )
    if not bool(torch.isfinite(contributions).all()):
        raise ValueError(
            "the contributions of the first pixel are NaN or infinite, although the inputs are finite; look for NaN or "
            "infinite weights between the layer and the output."
        )


_CACHED_BYTES = 16 << 20  # bytes of maps that fit the CPU cache


class SiteCache:
    """Cache of the last ``max_sites`` :class:`Site` objects; the oldest is freed before a new one is opened."""

    def __init__(self, open_site: Callable[[int, int], Site], max_sites: int) -> None:
        self._open, self._max_sites = open_site, max_sites
        self._sites: OrderedDict[tuple[int, int], Site] = OrderedDict()

    def __call__(self, first: int, last: int) -> Site:
        """Return the site of these frames."""
        site = self._sites.pop((first, last), None)
        if site is None:
            while len(self._sites) >= self._max_sites:
                self._sites.popitem(last=False)
            site = self._open(first, last)
        self._sites[first, last] = site
        return site


@dataclass(frozen=True)
class CanvasSpec:
    """Everything that a lazy canvas is computed from."""

    rule: Rule  # as the user gave it
    tail: Tail  # of a snapshot of the model
    batch: Batch  # all rows
    size: tuple[int, ...]  # of the image whose pixels are the rows, or of each row that is a frame
    pairs: bool  # kernels instead of units
    surroundings: Callable[[], AbstractContextManager[None]]  # returns the context of a query
    layer: str = ""
    memory_budget: int | None = None  # bytes of working memory of each query
    per_eval: int | None = None  # units in one forward pass
    show_progress: bool = False


def build_canvas(spec: CanvasSpec) -> Canvas:
    """Build a canvas or raise a ValueError; call this inside ``spec.surroundings()``. Queries enter it themselves."""
    output_shape = tuple(spec.tail.output(spec.batch.cut(0, 1)).shape[1:])
    frames = are_frames(output_shape, spec.size, spec.batch.rows)
    if not frames:
        _check_pixels(spec.size, tuple(spec.batch.inputs[0].shape), output_shape, spec.pairs)
    chunk_plan = plan_chunks(spec.rule, spec.tail, spec.batch, spec.pairs, spec.memory_budget, spec.per_eval)
    canvas, sample = _frame_canvas(spec, chunk_plan) if frames else _pixel_canvas(spec, chunk_plan)
    check_finite(spec.batch, sample, spec.tail.layer)
    return replace(canvas, rule=repr(spec.rule)[:200], layer=spec.layer, _assess=_make_assessor(spec, chunk_plan.rule))


def _pixel_canvas(spec: CanvasSpec, chunk_plan: ChunkPlan) -> tuple[Canvas, Tensor]:
    """Return a lazy canvas of an image whose pixels are the rows, and the contributions to its first pixel."""
    rule, tail, batch = chunk_plan.rule, spec.tail, spec.batch
    first = rule.neurons(tail, batch.cut(0, 1), None, chunk_plan.max_units)

    def contributions(start: int, stop: int, selector: Selector) -> Tensor:
        with torch.enable_grad():
            chunk = plain(rule.neurons(tail, batch.cut(start, stop), selector, chunk_plan.max_units))
        return chunk.reshape(*chunk.shape[:2], -1)

    canvas = Canvas(
        size=spec.size,
        units=first.shape[1] - rule.remainders,
        channels=first[0, 0].numel(),
        slots=rule.remainders,
        _shares=contributions,
        _rows_at_once=chunk_plan.max_rows,
        _surroundings=spec.surroundings,
        _show_progress=spec.show_progress,
    )
    return canvas, first


def _frame_canvas(spec: CanvasSpec, chunk_plan: ChunkPlan) -> tuple[FrameCanvas, Tensor]:
    """Return a lazy canvas of frames, and the contributions of one unit to the first frame."""
    rule, tail, batch, size, pairs = chunk_plan.rule, spec.tail, spec.batch, spec.size, spec.pairs
    footprint, budget = chunk_plan.footprint, spec.memory_budget
    shape = kernels_of(tail).shape if pairs else None
    max_maps = footprint.max_rows(1, budget)  # maps of one frame that are computed together
    if isinstance(rule, Xinc):  # expanded from the stored input, without the network
        max_maps = max(max_maps, _CACHED_BYTES // (footprint.output[0].numel() * footprint.output.element_size()))
    max_frames = min(batch.rows, max(1, math.isqrt(max_maps)))

    def open_site(first: int, last: int) -> Site:
        return rule.site(tail, batch.cut(first, last), pairs, max(1, max_maps // (last - first)))

    sites = SiteCache(open_site, max_sites=max(1, max_maps // (4 * max_frames)))

    def contributions(first: int, last: int, keys: list[Any]) -> Tensor:
        with torch.enable_grad():
            maps = sites(first, last).maps(keys).detach()
        return maps.reshape(*maps.shape[:2], -1, math.prod(size))

    def sum_maps(first: int, last: int, weights: Tensor) -> Tensor | None:
        with torch.enable_grad():
            return sites(first, last).sums(weights)

    sample = contributions(0, 1, [(0, 0) if pairs else 0])
    canvas = FrameCanvas(
        size=size,
        units=footprint.activation.shape[1] if shape is None else math.prod(shape),
        channels=sample.shape[2],
        slots=rule.remainders,
        frames=batch.rows,
        pairs=shape,
        _shares=contributions,
        _sums=sum_maps,
        _rows_at_once=max_frames,
        _maps_at_once=max(1, max_maps // max_frames),
        _surroundings=spec.surroundings,
        _show_progress=spec.show_progress,
    )
    return canvas, sample


def _make_assessor(spec: CanvasSpec, rule: Rule) -> Callable[[Canvas], CanvasTrust]:
    """Return the function that computes a canvas's trust."""
    tail, batch = spec.tail, spec.batch
    if isinstance(rule, Ablation):
        return partial(assess_ablation, output=lambda first, last: plain(tail.output(batch.cut(first, last))))
    if shares_statistics(tail.forward_func, tail.layer):
        reason = "a batch norm in training mode lets rows change one another; call model.eval()"
        return lambda _canvas: CanvasTrust("weak", reason)
    total = (lambda first, last: plain(rule.total(tail, batch.cut(first, last)))) if rule.remainders else None
    separate_tail = replace(tail, shared_pass=None)  # do not replace the pass shared with other layers
    ablation_spec = replace(spec, rule=Ablation(), tail=separate_tail, show_progress=False)
    return partial(assess, make_ablation=lambda: build_canvas(ablation_spec), total=total)


def _check_pixels(
    size: tuple[int, ...], input_shape: tuple[int, ...], output_shape: tuple[int, ...], pairs: bool
) -> None:
    """Raise if rows that are not frames do not match the pixels of one image."""
    if pairs:
        raise ValueError(
            f'unit="pair" needs rows that are frames, but each row of the output has shape {output_shape}, which does '
            f'not end in size={size}. Use attribute() for pairs, or NeuronCanvas(..., unit="neuron").'
        )
    rows = input_shape[0]
    if math.prod(size) != rows:
        if input_shape[1:2] == (math.prod(size),):
            raise ValueError(
                f"size={size} has {math.prod(size)} pixels, and inputs of shape {input_shape} are {rows} samples of as "
                "many points. A sample is split into points if there is one, each input is (1, points, dims), and the "
                "model returns (1, points, ...) for any number of points. Give other inputs inside a function: "
                "lambda coords: model(coords, code)."
            )
        if len(output_shape) > len(size):
            raise ValueError(
                f"size={size}, but each row of the output has shape {output_shape}, which ends in "
                f"{output_shape[-len(size) :]}; if the rows are frames, use that size."
            )
        raise ValueError(
            f"size={size} has {math.prod(size)} pixels, but the inputs have {rows} rows; use the size of the image "
            "whose pixels the rows are, in row-major order (see xinc_captum.inr.coordinates). If the rows are frames, "
            f"use the last dimensions of a row of the output, which has shape {output_shape}."
        )
