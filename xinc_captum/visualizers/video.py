"""Object tracks, flow."""

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import MARGIN, PAGE, Sheet
from .style import INK, QUIET, SIGNED, array, bare, draw_heat, draw_photo

GAP = 0.07
CELL = 1.62  # inches


def flow_beside_change(
    frames: Tensor,
    speed: Tensor,
    change: Tensor,
    table: Tensor,
    *,
    controls: Mapping[str, float],
    layer: str = "layer",
    shown: int = 4,
) -> Figure:
    """Rows of frame, speed and contribution change; then every change against every speed, and the controls.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        speed: (frames - 1, H, W), of the optical flow, in pixels a frame.
        change: (frames - 1, H, W), how much the layer's contributions change.
        table: (pairs, pairs), rank correlations of change t (rows) with speed s (columns).
        controls: what else to put beside the diagonal, by name; nan where there is nothing to correlate.
        layer: its name, for the heading.
        shown: at most so many pairs of frames.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> pairs = torch.rand(2, 8, 12)
        >>> figure = flow_beside_change(torch.rand(3, 3, 8, 12), pairs, pairs, torch.eye(2), controls={"still": 0.0})
        >>> figure.savefig("flow.png")  # doctest: +SKIP
    """
    pairs = len(frames) - 1
    expected = (pairs, *frames.shape[2:])
    if tuple(speed.shape) != expected or tuple(change.shape) != expected or tuple(table.shape) != (pairs, pairs):
        raise ValueError(
            f"speed has shape {tuple(speed.shape)}, change {tuple(change.shape)} and table {tuple(table.shape)}; "
            f"expected {expected} twice and {(pairs, pairs)} for {len(frames)} frames."
        )
    kept = torch.linspace(0, pairs - 1, min(pairs, shown)).round().long().tolist()
    tall = CELL * frames.shape[-2] / frames.shape[-1]
    sheet = Sheet()
    top = sheet.heading(
        f"Where the clip moves, and where the contributions of {layer} change",
        "left: the speed of the optical flow and the change of contributions over the same frame, bright: much; right: "
        "rank correlations over pixels of the two",
    )
    places = [MARGIN + 0.62 + i * (CELL + GAP) for i in range(3)]
    for left, word in zip(places, ("the frame", "how fast it moves", "how much paint changes"), strict=True):
        sheet.line(left + CELL / 2, top, word, size=9, align="center")
    first = top + 0.2
    for row, t in enumerate(kept):
        here = first + row * (tall + GAP)
        sheet.line(MARGIN, here + tall / 2 - 0.08, f"{t} → {t + 1}", size=8.5, colour=QUIET)
        for left, values in zip(places, (None, speed[t], change[t]), strict=True):
            axes = sheet.axes(left, here, CELL, tall)
            bare(axes)
            if values is None:
                draw_photo(axes, frames[t])
            else:
                draw_heat(axes, frames[t], values)
    bottom = _matrix(sheet, places[-1] + CELL + 0.75, first, table)
    bottom = _bars(sheet, places[-1] + CELL + 0.3, bottom + 0.3, table, controls)
    return sheet.finish(max(bottom, first + len(kept) * (tall + GAP)) + 0.1)


def _matrix(sheet: Sheet, left: float, top: float, table: Tensor) -> float:
    side = 1.9
    limit = float(table.nan_to_num().abs().max()) or 1.0
    axes = sheet.axes(left, top, side, side)
    axes.imshow(array(table), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    bare(axes)
    sheet.line(left + side / 2, top - 0.2, "every change against every speed", size=9, align="center")
    sheet.line(left + side / 2, top + side + 0.03, "speed at frame →", size=8, colour=QUIET, align="center")
    sheet.paragraph(left - 0.55, top + side / 2 - 0.2, "change at frame ↓", 0.5, size=8, colour=QUIET)
    scale = sheet.axes(left + side + 0.08, top, 0.1, side)
    scale.imshow(array(torch.linspace(1, -1, 101))[:, None], cmap="RdBu_r", aspect="auto")
    bare(scale)
    for part, value in ((0.0, limit), (0.5, 0.0), (1.0, -limit)):
        sheet.line(left + side + 0.22, top + part * (side - 0.12), f"{value:+.2f}" if value else "0", size=7.5)
    return top + side + 0.2


def _bars(sheet: Sheet, left: float, top: float, table: Tensor, controls: Mapping[str, float]) -> float:
    own = torch.eye(len(table), dtype=torch.bool, device=table.device)
    rows = {
        "same frames": float(table.diagonal().nanmean()),
        "other frames (control)": float(table.masked_fill(own, torch.nan).nanmean()),
        **controls,
    }
    said, across = 1.55, PAGE - MARGIN - left - 1.55 - 0.1
    reach = max([abs(v) for v in rows.values() if v == v] or [1.0]) * 1.5
    low = min([0.0, *[v for v in rows.values() if v == v]])
    axes = sheet.axes(left + said, top, across, 0.24 * len(rows))
    for i, value in enumerate(rows.values()):
        axes.barh(i, 0 if value != value else value, height=0.62, color="#1f5fa8" if i == 0 else "#9a9aa2")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlim(1.6 * low, reach)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    bare(axes)
    for i, (name, value) in enumerate(rows.items()):
        words = "nothing moves" if value != value else f"{value:+.2f}"
        place = max(0.0 if value != value else value, 0.0)
        axes.text(place + 0.03 * reach, i, words, fontsize=8, va="center", color=INK)
        sheet.line(
            left + said - 0.06, top + 0.24 * i + 0.04, name, size=8, colour=INK if i == 0 else QUIET, align="right"
        )
    return top + 0.24 * len(rows)


TRACK_PAGE = 11.0  # inches: a dozen frames side by side
LABEL, NUMBER = 1.75, 0.75  # inches left and right of the frames
ROW = 0.17  # inches of a unit
OUTLINES = ("#ffd400", "#00e5ff", "#ff5cd6", "#7dff5c")


def object_time(
    frames: Tensor,
    masks: Tensor,
    matched: Tensor,
    shuffled: Tensor,
    amounts: Tensor,
    *,
    names: Sequence[str],
    elsewhere: Tensor | None = None,
    layer: str = "layer",
    units: int = 8,
    columns: int = 12,
) -> Figure:
    """How objects are carried through time: frames on top; for each object, its carriers' paint and a heat map.

    Under the frames, for each object: what the units that follow it most paint together, frame by frame, with the
    object's outline; then their preference for the object unit by unit (red: more than the object's area accounts
    for), and under it the control: the same frames under the object's masks of all other times. What is redder
    above than below goes along with the object. Numbers on the right: the difference, mean over frames.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        masks: (frames, objects, H, W).
        matched: (frames, objects, units), of ``object_track``.
        shuffled: (frames, objects, units), its control.
        amounts: (frames, units, H, W), >= 0.
        names: one an object.
        elsewhere: (repeats, objects, units), of ``carried_elsewhere``: what the best units come to along the same path
            elsewhere, said beside what they come to here. The rows are chosen for their numbers; this says by how
            much choosing alone helps.
        layer: its name, for the heading.
        units: at most so many units an object.
        columns: at most so many frames; of more, evenly spaced ones.

    Raises:
        ValueError: shapes that do not match, or another number of names.

    Example:
        >>> frames, masks, amounts = torch.rand(3, 3, 8, 12), torch.ones(3, 1, 8, 12), torch.rand(3, 5, 8, 12)
        >>> matched = torch.rand(3, 1, 5)
        >>> figure = object_time(frames, masks, matched, 0 * matched, amounts, names=["ball"])
        >>> figure.savefig("track.png")  # doctest: +SKIP
    """
    _check(frames, masks, matched, shuffled, amounts, names, elsewhere)
    kept = torch.linspace(0, len(frames) - 1, min(len(frames), columns)).round().long()
    cell = (TRACK_PAGE - 2 * MARGIN - LABEL - NUMBER) / len(kept)
    tall = (cell - 0.04) * frames.shape[-2] / frames.shape[-1]
    carried = (matched - shuffled).nanmean(0).nan_to_num(-torch.inf)
    best = carried.argsort(dim=1, descending=True, stable=True)[:, :units]
    limit = _limit([matched[:, o, best[o]] for o in range(len(names))])
    sheet = Sheet(TRACK_PAGE)
    top = sheet.heading(
        f"How {_joined(names)} {'is' if len(names) == 1 else 'are'} carried through time by {layer}",
        "red: the unit paints more on the object than the object's area accounts for; blue: less. A unit that goes "
        "along with the object is redder above than below, under the object's masks of all other times (the control)",
    )
    for i, t in enumerate(kept.tolist()):
        sheet.line(MARGIN + LABEL + (i + 0.5) * cell, top, f"{t}", size=8, colour=QUIET, align="center")
    sheet.line(MARGIN + LABEL - 0.1, top, "frame", size=8, colour=QUIET, align="right")
    top += 0.17
    _label(sheet, top, "the clip", "")
    for i, t in enumerate(kept.tolist()):
        axes = sheet.axes(MARGIN + LABEL + i * cell + 0.02, top, cell - 0.04, tall)
        draw_photo(axes, frames[t])
        bare(axes)
        for o in range(len(names)):
            _outline(axes, masks[t, o], OUTLINES[o % len(OUTLINES)])
    top += tall + 0.16
    for o, name in enumerate(names):
        followers = best[o].tolist()
        _label(sheet, top, name, f"{len(followers)} units that follow it most, together")
        together = amounts[:, followers].sum(1)
        for i, t in enumerate(kept.tolist()):
            axes = sheet.axes(MARGIN + LABEL + i * cell + 0.02, top, cell - 0.04, tall)
            draw_heat(axes, frames[t], together[t] * together.mean() / together[t].mean().clamp_min(1e-30))
            bare(axes)
            _outline(axes, masks[t, o], OUTLINES[o % len(OUTLINES)])
        top += tall + 0.06
        for table, words in ((matched, "under its own mask"), (shuffled, "control: under its masks of other times")):
            values = _doublings(table[kept][:, o, followers].T, limit)
            high = ROW * len(followers)
            axes = sheet.axes(MARGIN + LABEL + 0.02, top, cell * len(kept) - 0.04, high)
            axes.imshow(array(values), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
            bare(axes)
            sheet.paragraph(MARGIN, top + 0.02, words, LABEL - 0.75, size=8, colour=QUIET)
            for row, unit in enumerate(followers):
                line = top + row * ROW + 0.02
                sheet.line(MARGIN + LABEL - 0.05, line, f"unit {unit}", size=7.5, align="right")
                if table is matched:
                    sheet.line(TRACK_PAGE - MARGIN - NUMBER + 0.08, line, f"{float(carried[o, unit]):+.2f}", size=7.5)
            top += high + 0.08
        top = _chance(sheet, top, carried[o], elsewhere[:, o] if elsewhere is not None else None) + 0.16
    _scale(sheet, top, limit)
    return sheet.finish(top + 0.36)


def _label(sheet: Sheet, top: float, name: str, words: str) -> None:
    below = sheet.paragraph(MARGIN, top, name, LABEL - 0.1, size=9.5, bold=True)
    if words:
        sheet.paragraph(MARGIN, below, words, LABEL - 0.1, size=8, colour=QUIET)


def _chance(sheet: Sheet, top: float, carried: Tensor, elsewhere: Tensor | None) -> float:
    """The best unit here beside the best units along the same path elsewhere."""
    if elsewhere is None:
        return top
    best = elsewhere.nan_to_num(-torch.inf).amax(1).double()
    said = (
        f"goes along with it most: {float(carried.max()):+.2f}; control, the best of the {len(carried)} units along "
        f"the same path elsewhere: {float(best.median()):+.2f} (at most {float(best.max()):+.2f} in {len(best)} places)"
    )
    return sheet.line(MARGIN + LABEL + 0.02, top, said, size=8.5)


def _outline(axes: Axes, mask: Tensor, colour: str) -> None:
    inside = array(mask)
    if inside.min() < 0.5 <= inside.max():
        axes.contour(inside, levels=[0.5], colors=["black"], linewidths=2.0)
        axes.contour(inside, levels=[0.5], colors=[colour], linewidths=1.1)


def _scale(sheet: Sheet, top: float, limit: int) -> None:
    left, across = MARGIN + LABEL + 0.02, 2.2
    axes = sheet.axes(left, top + 0.02, across, 0.13)
    axes.imshow(array(torch.linspace(-1, 1, 201))[None], cmap=SIGNED, aspect="auto")
    bare(axes)
    for part, said in ((0.0, f"1/{2**limit} or less"), (0.5, "as its area"), (1.0, f"{2**limit} times")):
        sheet.line(left + part * across, top + 0.17, said, size=7.5, colour=INK, align="center")
    said = "right of each row: how much more under its own mask than under those of other times, mean over frames"
    sheet.line(TRACK_PAGE - MARGIN, top + 0.02, said, size=7.5, colour=QUIET, align="right")


def _doublings(preference: Tensor, limit: int) -> Tensor:
    """How often the area's share was doubled, or halved: log2(1 + δ), within the limit."""
    return (1 + preference.double()).clamp(2.0**-limit, 2.0**limit).log2()


def _limit(tables: Sequence[Tensor]) -> int:
    values = torch.cat([t.flatten() for t in tables])
    values = (1 + values[values.isfinite()].double()).clamp_min(1).log2()
    return min(max(math.ceil(float(values.quantile(0.97))) if len(values) else 1, 1), 5)


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _check(
    frames: Tensor,
    masks: Tensor,
    matched: Tensor,
    shuffled: Tensor,
    amounts: Tensor,
    names: Sequence[str],
    elsewhere: Tensor | None,
) -> None:
    count, size = len(frames), tuple(frames.shape[2:])
    wanted = {
        "masks": (masks, (count, len(names), *size)),
        "matched": (matched, (count, len(names), amounts.shape[1])),
        "shuffled": (shuffled, (count, len(names), amounts.shape[1])),
        "amounts": (amounts, (count, amounts.shape[1], *size)),
    }
    if elsewhere is not None:
        wanted["elsewhere"] = (elsewhere, (len(elsewhere), len(names), amounts.shape[1]))
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} have shape {tuple(tensor.shape)}; expected {shape} for {len(names)} names.")
