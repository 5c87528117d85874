"""A picture of spread: over how many pixels units paint, and how many units it takes to paint a pixel."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .curve import COLOURS
from .figure import INK, QUIET, array, bare, draw_photo, legend_of
from .sheet import MARGIN, PAGE, Sheet

TALL = 2.5  # inches of a panel
APART = 0.05  # of the picture, or of a pixel: a curve no further from its control is as by chance


class Spread(NamedTuple):
    """One layer's numbers, each beside its control.

    Attributes:
        pixels: (units,), at how many pixels each unit paints more than its fair share.
        pixels_control: the same with units shuffled at every pixel.
        running: (units + 1,), the part of a pixel that its strongest units make up.
        running_control: the same with pixels shuffled for every unit.
        needed: (H, W), how many units make up 90 % of a pixel.
        needed_control: the same with pixels shuffled for every unit.
    """

    pixels: Tensor
    pixels_control: Tensor
    running: Tensor
    running_control: Tensor
    needed: Tensor
    needed_control: Tensor

    @property
    def places(self) -> bool:
        """Whether units have places of their own: the curve of pixels leaves that of shuffled units."""
        curves = [side.double().sort(descending=True).values for side in (self.pixels, self.pixels_control)]
        return bool((curves[0] - curves[1]).abs().max() > APART * self.needed.numel())

    @property
    def few(self) -> bool:
        """Whether few units make up each pixel: the running curve rises above that of shuffled pixels."""
        return bool((self.running - self.running_control).max() > APART)


def spread_curves(layers: Mapping[str, Spread], photo: Tensor) -> Figure:
    """Two panels of curves, one colour a layer, controls dashed; below, how many units each pixel takes.

    Args:
        layers: by name.
        photo: (C, H, W) in [0, 1].

    Raises:
        ValueError: no layer, or maps of another size than the photo.

    Example:
        >>> pixels, running, needed = torch.arange(5), torch.linspace(0, 1, 6), torch.ones(8, 12)
        >>> one = Spread(pixels, pixels, running, running, needed, needed)
        >>> figure = spread_curves({"layer1": one}, torch.rand(3, 8, 12))
        >>> figure.savefig("spread.png")  # doctest: +SKIP
    """
    height, width = photo.shape[-2:]
    if not layers or any(one.needed.shape != (height, width) for one in layers.values()):
        shapes = {name: tuple(one.needed.shape) for name, one in layers.items()}
        raise ValueError(f"maps of needed units are {shapes} for a photo {tuple(photo.shape)}; wanted its (H, W).")
    sheet = Sheet()
    top = sheet.heading(
        "How far units spread, and how many share a pixel",
        "solid: the network; dashed, its control: the same amounts with units (left) or pixels (right) shuffled",
    )
    across = (PAGE - 2 * MARGIN - 0.9) / 2 - 0.25
    lefts = (MARGIN + 0.55, MARGIN + 0.55 + across + 0.85)
    titles = (
        "pixels where a unit paints more than its fair share",
        "how much of a pixel its strongest units make up",
    )
    for left, title in zip(lefts, titles, strict=True):
        sheet.line(left, top, title, size=9.5, bold=True)
    left_panel, right_panel = (sheet.axes(left, top + 0.24, across, TALL) for left in lefts)
    for colour, one in zip(_colours(len(layers)), layers.values(), strict=True):
        for values, style in ((one.pixels, "-"), (one.pixels_control, "--")):
            ordered = array(values.double().sort(descending=True).values) / (height * width) * 100
            places = torch.linspace(0, 100, len(ordered)).numpy()
            left_panel.plot(places, ordered, style, color=colour)
        for values, style in ((one.running, "-"), (one.running_control, "--")):
            places = torch.linspace(0, 100, len(values)).numpy()
            right_panel.plot(places, 100 * array(values), style, color=colour)
    for part in (50, 90):
        right_panel.axhline(part, color="#d0d0d6", linewidth=0.9, zorder=0)
    _axes(left_panel, "units, from the widest to the narrowest (%)", "of the picture's pixels (%)")
    _axes(right_panel, "units counted, the strongest at each pixel first (%)", "of the pixel (%)")
    solid = [line for line in left_panel.lines if line.get_linestyle() == "-"]
    legend_of(left_panel, solid, [*layers], fontsize=8.5, frameon=False)
    return sheet.done(_maps(sheet, layers, photo, top + 0.24 + TALL + 0.62))


def _maps(sheet: Sheet, layers: Mapping[str, Spread], photo: Tensor, top: float) -> float:
    """The photo and, for each layer, how many units every pixel takes; answers the bottom."""
    height, width = photo.shape[-2:]
    columns = min(len(layers) + 1, 4)
    cell = min((PAGE - 2 * MARGIN - (columns - 1) * 0.12) / columns, 2.6)
    tall = cell * height / width
    start = (PAGE - columns * cell - (columns - 1) * 0.12) / 2
    said = "units that make up 90 % of a pixel, bright: many (own scale for each layer)"
    top = sheet.line(PAGE / 2, top, said, size=9.5, bold=True, align="center") + 0.05
    for i, name in enumerate(["", *layers]):
        row, column = divmod(i, columns)
        left, here = start + column * (cell + 0.12), top + row * (tall + 0.42)
        axes = sheet.axes(left, here, cell, tall)
        bare(axes)
        if not i:
            draw_photo(axes, photo)
            sheet.paragraph(left + cell / 2, here + tall + 0.03, "the picture", cell, size=8.5, align="center")
            continue
        one = layers[name]
        axes.imshow(array(one.needed), cmap="viridis", interpolation="nearest")
        middle, control = (float(values.double().median()) for values in (one.needed, one.needed_control))
        below = sheet.paragraph(left + cell / 2, here + tall + 0.03, f"{name}: {middle:.0f} of {len(one.pixels)}", cell,
                                size=8.5, align="center")  # fmt: skip
        sheet.paragraph(
            left + cell / 2, below, f"pixels shuffled: {control:.0f}", cell, size=8, colour=QUIET, align="center"
        )
    return top + (len(layers) // columns + 1) * (tall + 0.42) + 0.06


def _axes(axes: Axes, below: str, beside: str) -> None:
    axes.set_xlabel(below, fontsize=8.5, color=INK)
    axes.set_ylabel(beside, fontsize=8.5, color=INK)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, None)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
