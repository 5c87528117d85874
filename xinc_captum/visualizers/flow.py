"""A picture of motion: where the clip moves beside where contributions change, and whether the two go together."""

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, QUIET, array, bare, draw_photo
from .heat import draw_heat
from .sheet import MARGIN, PAGE, Sheet

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
            f"wanted {expected} twice and {(pairs, pairs)} for {len(frames)} frames."
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
    return sheet.done(max(bottom, first + len(kept) * (tall + GAP)) + 0.1)


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
