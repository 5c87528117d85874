"""Collect the evidence for a canvas's ``.trust``: a few units at a few places, beside what is missing without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..batch import chunks
from ..metrics.canvas_trust import CanvasTrust, ablation_agreement, judged_canvas
from .frame_canvas import FrameCanvas

if TYPE_CHECKING:
    from .canvas import Canvas

UNITS, RUN, FRAME_PIXELS, PROBES = 16, 8, 1024, 4


def assess(canvas: Canvas, removed: Callable[[], Canvas], whole: Callable[[int, int], Tensor] | None) -> CanvasTrust:
    """Judge a canvas by a sample, the same each time.

    Args:
        canvas: any.
        removed: makes the same canvas under ablation at zero.
        whole: from first and last row to the output that a row's parts should add up to; None where they need not.
    """
    g = torch.Generator().manual_seed(0)
    units = _some(canvas.units, UNITS, g)
    truth = removed()
    if isinstance(canvas, FrameCanvas) and isinstance(truth, FrameCanvas):
        frame, places = _some(canvas.frames, 1, g)[0], _some(canvas.pixels, FRAME_PIXELS, g)
        keys = [canvas._grid.named(unit) for unit in units]
        sides = [_at_frame(side, frame, keys, places) for side in (canvas, truth)]
        gap = None if whole is None else _gap_of_frame(canvas, frame, whole, g)
    else:
        runs = chunks(canvas.pixels, RUN)
        runs = [runs[at] for at in _some(len(runs), RUN, g)]
        sides = [torch.cat([side._shares(*run, units) for run in runs]).movedim(0, -1) for side in (canvas, truth)]
        gap = None if whole is None else _gap_of_rows(canvas, runs, whole)
    return judged_canvas(agreement=ablation_agreement(*sides), gap=gap)


def _some(count: int, most: int, generator: torch.Generator) -> list[int]:
    chosen: list[int] = torch.randperm(count, generator=generator)[:most].tolist()
    return chosen


def _at_frame(canvas: FrameCanvas, frame: int, keys: list[Any], places: list[int]) -> Tensor:
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
