"""Figure of a comparison: the maps of several methods side by side, one row per image."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .layout import (
    Sheet,
    check_axes,
    draw_heat,
    draw_photo,
    draw_scale,
    fit_names,
    heat_limit,
    shorten,
    text_width,
    wrap,
)
from .style import IMAGE_GAP, LEADING, MARGIN, PAGE, QUIET

CELL_WIDTH = (0.95, 2.2)  # inches, least and most; with many columns the figure grows and the text stays readable
BASELINE_GAP, NAME_GAP = 0.24, 0.05  # inches before the baselines, and between the names of neighbours
NOTE_SIZES = (7.5, 7.0, 6.5, 6.0)
FIGURE_DOTS = (200, 300)  # per inch, least and most: as many as show every pixel of the photos


def comparison_grid(
    photos: Tensor,
    maps: Mapping[str, Tensor],
    notes: Mapping[str, str] | None = None,
    *,
    baselines: Collection[str] = (),
    captions: Sequence[tuple[str, str]] = (),
    foot: str = "",
    shared: bool = False,
) -> Figure:
    """Draw one row per photo and one column per method, each map on its own scale or all maps on one.

    A map is divided by its 99th percentile and drawn over the darkened grey photo; negative values are not shown. The
    cell of a map that is constant or not finite says so. The figure has 200 to 300 dots per inch, so that photos of
    usual sizes keep their pixels.

    Args:
        photos: (N, C, H, W) in [0, 1].
        maps: by method, (N, H, W), large where important.
        notes: by method, a line or two below its name, for example its scores.
        baselines: methods that do not depend on the model; they are drawn at the right, after a gap.
        captions: by photo, explained class and a number, for example ("wombat", "p 0.71").
        foot: text below the figure, for example what the notes mean.
        shared: use one scale for all maps except those of the baselines, which ends at the 99th percentile of all; for
            methods with equal units.

    Example:
        >>> figure = comparison_grid(torch.rand(2, 3, 8, 12), {"Grad-CAM": torch.rand(2, 8, 12)})
    """
    if not maps:
        raise ValueError("maps is empty; expected at least one, by method: {'Grad-CAM': (N, H, W)}.")
    entries = {f"map {name!r}": (values, "N, H, W") for name, values in maps.items()}
    check_axes(photos=(photos, "N, C, H, W"), captions=(captions or None, "N"), **entries)
    methods = [name for name in maps if name not in baselines]
    controls = [name for name in maps if name in baselines]
    columns = ["the photo", *methods, *controls]
    gap = BASELINE_GAP if controls else 0.0
    cell = (PAGE - gap - 2 * MARGIN + IMAGE_GAP) / len(columns) - IMAGE_GAP
    cell = min(CELL_WIDTH[1], max(CELL_WIDTH[0], cell))
    height = cell * photos.shape[-2] / photos.shape[-1]
    lefts = [MARGIN + i * (cell + IMAGE_GAP) + (gap if i > len(methods) else 0.0) for i in range(len(columns))]
    limit = heat_limit(torch.cat([maps[name].flatten() for name in methods or controls])) if shared else None
    dots = min(max(FIGURE_DOTS[0], math.ceil(photos.shape[-1] / cell)), FIGURE_DOTS[1])
    sheet = Sheet(lefts[-1] + cell + MARGIN, dots)
    top = sheet.heading("What each method marks as important") - 0.02
    top, rule = _draw_names(sheet, top, columns, notes or {}, lefts, cell, len(methods) + 1)
    size, texts = _caption_lines(captions, cell)
    pitch = height + IMAGE_GAP + (0.03 + max(map(len, texts)) * size * LEADING / 72 if texts else 0.0)
    for column, (name, x) in enumerate(zip(columns, lefts, strict=True)):
        for row in range(len(photos)):
            axes = sheet.axes(x, top + row * pitch, cell, height)
            if column:
                draw_heat(axes, photos[row], maps[name][row], None if name in controls and methods else limit)
            else:
                draw_photo(axes, photos[row])
    if controls:
        sheet.rule(lefts[-len(controls)], rule, lefts[-1] + cell - lefts[-len(controls)])
    for row, lines in enumerate(texts):
        below = top + row * pitch + height + 0.03
        for line in lines:
            below = sheet.line(lefts[0] + cell / 2, below, line, size=size, colour=QUIET, align="center")
    top += len(photos) * pitch
    text = [_how_to_read(maps, methods, controls, limit), *foot.splitlines()]
    return sheet.finish(_draw_foot(sheet, top + 0.05, text, limit) + MARGIN / 2)


def _draw_names(
    sheet: Sheet,
    top: float,
    columns: Sequence[str],
    notes: Mapping[str, str],
    lefts: Sequence[float],
    cell: float,
    first: int,
) -> tuple[float, float]:
    """Write names, notes, and a title over the columns from ``first``; return tops of images and title line."""
    size, names = fit_names(columns, cell - NAME_GAP)
    small = _note_size([line for name in columns for line in notes.get(name, "").splitlines()], cell)
    small = min(small, size - 0.5)
    note_lines = [
        [part for line in notes.get(name, "").splitlines() for part in wrap(line, cell, small)] for name in columns
    ]
    heights = [
        (size * len(name) + small * len(lines)) * LEADING / 72 for name, lines in zip(names, note_lines, strict=True)
    ]
    width = lefts[-1] + cell - lefts[first] if first < len(columns) else 0.0
    title = wrap("do not depend on the network", width, NOTE_SIZES[0]) if width else []
    title_height = NOTE_SIZES[0] * LEADING / 72 * len(title) + 0.1
    bottom = top + max([*heights[:first], *(height + title_height for height in heights[first:])])
    for x, name, lines, height in zip(lefts, names, note_lines, heights, strict=True):
        at = bottom - height
        for text in name:
            at = sheet.line(x + cell / 2, at, text, size=size, align="center")
        for text in lines:
            at = sheet.line(x + cell / 2, at, text, size=small, colour=QUIET, align="center")
    rule = 0.0
    if title:
        at = bottom - max(heights[first:]) - title_height
        for text in title:
            at = sheet.line(lefts[first] + width / 2, at, text, size=NOTE_SIZES[0], colour=QUIET, align="center")
        rule = at + 0.03
    return bottom + 0.06, rule


def _caption_lines(captions: Sequence[tuple[str, str]], width: float) -> tuple[float, list[list[str]]]:
    """Return the size, and the caption of each photo as one line if all captions fit, else as two."""
    texts = [", ".join(filter(None, caption)) for caption in captions]
    size = _note_size(texts, width)
    if all(text_width(text, size) <= width for text in texts):
        return size, [[text] for text in texts]
    return NOTE_SIZES[0], [[shorten(name, width, NOTE_SIZES[0]), number] for name, number in captions]


def _note_size(lines: Sequence[str], width: float) -> float:
    """Return the largest of :data:`NOTE_SIZES` in which these lines fit, or the smallest."""
    return next((size for size in NOTE_SIZES if all(text_width(line, size) <= width for line in lines)), NOTE_SIZES[-1])


def _draw_foot(sheet: Sheet, top: float, paragraphs: Sequence[str], limit: float | None) -> float:
    """Draw the scale, and how to read the figure to the right of the scale, or below it in narrow figures."""
    size = NOTE_SIZES[0]
    draw_scale(sheet.axes(MARGIN + 0.5, top + 0.02, 1.2, 0.09))
    below = sheet.line(MARGIN, top, "nothing", size=size, colour=QUIET)
    sheet.line(MARGIN + 1.76, top, "strongest" if limit is None else f"{limit:.2g}", size=size, colour=QUIET)
    x, at = (MARGIN + 2.4, top) if sheet.width > 6 else (MARGIN, below + 0.04)
    for text in paragraphs:
        at = sheet.paragraph(x, at, text, sheet.width - MARGIN - x, size=size, colour=QUIET)
    return max(below, at)


def _how_to_read(
    maps: Mapping[str, Tensor], methods: Sequence[str], controls: Sequence[str], limit: float | None
) -> str:
    text = "Each map has its own scale, which ends at its 99th percentile: compare positions, not strengths."
    if limit is not None:
        text = "One scale for all maps, which ends at the 99th percentile of all."
        if methods and controls:
            text = "One scale for all methods, which ends at the 99th percentile of their maps; "
            text += "each map of a baseline has its own."
        ends = {name: heat_limit(maps[name]) / limit for name in methods if (maps[name] > 0).any()}
        weak = [
            f"{name} reaches {100 * share:.2g} % of it." for name, share in ends.items() if share < 0.1
        ]  # their maps are almost black
        text = " ".join([text, *weak])
    return text + (" Negative values are not shown." if any((m < 0).any() for m in maps.values()) else "")
