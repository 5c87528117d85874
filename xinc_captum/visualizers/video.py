"""Figures of videos: optical flow and contribution change, and units that follow objects."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import IMAGE_GAP, MARGIN, PAGE, WIDE_PAGE, FrameColumns, Sheet, even_indices
from .style import BLUE, CONTROL, INK, QUIET, SIGNED, array, bare, draw_heat, draw_photo

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

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> pairs = torch.rand(2, 8, 12)
        >>> figure = flow_beside_change(torch.rand(3, 3, 8, 12), pairs, pairs, torch.eye(2), controls={"still": 0.0})
        >>> figure.savefig("flow.png")  # doctest: +SKIP
    """
    pairs = len(frames) - 1
    shape = (pairs, *frames.shape[2:])
    if tuple(speed.shape) != shape or tuple(change.shape) != shape or tuple(table.shape) != (pairs, pairs):
        raise ValueError(
            f"speed has shape {tuple(speed.shape)}, change {tuple(change.shape)} and table {tuple(table.shape)}; "
            f"expected {shape} twice and {(pairs, pairs)} for {len(frames)} frames."
        )
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
        for x, values in zip(lefts, (None, speed[t], change[t]), strict=True):
            axes = sheet.axes(x, line, FLOW_CELL, height)
            bare(axes)
            if values is None:
                draw_photo(axes, frames[t])
            else:
                draw_heat(axes, frames[t], values)
    bottom = _draw_matrix(sheet, lefts[-1] + FLOW_CELL + 0.75, first, table)
    bottom = _draw_bars(sheet, lefts[-1] + FLOW_CELL + 0.3, bottom + 0.3, table, controls)
    return sheet.finish(max(bottom, first + len(indices) * (height + IMAGE_GAP)) + 0.1)


def _draw_matrix(sheet: Sheet, x: float, top: float, table: Tensor) -> float:
    limit = float(table.nan_to_num().abs().max()) or 1.0
    axes = sheet.axes(x, top, MATRIX, MATRIX)
    axes.imshow(array(table), cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
    bare(axes)
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
    high = max([abs(v) for v in rows.values() if v == v] or [1.0]) * 1.5
    low = min([0.0, *[v for v in rows.values() if v == v]])
    axes = sheet.axes(x + FLOW_LABEL, top, width, 0.24 * len(rows))
    for i, value in enumerate(rows.values()):
        axes.barh(i, 0 if value != value else value, height=0.62, color=CONTROL if i else BLUE)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlim(1.6 * low, high)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    bare(axes)
    for i, (name, value) in enumerate(rows.items()):
        text = "no motion" if value != value else f"{value:+.2f}"
        end = max(0.0 if value != value else value, 0.0)
        axes.text(end + 0.03 * high, i, text, fontsize=8, va="center", color=INK)
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
        shuffled: (frames, objects, units), its control.
        magnitudes: (frames, units, H, W), >= 0.
        names: one per object.
        elsewhere: (repeats, objects, units), of ``control_tracks``: the same scores along the same path elsewhere.
            Because rows are selected by their score, the best score elsewhere is written below as control.
        layer: name of the layer, for the heading.
        units: number of units per object, at most.
        columns: number of frames, at most; of more, evenly spaced ones.

    Raises:
        ValueError: shapes that do not match, or another number of names.

    Example:
        >>> frames, masks, magnitudes = torch.rand(3, 3, 8, 12), torch.ones(3, 1, 8, 12), torch.rand(3, 5, 8, 12)
        >>> matched = torch.rand(3, 1, 5)
        >>> figure = object_time(frames, masks, matched, 0 * matched, magnitudes, names=["ball"])
        >>> figure.savefig("track.png")  # doctest: +SKIP
    """
    _check_tracks(frames, masks, matched, shuffled, magnitudes, names, elsewhere)
    carried = (matched - shuffled).nanmean(0).nan_to_num(-torch.inf)
    best = carried.argsort(dim=1, descending=True, stable=True)[:, :units]
    limit = _preference_limit([matched[:, o, best[o]] for o in range(len(names))])
    sheet = Sheet(WIDE_PAGE)
    grid = FrameColumns(sheet, frames, columns, TRACK_LABEL, TRACK_NUMBER)
    top = sheet.heading(
        f"Units of {layer} that follow {_enumerate(names)}",
        "red: the unit contributes more on the object than the object's share of the area; blue: less. A unit that "
        "follows the object is redder than in the control, which uses the object's masks of all other times",
    )
    sheet.line(MARGIN + TRACK_LABEL - 0.1, top, "frame", size=8, colour=QUIET, align="right")
    top = grid.header(top, "")
    _label(sheet, top, "the video", "")
    for axes, t in zip(grid.row(top), grid.indices, strict=True):
        draw_photo(axes, frames[t])
        for o in range(len(names)):
            _outline(axes, masks[t, o], OUTLINES[o % len(OUTLINES)])
    top += grid.height + 0.16
    for o, name in enumerate(names):
        followers = best[o].tolist()
        _label(sheet, top, name, f"{len(followers)} units that follow it most, together")
        together = magnitudes[:, followers].sum(1)
        for axes, t in zip(grid.row(top), grid.indices, strict=True):
            draw_heat(axes, frames[t], together[t] * together.mean() / together[t].mean().clamp_min(1e-30))
            _outline(axes, masks[t, o], OUTLINES[o % len(OUTLINES)])
        top += grid.height + 0.06
        for table, text in ((matched, "with its own masks"), (shuffled, "control: with masks of other times")):
            values = _log_preference(table[grid.indices][:, o, followers].T, limit)
            height = TRACK_ROW * len(followers)
            axes = sheet.axes(grid.x, top, grid.width, height)
            axes.imshow(array(values), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
            bare(axes)
            sheet.paragraph(MARGIN, top + 0.02, text, TRACK_LABEL - 0.75, size=8, colour=QUIET)
            for row, unit in enumerate(followers):
                line = top + row * TRACK_ROW + 0.02
                sheet.line(MARGIN + TRACK_LABEL - 0.05, line, f"unit {unit}", size=7.5, align="right")
                if table is matched:
                    score = f"{float(carried[o, unit]):+.2f}"
                    sheet.line(WIDE_PAGE - MARGIN - TRACK_NUMBER + 0.08, line, score, size=7.5)
            top += height + 0.08
        if elsewhere is not None:
            top = sheet.line(grid.x, top, _control_text(carried[o], elsewhere[:, o]), size=8.5)
        top += 0.16
    sheet.colour_scale(grid.x, top + 0.02, (f"1/{2**limit} or less", "as its area", f"{2**limit} times"))
    text = "numbers at the right: difference between own masks and masks of other times, mean over frames"
    sheet.line(WIDE_PAGE - MARGIN, top + 0.02, text, size=7.5, colour=QUIET, align="right")
    return sheet.finish(top + 0.36)


def _label(sheet: Sheet, top: float, name: str, note: str) -> None:
    below = sheet.paragraph(MARGIN, top, name, TRACK_LABEL - 0.1, size=9.5, bold=True)
    sheet.paragraph(MARGIN, below, note, TRACK_LABEL - 0.1, size=8, colour=QUIET)


def _control_text(carried: Tensor, elsewhere: Tensor) -> str:
    """Compare the best unit with the best units along the same path elsewhere."""
    best = elsewhere.nan_to_num(-torch.inf).amax(1).double()
    return (
        f"highest score: {float(carried.max()):+.2f}; control, highest score of the {len(carried)} units on the same "
        f"path elsewhere: {float(best.median()):+.2f} (at most {float(best.max()):+.2f} at {len(best)} positions)"
    )


def _outline(axes: Axes, mask: Tensor, colour: str) -> None:
    inside = array(mask)
    if inside.min() < 0.5 <= inside.max():
        axes.contour(inside, levels=[0.5], colors=["black"], linewidths=2.0)
        axes.contour(inside, levels=[0.5], colors=[colour], linewidths=1.1)


def _log_preference(preference: Tensor, limit: int) -> Tensor:
    """Return log2(1 + δ), clamped: 1 is twice the area's share, -1 half of it."""
    return (1 + preference.double()).clamp(2.0**-limit, 2.0**limit).log2()


def _preference_limit(tables: Sequence[Tensor]) -> int:
    values = torch.cat([t.flatten() for t in tables])
    values = (1 + values[values.isfinite()].double()).clamp_min(1).log2()
    return min(max(math.ceil(float(values.quantile(0.97))) if len(values) else 1, 1), 5)


def _enumerate(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _check_tracks(
    frames: Tensor,
    masks: Tensor,
    matched: Tensor,
    shuffled: Tensor,
    magnitudes: Tensor,
    names: Sequence[str],
    elsewhere: Tensor | None,
) -> None:
    count, size, units = len(frames), tuple(frames.shape[2:]), magnitudes.shape[1]
    shapes = {
        "masks": (masks, (count, len(names), *size)),
        "matched": (matched, (count, len(names), units)),
        "shuffled": (shuffled, (count, len(names), units)),
        "magnitudes": (magnitudes, (count, units, *size)),
    }
    if elsewhere is not None:
        shapes["elsewhere"] = (elsewhere, (len(elsewhere), len(names), units))
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} have shape {tuple(tensor.shape)}; expected {shape} for {len(names)} names.")
