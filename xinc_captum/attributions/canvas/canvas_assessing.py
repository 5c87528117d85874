"""Collect the evidence for a canvas's ``.trust``: a few units at a few places, beside what is missing without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...batch import chunks
from ...metrics.canvas_trust import CanvasTrust, ablation_agreement, judged_canvas
from .frame_canvas import FrameCanvas

if TYPE_CHECKING:
    from .canvas import Canvas

UNITS, RUN, FRAME_PIXELS, PROBES = 16, 8, 1024, 4
ROUNDING = 16  # steps of the output's dtype: a difference of two outputs is not known more closely


def assess(canvas: Canvas, removed: Callable[[], Canvas], whole: Callable[[int, int], Tensor] | None) -> CanvasTrust:
    """Judge a canvas by a sample, the same each time.

    Args:
        canvas: any.
        removed: makes the same canvas under ablation at zero.
        whole: from first and last row to the output that a row's parts should add up to; None where they need not.
    """
    g = torch.Generator().manual_seed(0)
    units = _some(canvas.units, UNITS, g)
    sides, place = _sampled([canvas, removed()], units, g)
    gap = None
    if whole is not None and isinstance(canvas, FrameCanvas):
        gap = _gap_of_frame(canvas, place[0][0], whole, g)
    elif whole is not None:
        gap = _gap_of_rows(canvas, place, whole)
    return judged_canvas(agreement=ablation_agreement(*sides), gap=gap)


def assess_ablation(canvas: Canvas, output: Callable[[int, int], Tensor]) -> CanvasTrust:
    """Judge a canvas of ablations, which are right by definition, by whether a sample of it shows anything.

    Args:
        canvas: any.
        output: from first and last row to the output, whose rounding no contribution below it can be told from.
    """
    g = torch.Generator().manual_seed(0)
    (sample,), rows = _sampled([canvas], _some(canvas.units, UNITS, g), g)
    scale = torch.stack([output(*run).abs().max() for run in rows]).max()
    if not bool(sample.abs().max() > ROUNDING * torch.finfo(scale.dtype).eps * scale):
        return CanvasTrust(
            "weak",
            "every contribution that was sampled is zero within rounding: the units are at their baseline already, or "
            "lead nowhere",
        )
    return CanvasTrust("holds", "every unit was set to its baseline and the change measured: true for that baseline")


def _sampled(
    canvases: list[Canvas], units: list[int], generator: torch.Generator
) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """The same units and places of each canvas, (units, channels, places), and the rows that they are of."""
    first = canvases[0]
    if isinstance(first, FrameCanvas):
        frame, places = _some(first.frames, 1, generator)[0], _some(first.pixels, FRAME_PIXELS, generator)
        keys = [first._grid.named(unit) for unit in units]
        return [_at_frame(side, frame, keys, places) for side in canvases], [(frame, frame + 1)]
    runs = chunks(first.pixels, RUN)
    runs = [runs[at] for at in _some(len(runs), RUN, generator)]
    return [torch.cat([side._shares(*run, units) for run in runs]).movedim(0, -1) for side in canvases], runs


def _some(count: int, most: int, generator: torch.Generator) -> list[int]:
    chosen: list[int] = torch.randperm(count, generator=generator)[:most].tolist()
    return chosen


def _at_frame(canvas: Canvas, frame: int, keys: list[Any], places: list[int]) -> Tensor:
    """(units, channels, places); one map at a time, since frames may be large."""
    return torch.cat([canvas._shares(frame, frame + 1, [key])[0, ..., places].detach() for key in keys])


def _gap_of_rows(canvas: Canvas, runs: list[tuple[int, int]], whole: Callable[[int, int], Tensor]) -> float:
    sums = torch.cat([canvas._shares(*run, None).sum(1) for run in runs])
    output = torch.cat([whole(*run) for run in runs]).reshape(sums.shape)
    return _relative(sums - output, output)


def _gap_of_frame(
    canvas: FrameCanvas, frame: int, whole: Callable[[int, int], Tensor], generator: torch.Generator
) -> float | None:
    """Random signs for every pixel: their weighted sum over all units comes from one backward pass, without maps."""
    output = whole(frame, frame + 1).reshape(1, canvas.channels, canvas.pixels)
    signs = torch.randint(0, 2, (PROBES, *output.shape), generator=generator).to(output) * 2 - 1
    sums = canvas._sums(frame, frame + 1, signs)
    if sums is None:
        return None
    return _relative(sums.flatten(2).sum(2) - (signs * output).flatten(2).sum(2), output.norm()[None])


def _relative(gap: Tensor, scale: Tensor) -> float:
    return float(gap.abs().max() / scale.abs().max().clamp_min(torch.finfo(scale.dtype).tiny))
