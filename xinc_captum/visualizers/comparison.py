"""The maps of several methods side by side, one row an image. Tensors in, a matplotlib Figure out."""

import textwrap
from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, QUIET, bare, draw_photo, heading, new_figure
from .heat import draw_heat, draw_scale, heat_limit

PAGE = 9.0  # inches: with more columns the cells shrink, not the text, which stays readable at 900 pixels
TITLE, LINE, SMALL, GAP, MARGIN = 0.44, 0.165, 0.145, 0.07, 0.14  # inches


def comparison_grid(
    photos: Tensor, maps: Mapping[str, Tensor], notes: Mapping[str, str] | None = None, *, shared: bool = False
) -> Figure:
    """Each photo beside its maps, one column a method, each map on its own scale or all on one.

    A map is divided by its 99th percentile and glows on the darkened grey photo; what is negative is not shown. A map
    without any preference, or with nan or infinity, is said in words.

    Args:
        photos: (N, C, H, W) in [0, 1].
        maps: by method, (N, H, W), large where important.
        notes: by method, a line or two under its name, for example its scores.
        shared: one scale for all maps, which ends at the 99th percentile of all; for methods of equal units.

    Raises:
        ValueError: no maps, or one whose shape does not fit the photos.

    Example:
        >>> figure = comparison_grid(torch.rand(2, 3, 8, 12), {"Grad-CAM": torch.rand(2, 8, 12)})
        >>> figure.savefig("comparison.png")  # doctest: +SKIP
    """
    _check(photos, maps)
    columns = len(maps) + 1
    cell = min(2.2, max(0.95, (PAGE - 2 * MARGIN + GAP) / columns - GAP))
    tall = cell * photos.shape[-2] / photos.shape[-1]
    names = [
        textwrap.wrap(name, max(8, int(cell / 0.073)), break_on_hyphens=False) or [""] for name in ("the photo", *maps)
    ]
    under = [[], *((notes or {}).get(name, "").splitlines() for name in maps)]
    above = max(LINE * len(name) + SMALL * len(note) for name, note in zip(names, under, strict=True)) + 0.06
    limit = heat_limit(torch.cat([values.flatten() for values in maps.values()])) if shared else None
    wide = columns * (cell + GAP) - GAP + 2 * MARGIN
    below = TITLE + above + len(photos) * (tall + GAP)
    foot = textwrap.wrap(_how_to_read(maps, shared), int((wide - 2 * MARGIN - 2.4) / 0.053))
    high = below + 0.11 + SMALL * len(foot) + MARGIN / 2
    figure = new_figure(wide, high)
    heading(figure, "Where each method looks")
    figure.set_layout_engine("none")  # every place below is known, in inches

    def axes_at(left: float, top: float, across: float, down: float) -> Axes:
        return figure.add_axes((left / wide, 1 - (top + down) / high, across / wide, down / high))

    def write(left: float, top: float, text: str, size: float, colour: str, align: str) -> None:
        figure.text(left / wide, 1 - top / high, text, fontsize=size, color=colour, ha=align, va="top")

    for column, (name, note) in enumerate(zip(names, under, strict=True)):
        left = MARGIN + column * (cell + GAP)
        top = TITLE + above - 0.06 - LINE * len(name) - SMALL * len(note)  # the last lines stand on one level
        for text in name:
            write(left + cell / 2, top, text, 9, INK, "center")
            top += LINE
        for text in note:
            write(left + cell / 2, top, text, 7.5, QUIET, "center")
            top += SMALL
        for row in range(len(photos)):
            axes = axes_at(left, TITLE + above + row * (tall + GAP), cell, tall)
            if column:
                draw_heat(axes, photos[row], list(maps.values())[column - 1][row], limit)
            else:
                draw_photo(axes, photos[row])
            bare(axes)
    draw_scale(axes_at(MARGIN + 0.5, below + 0.09, 1.2, 0.09))
    write(MARGIN, below + 0.07, "nothing", 7.5, QUIET, "left")
    write(MARGIN + 1.76, below + 0.07, "strongest", 7.5, QUIET, "left")
    for i, text in enumerate(foot):
        write(MARGIN + 2.4, below + 0.07 + i * SMALL, text, 7.5, QUIET, "left")
    return figure


def _how_to_read(maps: Mapping[str, Tensor], shared: bool) -> str:
    text = "Each map has its own scale, which ends at its 99th percentile, so compare where methods look, not how much."
    if shared:
        text = "One scale for all maps, which ends at the 99th percentile of all."
    return text + (" Negative values are not shown." if any((m < 0).any() for m in maps.values()) else "")


def _check(photos: Tensor, maps: Mapping[str, Tensor]) -> None:
    if not maps:
        raise ValueError("maps is empty; give at least one, by method: {'Grad-CAM': (N, H, W)}.")
    if photos.dim() != 4:
        raise ValueError(f"photos have shape {tuple(photos.shape)}; wanted (N, C, H, W).")
    for name, values in maps.items():
        if values.shape != (len(photos), *photos.shape[2:]):
            raise ValueError(
                f"the map {name!r} has shape {tuple(values.shape)} for photos of shape {tuple(photos.shape)}; wanted "
                f"{(len(photos), *photos.shape[2:])}."
            )
