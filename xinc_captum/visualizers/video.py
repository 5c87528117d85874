"""Figures of videos: canvases over time, reconstructed frames, optical flow, and units that follow objects."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .layout import (
    FrameColumns,
    Sheet,
    array,
    bar_axes,
    bare,
    check_axes,
    draw_heat,
    draw_photo,
    draw_signed,
    even_indices,
    limit_of,
)
from .style import BLUE, CONTROL, IMAGE_GAP, INK, MARGIN, PAGE, QUIET, SIGNED, WIDE_PAGE

FILM_LABEL, RECONSTRUCTION_LABEL = 1.5, 1.35  # inches left of the frames
CURVE = 0.95  # inches of the curve


class FilmRow(NamedTuple):
    """The canvases of one unit over time.

    Attributes:
        layer: heading of the rows of this layer.
        note: why the unit was selected.
        maps: (frames, H, W), signed change of brightness.
    """

    layer: str
    unit: str
    note: str
    maps: Tensor


def unit_film(frames: Tensor, rows: Sequence[FilmRow], *, columns: int = 8) -> Figure:
    """Draw frames, and below them the canvases of units, each unit on one scale for all frames.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        rows: units in display order, those of a layer together.
        columns: number of frames, at most; of more, evenly spaced ones.

    Example:
        >>> row = FilmRow("blocks.0", "unit 3", "strongest", torch.randn(4, 8, 12))
        >>> unit_film(torch.rand(4, 3, 8, 12), [row]).savefig("film.png")  # doctest: +SKIP
    """
    if not rows:
        raise ValueError("rows is empty; expected the canvases of at least one unit.")
    for row in rows:
        check_axes(frames=(frames, "frames, C, H, W"), **{f"maps of {row.unit}": (row.maps, "frames, H, W")})
    sheet = Sheet(WIDE_PAGE)
    grid = FrameColumns(sheet, frames, columns, FILM_LABEL)
    how = "red: the unit brightens the pixel; blue: it darkens it; each row has one scale for all frames"
    top = grid.header(sheet.heading("Contributions of single units, frame by frame", how))
    sheet.paragraph(MARGIN, top, "the video", FILM_LABEL - 0.1, bold=True)
    for axes, t in grid.row(top):
        draw_photo(axes, frames[t])
    top += grid.height + 0.12
    for layer, group in groupby(rows, key=lambda row: row.layer):
        top = sheet.line(MARGIN, top, layer, size=10, bold=True) + 0.04
        for row in group:
            below = sheet.paragraph(MARGIN, top, row.unit, FILM_LABEL - 0.1)
            sheet.paragraph(MARGIN, below, row.note, FILM_LABEL - 0.15, size=8, colour=QUIET)
            limit = limit_of(row.maps)
            for axes, t in grid.row(top):
                draw_signed(axes, row.maps[t], limit)
            top += grid.height + 0.06
        top += 0.08
    sheet.colour_scale(grid.x, top, ("darkens", "nothing", "brightens"))
    return sheet.finish(top + 0.36)


def frame_reconstructions(
    frames: Tensor, reconstructions: Tensor, decibels: Sequence[float], *, columns: int = 8
) -> Figure:
    """Draw rows of frames, reconstructed frames and their difference; below, the PSNR of every frame.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        reconstructions: (frames, C, H, W), the network's output.
        decibels: PSNR of each frame.
        columns: number of frames, at most; of more, evenly spaced ones.

    Example:
        >>> clip = torch.rand(3, 3, 8, 12)
        >>> frame_reconstructions(clip, clip * 0.9, [20.0, 21.0, 19.5]).savefig("drawn.png")  # doctest: +SKIP
    """
    shape = "frames, C, H, W"
    check_axes(frames=(frames, shape), reconstructions=(reconstructions, shape), decibels=(decibels, "frames"))
    sheet = Sheet(WIDE_PAGE)
    grid = FrameColumns(sheet, frames, columns, RECONSTRUCTION_LABEL)
    missing = (frames - reconstructions).mean(1)
    limit = limit_of(missing[grid.indices])
    how = "the explanations are of the network's output, which should look like the frames"
    top = grid.header(sheet.heading("How well the network reproduces the video", how))
    for row, name in enumerate(("the video", "the output", "the difference")):
        below = sheet.paragraph(MARGIN, top, name, RECONSTRUCTION_LABEL - 0.1, bold=True)
        if row == 2:
            text = f"red: output too dark, blue: too bright; full colour at {100 * limit:.1f} % of white"
            sheet.paragraph(MARGIN, below, text, RECONSTRUCTION_LABEL - 0.15, size=7.5, colour=QUIET)
        for axes, t in grid.row(top):
            if row == 2:
                draw_signed(axes, missing[t], limit)
            else:
                draw_photo(axes, (frames, reconstructions)[row][t])
        top += grid.height + 0.06
    return sheet.finish(_draw_decibels(grid, top + 0.14, torch.tensor(list(decibels))) + 0.1)


def _draw_decibels(grid: FrameColumns, top: float, decibels: Tensor) -> float:
    sheet = grid.sheet
    below = sheet.paragraph(MARGIN, top, "PSNR in dB", grid.label - 0.1, bold=True)
    text = f"every frame; mean {float(decibels.mean()):.1f}, worst {float(decibels.min()):.1f}"
    sheet.paragraph(MARGIN, below, text, grid.label - 0.45, size=7.5, colour=QUIET)
    width = sheet.width - 2 * MARGIN - grid.label
    axes = sheet.axes(grid.x, top, width - 0.04, CURVE)
    axes.plot(range(len(decibels)), array(decibels), "o-", color=BLUE, markersize=3, linewidth=1.2)
    low, high = float(decibels.min()), float(decibels.max())
    axes.set_ylim(low - 1 - 0.1 * (high - low), high + 1 + 0.1 * (high - low))
    axes.set_xlim(-0.5, len(decibels) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7.5, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    sheet.line(MARGIN + grid.label + width / 2, top + CURVE + 0.2, "frame", size=8, colour=QUIET, align="center")
    return top + CURVE + 0.36


FLOW_CELL = 1.62  # inches of an image
FLOW_LABEL = 1.55  # inches left of the bars
MATRIX = 1.9  # inches


def flow_beside_change(
    frames: Tensor,
    speed: Tensor,
    change: Tensor,
    table: Tensor,
    *,
    controls: Mapping[str, float],
    layer: str = "layer",
    rows: int = 4,
) -> Figure:
    """Draw rows of frame, speed and contribution change; at the right, their correlations over frames, and controls.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        speed: (frames - 1, H, W), of the optical flow, in pixels per frame.
        change: (frames - 1, H, W), change of the layer's contributions.
        table: (pairs, pairs), rank correlations of change t (rows) with speed s (columns).
        controls: by name, scores to compare with the diagonal; nan where there is nothing to correlate.
        layer: name of the layer, for the heading.
        rows: number of pairs of frames, at most; of more, evenly spaced ones.

    Example:
        >>> pairs = torch.rand(2, 8, 12)
        >>> figure = flow_beside_change(torch.rand(3, 3, 8, 12), pairs, pairs, torch.eye(2), controls={"still": 0.0})
    """
    pairs = len(frames) - 1
    check_axes(
        {"frames - 1": pairs}, frames=(frames, "frames, C, H, W"), speed=(speed, "frames - 1, H, W"),
        change=(change, "frames - 1, H, W"), table=(table, "frames - 1, frames - 1"),
    )  # fmt: skip
    indices = even_indices(pairs, rows)
    height = FLOW_CELL * frames.shape[-2] / frames.shape[-1]
    sheet = Sheet()
    top = sheet.heading(
        f"Where the video moves, and where the contributions of {layer} change",
        "left: speed of the optical flow and change of the contributions, bright: large; right: rank correlations of "
        "the two over pixels",
    )
    lefts = [MARGIN + 0.62 + i * (FLOW_CELL + IMAGE_GAP) for i in range(3)]
    for x, title in zip(lefts, ("frame", "speed", "change of contributions"), strict=True):
        sheet.line(x + FLOW_CELL / 2, top, title, size=9, align="center")
    first = top + 0.2
    for row, t in enumerate(indices):
        line = first + row * (height + IMAGE_GAP)
        sheet.line(MARGIN, line + height / 2 - 0.08, f"{t} → {t + 1}", size=8.5, colour=QUIET)
        cells = [sheet.axes(x, line, FLOW_CELL, height) for x in lefts]
        draw_photo(cells[0], frames[t])
        draw_heat(cells[1], frames[t], speed[t])
        draw_heat(cells[2], frames[t], change[t])
    bottom = _draw_matrix(sheet, lefts[-1] + FLOW_CELL + 0.75, first, table)
    bottom = _draw_bars(sheet, lefts[-1] + FLOW_CELL + 0.3, bottom + 0.3, table, controls)
    return sheet.finish(max(bottom, first + len(indices) * (height + IMAGE_GAP)) + 0.1)


def _draw_matrix(sheet: Sheet, x: float, top: float, table: Tensor) -> float:
    limit = float(table.nan_to_num().abs().max()) or 1.0
    draw_signed(sheet.axes(x, top, MATRIX, MATRIX), table, limit)
    sheet.line(x + MATRIX / 2, top - 0.2, "correlation of change and speed", size=9, align="center")
    sheet.line(x + MATRIX / 2, top + MATRIX + 0.03, "speed at frame →", size=8, colour=QUIET, align="center")
    sheet.paragraph(x - 0.55, top + MATRIX / 2 - 0.2, "change at frame ↓", 0.5, size=8, colour=QUIET)
    scale = sheet.axes(x + MATRIX + 0.08, top, 0.1, MATRIX)
    scale.imshow(array(torch.linspace(1, -1, 101))[:, None], cmap=SIGNED, aspect="auto")
    bare(scale)
    for position, value in ((0.0, limit), (0.5, 0.0), (1.0, -limit)):
        text = f"{value:+.2f}" if value else "0"
        sheet.line(x + MATRIX + 0.22, top + position * (MATRIX - 0.12), text, size=7.5)
    return top + MATRIX + 0.2


def _draw_bars(sheet: Sheet, x: float, top: float, table: Tensor, controls: Mapping[str, float]) -> float:
    diagonal = torch.eye(len(table), dtype=torch.bool, device=table.device)
    rows = {
        "same frames": float(table.diagonal().nanmean()),
        "other frames (control)": float(table.masked_fill(diagonal, torch.nan).nanmean()),
        **controls,
    }
    width = PAGE - MARGIN - x - FLOW_LABEL - 0.1
    known = [value for value in rows.values() if not math.isnan(value)]
    high = max(map(abs, known), default=1.0) * 1.5
    low = min([0.0, *known])
    axes = sheet.axes(x + FLOW_LABEL, top, width, 0.24 * len(rows))
    bar_axes(axes, len(rows), 1.6 * low, high)
    for i, (name, value) in enumerate(rows.items()):
        text, end = ("no motion", 0.0) if math.isnan(value) else (f"{value:+.2f}", value)
        axes.barh(i, end, height=0.62, color=CONTROL if i else BLUE)
        axes.text(max(end, 0.0) + 0.03 * high, i, text, fontsize=8, va="center", color=INK)
        line, colour = top + 0.24 * i + 0.04, QUIET if i else INK
        sheet.line(x + FLOW_LABEL - 0.06, line, name, size=8, colour=colour, align="right")
    return top + 0.24 * len(rows)


TRACK_LABEL, TRACK_NUMBER = 1.75, 0.75  # inches left and right of the frames
TRACK_ROW = 0.17  # inches of a unit
OUTLINES = ("#ffd400", "#00e5ff", "#ff5cd6", "#7dff5c")


def object_time(
    frames: Tensor,
    masks: Tensor,
    matched: Tensor,
    shuffled: Tensor,
    magnitudes: Tensor,
    *,
    names: Sequence[str],
    elsewhere: Tensor | None = None,
    layer: str = "layer",
    units: int = 8,
    columns: int = 12,
) -> Figure:
    """Draw which units follow objects: frames on top; for each object, the units that follow it most.

    For each object, from top to bottom: the contributions of these units together, with the outline of the object;
    the preference of each unit for the object (red: more than the object's area accounts for); and as control the same
    with the object's masks of all other times. A unit that follows the object is redder above than below. The numbers
    at the right are the difference, mean over frames.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        masks: (frames, objects, H, W).
        matched: (frames, objects, units), of ``object_track``.
        shuffled: (frames, objects, units), the control of ``matched``, with masks of other times.
        magnitudes: (frames, units, H, W), >= 0.
        names: one per object.
        elsewhere: (repeats, objects, units), of ``control_tracks``: the scores on the object's path, shifted in the
            frame. Because units are selected by their score, the highest shifted score is written below as control.
        layer: name of the layer, for the heading.
        units: number of units per object, at most.
        columns: number of frames, at most; of more, evenly spaced ones.

    Example:
        >>> frames, masks, magnitudes = torch.rand(3, 3, 8, 12), torch.ones(3, 1, 8, 12), torch.rand(3, 5, 8, 12)
        >>> matched = torch.rand(3, 1, 5)
        >>> figure = object_time(frames, masks, matched, 0 * matched, magnitudes, names=["ball"])
    """
    objects = len(names)
    check_axes(
        {"names": objects}, frames=(frames, "frames, C, H, W"), masks=(masks, "frames, names, H, W"),
        magnitudes=(magnitudes, "frames, units, H, W"), matched=(matched, "frames, names, units"),
        shuffled=(shuffled, "frames, names, units"), elsewhere=(elsewhere, "repeats, names, units"),
    )  # fmt: skip
    carried = (matched - shuffled).nanmean(0).nan_to_num(-torch.inf)
    best = carried.argsort(dim=1, descending=True, stable=True)[:, :units]
    limit = _preference_limit([matched[:, o, best[o]] for o in range(objects)])
    sheet = Sheet(WIDE_PAGE)
    grid = FrameColumns(sheet, frames, columns, TRACK_LABEL, TRACK_NUMBER)
    top = sheet.heading(
        f"Units of {layer} that follow {', '.join(names[:-1])}{' and ' if objects > 1 else ''}{names[-1]}",
        "red: the unit contributes more on the object than the object's share of the area; blue: less. A unit that "
        "follows the object is redder than in the control, which uses the object's masks of all other times",
    )
    sheet.line(MARGIN + TRACK_LABEL - 0.1, top, "frame", size=8, colour=QUIET, align="right")
    top = grid.header(top, "")
    _label(sheet, top, "the video", "")
    for axes, t in grid.row(top):
        draw_photo(axes, frames[t])
        for o in range(objects):
            _outline(axes, masks[t, o], OUTLINES[o % len(OUTLINES)])
    top += grid.height + 0.16
    for o, name in enumerate(names):
        followers = best[o].tolist()
        _label(sheet, top, name, f"{len(followers)} units that follow it most, together")
        together = magnitudes[:, followers].sum(1)
        for axes, t in grid.row(top):
            draw_heat(axes, frames[t], together[t] * together.mean() / together[t].mean().clamp_min(1e-30))
            _outline(axes, masks[t, o], OUTLINES[o % len(OUTLINES)])
        top += grid.height + 0.06
        for table, text in ((matched, "with its own masks"), (shuffled, "control: with masks of other times")):
            preference = 1 + table[grid.indices][:, o, followers].T.double()
            values = preference.clamp(2.0**-limit, 2.0**limit).log2()  # 1: twice the area's share, -1: half of it
            height = TRACK_ROW * len(followers)
            draw_signed(sheet.axes(grid.x, top, grid.width, height), values, limit, aspect="auto")
            sheet.paragraph(MARGIN, top + 0.02, text, TRACK_LABEL - 0.75, size=8, colour=QUIET)
            for row, unit in enumerate(followers):
                line = top + row * TRACK_ROW + 0.02
                sheet.line(MARGIN + TRACK_LABEL - 0.05, line, f"unit {unit}", size=7.5, align="right")
                if table is matched:
                    score = f"{float(carried[o, unit]):+.2f}"
                    sheet.line(WIDE_PAGE - MARGIN - TRACK_NUMBER + 0.08, line, score, size=7.5)
            top += height + 0.08
        if elsewhere is not None:
            control = (
                elsewhere[:, o].nan_to_num(-torch.inf).amax(1).double()
            )  # the best unit on the same path elsewhere
            text = (
                f"highest score: {float(carried[o].max()):+.2f}; control, highest score of the {len(carried[o])} units "
            )
            text += (
                f"on the same path elsewhere: {float(control.median()):+.2f} (at most {float(control.max()):+.2f} at "
            )
            top = sheet.line(grid.x, top, f"{text}{len(control)} positions)", size=8.5)
        top += 0.16
    sheet.colour_scale(grid.x, top + 0.02, (f"1/{2**limit} or less", "as its area", f"{2**limit} times"))
    text = "numbers at the right: difference between own masks and masks of other times, mean over frames"
    sheet.line(WIDE_PAGE - MARGIN, top + 0.02, text, size=7.5, colour=QUIET, align="right")
    return sheet.finish(top + 0.36)


def _label(sheet: Sheet, top: float, name: str, note: str) -> None:
    below = sheet.paragraph(MARGIN, top, name, TRACK_LABEL - 0.1, size=9.5, bold=True)
    sheet.paragraph(MARGIN, below, note, TRACK_LABEL - 0.1, size=8, colour=QUIET)


def _outline(axes: Axes, mask: Tensor, colour: str) -> None:
    inside = array(mask)
    if inside.min() < 0.5 <= inside.max():
        axes.contour(inside, levels=[0.5], colors=["black"], linewidths=2.0)
        axes.contour(inside, levels=[0.5], colors=[colour], linewidths=1.1)


def _preference_limit(tables: Sequence[Tensor]) -> int:
    values = torch.cat([t.flatten() for t in tables])
    values = (1 + values[values.isfinite()].double()).clamp_min(1).log2()
    return min(max(math.ceil(float(values.quantile(0.97))) if len(values) else 1, 1), 5)
