"""The maps of several methods side by side, one row an image. Tensors in, a matplotlib Figure out."""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .layout import (
    LEADING,
    MARGIN,
    Sheet,
    broken,
    heads,
    shortened,
    wide,
)
from .style import QUIET, bare, draw_heat, draw_photo, draw_scale, heat_limit

PAGE = 9.0  # inches: with more columns the cells shrink, not the text, which stays readable at 900 pixels
CELL = (0.95, 2.2)  # inches
GAP, APART, AIR = 0.07, 0.24, 0.05  # inches: between cells, before the baselines, between names of neighbours
RULE = 0.012  # inches of the line over the baselines
SMALL = (7.5, 7.0, 6.5, 6.0)  # sizes of the quiet text
DOTS = (200, 300)  # an inch: as many as show every pixel of the photos, within these
WEAK = 0.1  # of a shared scale: whose map ends below looks black, and is named
APART_HEAD = "know nothing of the network"


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
    """Each photo beside its maps, one column a method, each map on its own scale or all on one.

    A map is divided by its 99th percentile and glows on the darkened grey photo; what is negative is not shown. A map
    without any preference, or with nan or infinity, is said in words. The figure has 200 to 300 dots an inch, so that
    photos of usual sizes keep their pixels.

    Args:
        photos: (N, C, H, W) in [0, 1].
        maps: by method, (N, H, W), large where important.
        notes: by method, a line or two under its name, for example its scores.
        baselines: which of the methods know nothing of the network; they stand apart, on the right.
        captions: by photo, what is explained and a number, for example ("wombat", "p 0.71").
        foot: what else there is to say below, for example what the notes mean.
        shared: one scale for all maps but the baselines', which ends at the 99th percentile of all; for methods of
            equal units.

    Raises:
        ValueError: no maps, one whose shape does not fit the photos, or another number of captions than photos.

    Example:
        >>> figure = comparison_grid(torch.rand(2, 3, 8, 12), {"Grad-CAM": torch.rand(2, 8, 12)})
        >>> figure.savefig("comparison.png")  # doctest: +SKIP
    """
    _check(photos, maps, captions)
    methods = [name for name in maps if name not in baselines]
    apart = [name for name in maps if name in baselines]
    columns = ["the photo", *methods, *apart]
    room = APART if apart else 0.0
    cell = min(CELL[1], max(CELL[0], (PAGE - room - 2 * MARGIN + GAP) / len(columns) - GAP))
    tall = cell * photos.shape[-2] / photos.shape[-1]
    lefts = [MARGIN + i * (cell + GAP) + (room if i > len(methods) else 0.0) for i in range(len(columns))]
    limit = _limit([maps[name] for name in methods or apart]) if shared else None

    dots = min(max(DOTS[0], math.ceil(photos.shape[-1] / cell)), DOTS[1])
    sheet = Sheet(lefts[-1] + cell + MARGIN, dots)
    top = sheet.heading("Where each method looks") - 0.02
    top, rule = _heads(sheet, top, columns, notes or {}, lefts, cell, len(methods) + 1)
    size, says = _captions(captions, cell)
    pitch = tall + GAP + (0.03 + max(map(len, says)) * size * LEADING / 72 if says else 0.0)
    for column, (name, left) in enumerate(zip(columns, lefts, strict=True)):
        for row in range(len(photos)):
            axes = sheet.axes(left, top + row * pitch, cell, tall)
            if column:
                scale = None if name in apart and methods else limit
                draw_heat(axes, photos[row], maps[name][row], scale)
            else:
                draw_photo(axes, photos[row])
            bare(axes)
    if apart:
        under = sheet.axes(lefts[-len(apart)], rule, lefts[-1] + cell - lefts[-len(apart)], RULE)
        under.set_facecolor(QUIET)
        bare(under)
    for row, lines in enumerate(says):
        below = top + row * pitch + tall + 0.03
        for line in lines:
            below = sheet.line(lefts[0] + cell / 2, below, line, size=size, colour=QUIET, align="center")
    top += len(photos) * pitch
    read = [_how_to_read(maps, methods, apart, limit), *foot.splitlines()]
    return sheet.finish(_foot(sheet, top + 0.05, read, limit) + MARGIN / 2)


def _heads(
    sheet: Sheet,
    top: float,
    columns: Sequence[str],
    notes: Mapping[str, str],
    lefts: Sequence[float],
    cell: float,
    first: int,
) -> tuple[float, float]:
    """Names and notes, which end on one level, and a head over all from ``first`` on.

    Answers where the pictures begin, and where the line under that head is.
    """
    size, names = heads(columns, cell - AIR)
    small = _small([line for name in columns for line in notes.get(name, "").splitlines()], cell)
    small = min(small, size - 0.5)
    under = [
        [part for line in notes.get(name, "").splitlines() for part in broken(line, cell, small)] for name in columns
    ]
    highs = [(size * len(name) + small * len(said)) * LEADING / 72 for name, said in zip(names, under, strict=True)]
    across = lefts[-1] + cell - lefts[first] if first < len(columns) else 0.0
    common = broken(APART_HEAD, across, SMALL[0]) if across else []
    over = SMALL[0] * LEADING / 72 * len(common) + 0.1
    bottom = top + max([*highs[:first], *(high + over for high in highs[first:])])
    for left, name, said, high in zip(lefts, names, under, highs, strict=True):
        at = bottom - high
        for text in name:
            at = sheet.line(left + cell / 2, at, text, size=size, align="center")
        for text in said:
            at = sheet.line(left + cell / 2, at, text, size=small, colour=QUIET, align="center")
    rule = 0.0
    if common:
        at = bottom - max(highs[first:]) - over
        for text in common:
            at = sheet.line(lefts[first] + across / 2, at, text, size=SMALL[0], colour=QUIET, align="center")
        rule = at + 0.03
    return bottom + 0.06, rule


def _captions(captions: Sequence[tuple[str, str]], width: float) -> tuple[float, list[list[str]]]:
    """In which size, and for each photo one line if all fit, else two."""
    whole = [", ".join(filter(None, caption)) for caption in captions]
    size = _small(whole, width)
    if all(wide(text, size) <= width for text in whole):
        return size, [[text] for text in whole]
    return SMALL[0], [[shortened(name, width, SMALL[0]), number] for name, number in captions]


def _small(lines: Sequence[str], width: float) -> float:
    """The largest size of quiet text in which these lines fit, or the smallest."""
    return next((size for size in SMALL if all(wide(line, size) <= width for line in lines)), SMALL[-1])


def _foot(sheet: Sheet, top: float, read: Sequence[str], limit: float | None) -> float:
    """The scale, and beside it, or below where the figure is narrow, how to read the figure."""
    draw_scale(sheet.axes(MARGIN + 0.5, top + 0.02, 1.2, 0.09))
    below = sheet.line(MARGIN, top, "nothing", size=SMALL[0], colour=QUIET)
    sheet.line(MARGIN + 1.76, top, "strongest" if limit is None else f"{limit:.2g}", size=SMALL[0], colour=QUIET)
    left, at = (MARGIN + 2.4, top) if sheet.width > 6 else (MARGIN, below + 0.04)
    for text in read:
        at = sheet.paragraph(left, at, text, sheet.width - MARGIN - left, size=SMALL[0], colour=QUIET)
    return max(below, at)


def _limit(maps: Sequence[Tensor]) -> float:
    return heat_limit(torch.cat([values.flatten() for values in maps]))


def _how_to_read(maps: Mapping[str, Tensor], methods: Sequence[str], apart: Sequence[str], limit: float | None) -> str:
    text = "Each map has its own scale, which ends at its 99th percentile, so compare where methods look, not how much."
    if limit is not None:
        text = "One scale for all maps, which ends at the 99th percentile of all."
        if methods and apart:
            text = (
                "One scale for all methods, which ends at the 99th percentile of their maps; what knows nothing of the "
                "network has its own, map by map."
            )
        ends = {name: heat_limit(maps[name]) / limit for name in methods if (maps[name] > 0).any()}
        weak = [f"{name} reaches {100 * share:.2g} % of it." for name, share in ends.items() if share < WEAK]
        text = " ".join([text, *weak])
    return text + (" Negative values are not shown." if any((m < 0).any() for m in maps.values()) else "")


def _check(photos: Tensor, maps: Mapping[str, Tensor], captions: Sequence[tuple[str, str]]) -> None:
    if not maps:
        raise ValueError("maps is empty; give at least one, by method: {'Grad-CAM': (N, H, W)}.")
    if photos.dim() != 4:
        raise ValueError(f"photos have shape {tuple(photos.shape)}; expected (N, C, H, W).")
    for name, values in maps.items():
        if values.shape != (len(photos), *photos.shape[2:]):
            raise ValueError(
                f"the map {name!r} has shape {tuple(values.shape)} for photos of shape {tuple(photos.shape)}; expected "
                f"{(len(photos), *photos.shape[2:])}."
            )
    if captions and len(captions) != len(photos):
        raise ValueError(f"{len(captions)} captions for {len(photos)} photos; expected one a photo, or none.")
