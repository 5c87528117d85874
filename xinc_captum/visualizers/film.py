"""A picture of single units through time: their canvases under the frames that they paint."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .figure import QUIET, SIGNED, array, bare, draw_photo, draw_signed, limit_of
from .sheet import MARGIN, Sheet

PAGE = 11.0  # inches
LABEL = 1.5  # inches left of the frames


class FilmRow(NamedTuple):
    """One unit through time.

    Attributes:
        layer: heads the rows of the same layer.
        unit: its name.
        note: why it is shown.
        maps: (frames, H, W), signed: what it adds to and takes away from the brightness.
    """

    layer: str
    unit: str
    note: str
    maps: Tensor


def unit_film(frames: Tensor, rows: Sequence[FilmRow], *, columns: int = 8) -> Figure:
    """The frames, and under them the canvases of units, each on one scale for all of its frames.

    Args:
        frames: (frames, C, H, W) in [0, 1].
        rows: units in the order to show them, those of a layer together.
        columns: at most so many frames; of more, evenly spaced ones.

    Raises:
        ValueError: no rows, or maps of another size than the frames.

    Example:
        >>> row = FilmRow("blocks.0", "unit 3", "strongest", torch.randn(4, 8, 12))
        >>> unit_film(torch.rand(4, 3, 8, 12), [row]).savefig("film.png")  # doctest: +SKIP
    """
    wanted = (len(frames), *frames.shape[2:])
    wrong = [tuple(row.maps.shape) for row in rows if tuple(row.maps.shape) != wanted]
    if wrong or not rows:
        raise ValueError(f"got {len(rows)} rows with maps of shapes {wrong[:3]}; wanted at least one, all {wanted}.")
    kept = torch.linspace(0, len(frames) - 1, min(len(frames), columns)).round().long().tolist()
    cell = (PAGE - 2 * MARGIN - LABEL) / len(kept)
    tall = (cell - 0.04) * frames.shape[-2] / frames.shape[-1]
    sheet = Sheet(PAGE)
    top = sheet.heading(
        "What single units paint, frame by frame",
        "red: the unit makes the place brighter; blue: darker; each row on a scale of its own, the same for all frames",
    )
    for i, t in enumerate(kept):
        sheet.line(MARGIN + LABEL + (i + 0.5) * cell, top, f"frame {t}", size=8, colour=QUIET, align="center")
    top += 0.17
    sheet.paragraph(MARGIN, top, "the clip", LABEL - 0.1, bold=True)
    for i, t in enumerate(kept):
        axes = sheet.axes(MARGIN + LABEL + i * cell + 0.02, top, cell - 0.04, tall)
        draw_photo(axes, frames[t])
        bare(axes)
    top += tall + 0.12
    for layer, group in groupby(rows, key=lambda row: row.layer):
        top = sheet.line(MARGIN, top, layer, size=10, bold=True) + 0.04
        for row in group:
            below = sheet.paragraph(MARGIN, top, row.unit, LABEL - 0.1)
            sheet.paragraph(MARGIN, below, row.note, LABEL - 0.15, size=8, colour=QUIET)
            limit = limit_of(row.maps)
            for i, t in enumerate(kept):
                axes = sheet.axes(MARGIN + LABEL + i * cell + 0.02, top, cell - 0.04, tall)
                draw_signed(axes, row.maps[t], limit)
                bare(axes)
            top += tall + 0.06
        top += 0.08
    return sheet.done(_scale(sheet, top))


def _scale(sheet: Sheet, top: float) -> float:
    left, across = MARGIN + LABEL + 0.02, 2.2
    axes = sheet.axes(left, top, across, 0.13)
    axes.imshow(array(torch.linspace(-1, 1, 201))[None], cmap=SIGNED, aspect="auto")
    bare(axes)
    for part, said in ((0.0, "darkens"), (0.5, "nothing"), (1.0, "brightens")):
        sheet.line(left + part * across, top + 0.15, said, size=7.5, align="center")
    return top + 0.36
