"""Figures of canvas statistics: association with image fields, regions, spread, and variance between clusters."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import MARGIN, PAGE, Align, Sheet
from .style import (
    BLUE,
    CONTROL,
    HEAT,
    INK,
    LINE_COLOURS,
    ORANGE,
    PALE_CONTROL,
    QUIET,
    add_legend,
    array,
    bare,
    draw_photo,
)

FIELD_WIDTH, FIELD_GAP = 1.72, 0.1  # inches of an image, and between images


def association_rows(
    photo: Tensor,
    total: Tensor,
    fields: Mapping[str, Tensor],
    rhos: Mapping[str, tuple[Tensor, Tensor]],
    *,
    layer: str = "layer",
) -> Figure:
    """Draw one row per field: photo, contributions of the layer, the field, and rank correlations with a control.

    Args:
        photo: (C, H, W) in [0, 1].
        total: (H, W), sum of the contributions of all units.
        fields: by name, (H, W), for example intensity and edges.
        rhos: by name, (units,) and the control's (repeats, units): an ``Association``.
        layer: name of the layer, for the heading.

    Raises:
        ValueError: no field, fields without correlations, or maps of another size than the photo.

    Example:
        >>> field, rho = torch.rand(8, 12), (torch.rand(5), torch.rand(9, 5))
        >>> figure = association_rows(torch.rand(3, 8, 12), field, {"edges": field}, {"edges": rho})
        >>> figure.savefig("association.png")  # doctest: +SKIP
    """
    size = tuple(photo.shape[-2:])
    if not fields or set(fields) - set(rhos) or any(tuple(f.shape) != size for f in [total, *fields.values()]):
        shapes = {name: tuple(field.shape) for name, field in {"total": total, **fields}.items()}
        raise ValueError(f"got maps {shapes} and correlations of {list(rhos)}; expected {size} and the same names.")
    height = FIELD_WIDTH * size[0] / size[1]
    row_height = max(height, 1.15)
    sheet = Sheet()
    top = sheet.heading(
        f"Do the units of {layer} follow the picture's intensity or its edges?",
        "right: rank correlation of each unit with the field (blue) and with the shifted field (grey)",
    )
    lefts = [MARGIN + i * (FIELD_WIDTH + FIELD_GAP) for i in range(3)]
    for x, title in zip(lefts, ("the picture", "all units together", "the field"), strict=True):
        sheet.line(x + FIELD_WIDTH / 2, top, title, size=9, align="center")
    top += 0.2
    for name, field in fields.items():
        for x, values in zip(lefts, (None, total, field), strict=True):
            axes = sheet.axes(x, top, FIELD_WIDTH, height)
            bare(axes)
            if values is None:
                draw_photo(axes, photo)
            else:
                axes.imshow(array(values), cmap="gray" if values is field else HEAT, interpolation="nearest")
        _draw_histogram(sheet, lefts[-1] + FIELD_WIDTH + 0.3, top, row_height, name, rhos[name])
        top += row_height + 0.16
    return sheet.finish(top)


def _draw_histogram(sheet: Sheet, x: float, top: float, height: float, name: str, rhos: tuple[Tensor, Tensor]) -> None:
    """Draw the distribution of the units' correlations over that of the control, up to the right margin."""
    width = PAGE - MARGIN - x
    units, control = (values[np.isfinite(values)] for values in map(array, rhos))
    reach = max(float(np.abs(units).max(initial=0.1)), float(np.quantile(np.abs(control), 0.99))) * 1.05
    edges = np.linspace(-reach, reach, 32)
    axes = sheet.axes(x, top + 0.2, width, height - 0.36)
    for values, colour, alpha in ((control, CONTROL, 0.75), (units, BLUE, 0.65)):
        shares = np.histogram(values, edges)[0] / max(len(values), 1)
        axes.bar(edges[:-1], shares, width=edges[1] - edges[0], align="edge", color=colour, alpha=alpha)
    bare(axes)
    axes.axvline(0, color=INK, linewidth=0.8)
    low, high = (f"{sign * reach:+.2f}" for sign in (-1, 1))
    ticks: tuple[tuple[float, str, Align], ...] = ((0.0, low, "left"), (0.5, "0", "center"), (1.0, high, "right"))
    for position, text, align in ticks:
        sheet.line(x + position * width, top + height - 0.14, text, size=7.5, colour=QUIET, align=align)
    median, chance = (np.median(np.abs(values)) if len(values) else np.nan for values in (units, control))
    title = f"{name}: median |ρ| {median:.2f}, shifted {chance:.2f}"
    sheet.line(x, top, title, size=9, bold=True)


VARIANCE_ROW = 0.52  # inches


def cluster_variance_bars(shares: Mapping[str, tuple[float, Tensor]], verdict: str, *, claim: str = "motion") -> Figure:
    """Draw one bar per response: share of its variance explained by clusters, and the share with shuffled labels.

    Args:
        shares: by response, η² and its values with shuffled labels, (repeats,): an ``Explained`` without its last item.
        verdict: sentence below the bars; the part before ": " is its heading.
        claim: response whose bar is highlighted.

    Raises:
        ValueError: no response.

    Example:
        >>> import torch
        >>> figure = cluster_variance_bars({"motion": (0.4, torch.rand(9) / 9)}, "not supported here: …")
        >>> figure.savefig("explained.png")  # doctest: +SKIP
    """
    if not shares:
        raise ValueError("shares is empty; expected at least one response: {'motion': (share, shuffled)}.")
    sheet = Sheet()
    top = sheet.heading(
        f"Are the clusters dominated by {claim}?",
        "share of the variance between units that the clusters explain; grey: shuffled labels and their 95 % quantile",
    )
    x, width = MARGIN + 1.1, PAGE - 2 * MARGIN - 1.1
    axes = sheet.axes(x, top, width, VARIANCE_ROW * len(shares))
    largest = min(1.0, 1.3 * max(share for share, _ in shares.values()) + 0.02)
    for i, (name, (share, shuffled)) in enumerate(shares.items()):
        chance, high = float(shuffled.mean()), float(shuffled.double().quantile(0.95))
        axes.barh(i - 0.17, share, height=0.4, color=ORANGE if name == claim else BLUE)
        axes.barh(i + 0.2, chance, height=0.24, color=PALE_CONTROL)
        axes.plot([chance, high], [i + 0.2, i + 0.2], color=INK, linewidth=1.1)
        axes.text(share + 0.008 * largest, i - 0.17, f"{100 * share:.0f} %", fontsize=9, va="center", color=INK)
        text = f"{100 * chance:.0f} % by chance"
        axes.text(max(high, chance) + 0.008 * largest, i + 0.22, text, fontsize=7.5, va="center", color=QUIET)
        sheet.line(x - 0.1, top + VARIANCE_ROW * i + 0.1, name, size=10, bold=name == claim, align="right")
    axes.set_xlim(0, largest)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    bare(axes)
    axes.axvline(0, color=INK, linewidth=1)
    bottom = top + VARIANCE_ROW * len(shares) + 0.1
    title, _, because = verdict.partition(": ")
    bottom = sheet.line(PAGE / 2, bottom, title, size=11, bold=True, align="center")
    return sheet.finish(sheet.paragraph(PAGE / 2, bottom, because, PAGE - 4 * MARGIN, size=9, align="center") + 0.08)


REGION_BARS = (("these regions", BLUE), ("same shapes elsewhere", CONTROL), ("random pixels, same areas", "#cfcfd6"))
REGION_ROW, REGION_GAP = 1.0, 0.2  # inches
REGION_IMAGE = 2.0  # inches, at most


def region_bars(
    variances: Mapping[str, Sequence[Tensor]],
    labels: Mapping[str, Tensor],
    photo: Tensor,
    *,
    layer: str = "layer",
) -> Figure:
    """Draw one row per kind of region: the regions, and the deviation of units from the regions' shares of the area.

    Bars are medians over units of √variance of the preference δ (0 % = as much as the area accounts for), whiskers
    the middle half of the units (of the controls: of all units and repeats). The controls are the regions shifted
    elsewhere, and random pixels.

    Args:
        variances: by kind, (units,), then scattered (repeats, units) and shifted (repeats, units): a ``RegionTest``
            without its first item, ``test[1:]``.
        labels: by kind, (H, W) integers, negative outside of all regions.
        photo: (C, H, W) in [0, 1].
        layer: name of the layer, for the heading.

    Raises:
        ValueError: no kind, kinds without labels, labels of another size than the photo, or no contributions.

    Example:
        >>> one = (torch.rand(9), torch.rand(2, 9), torch.rand(2, 9))
        >>> figure = region_bars({"cells": one}, {"cells": torch.zeros(8, 12).long()}, torch.rand(3, 8, 12))
        >>> figure.savefig("regions.png")  # doctest: +SKIP
    """
    _check_regions(variances, labels, photo)
    image = min(REGION_IMAGE, REGION_ROW * photo.shape[-1] / photo.shape[-2])
    x = MARGIN + REGION_IMAGE + 1.85
    width = PAGE - MARGIN - x - 1.75
    deviations = {
        kind: [_deviation(v) for v in (units, shifted, scattered)]
        for kind, (units, scattered, shifted) in variances.items()
    }
    largest = 1.05 * max(float(torch.nanquantile(d, 0.75)) for ds in deviations.values() for d in ds)
    sheet = Sheet()
    top = sheet.heading(
        f"Which regions the units of {layer} prefer",
        "difference between a unit's contributions in a region and the region's share of the picture; bar: the median "
        "unit, line: the middle half of the units",
    )
    for kind, rows in deviations.items():
        axes = sheet.axes(MARGIN + (REGION_IMAGE - image) / 2, top, image, image * photo.shape[-2] / photo.shape[-1])
        axes.imshow(array(_colour_regions(labels[kind], photo)), interpolation="nearest")
        bare(axes)
        name = f"{kind}, {len(labels[kind][labels[kind] >= 0].unique())} regions"
        below = top + image * photo.shape[-2] / photo.shape[-1] + 0.02
        below = sheet.paragraph(MARGIN + 1.0, below, name, 2.1, size=8.5, bold=True, align="center")
        _draw_medians(sheet.axes(x, top, width, REGION_ROW), rows, largest)
        medians = [float(row.nanmedian()) for row in rows]
        for i, ((label, _), value) in enumerate(zip(REGION_BARS, medians, strict=True)):
            line = top + (i + 0.5) * REGION_ROW / 3 - 0.08
            colour = QUIET if i else INK
            sheet.line(x - 0.08, line, label, size=8, colour=colour, align="right")
            text = f"{100 * value:.3g} %" + (f"   {_factor(medians[0], value)}" if i else "")
            sheet.line(x + width + 0.1, line, text, size=8, colour=colour)
        top = max(top + REGION_ROW, below) + REGION_GAP
    return sheet.finish(top - REGION_GAP / 2)


def _factor(value: float, control: float) -> str:
    return f"(units: {value / control:.1f} × this)" if control > 0 else ""


def _deviation(variances: Tensor) -> Tensor:
    """Return √variance per unit and repeat; a mean over the repeats of a control would follow the few largest."""
    deviation: Tensor = variances.double().cpu().flatten().sqrt()
    return deviation


def _draw_medians(axes: Axes, rows: Sequence[Tensor], largest: float) -> None:
    for i, (row, (_, colour)) in enumerate(zip(rows, REGION_BARS, strict=True)):
        low, median, high = (float(torch.nanquantile(row, q)) for q in (0.25, 0.5, 0.75))
        axes.barh(i, median, height=0.62, color=colour)
        axes.plot([low, high], [i, i], color=INK, linewidth=1.2, solid_capstyle="butt")
    axes.set_xlim(0, largest)
    axes.set_ylim(2.5, -0.5)
    bare(axes)
    axes.axvline(0, color=INK, linewidth=1.2)


def _colour_regions(labels: Tensor, photo: Tensor) -> Tensor:
    """Return an image with one random colour per region; pixels outside of all regions have the grey of the photo."""
    generator = torch.Generator().manual_seed(3)
    palette = 0.25 + 0.7 * torch.rand(int(labels.max()) + 1, 3, generator=generator)
    grey = torch.from_numpy(array(photo)).mean(0).clamp(0, 1)[..., None].expand(*labels.shape, 3)
    image = torch.where((labels.cpu() >= 0)[..., None], palette[labels.cpu().clamp_min(0)], grey)
    return 0.78 * image + 0.22 * grey


def _check_regions(variances: Mapping[str, Sequence[Tensor]], labels: Mapping[str, Tensor], photo: Tensor) -> None:
    if not variances or set(variances) - set(labels):
        raise ValueError(
            f"kinds are {', '.join(variances) or 'none'} and labels for {', '.join(labels) or 'none'}; expected at "
            "least one kind, and labels for each."
        )
    for kind, (units, *_) in variances.items():
        if labels[kind].shape != photo.shape[-2:]:
            raise ValueError(
                f"labels of {kind} have shape {tuple(labels[kind].shape)} for a photo {tuple(photo.shape)}; expected "
                "its (H, W)."
            )
        if not units.isfinite().any():
            raise ValueError(f"variances of {kind} have no finite value; expected at least one unit that contributes.")


PANEL_HEIGHT = 2.5  # inches
MIN_DISTANCE = 0.05  # of the image, or of a pixel: curves no further from their control count as chance


class Spread(NamedTuple):
    """Spread statistics of one layer, each with its control.

    Attributes:
        pixels: (units,), number of pixels at which the unit contributes more than 1/units.
        pixels_control: the same with units shuffled at every pixel.
        running: (units + 1,), share of a pixel that its strongest units add up to.
        running_control: the same with pixels shuffled for every unit.
        needed: (H, W), number of units that add up to 90 % of a pixel.
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
        """Whether units concentrate on their own pixels: the curve of pixels differs from that of shuffled units."""
        curves = [counts.double().sort(descending=True).values for counts in (self.pixels, self.pixels_control)]
        return bool((curves[0] - curves[1]).abs().max() > MIN_DISTANCE * self.needed.numel())

    @property
    def few(self) -> bool:
        """Whether few units add up to each pixel: the running curve is above that of shuffled pixels."""
        return bool((self.running - self.running_control).max() > MIN_DISTANCE)


def spread_curves(layers: Mapping[str, Spread], photo: Tensor) -> Figure:
    """Draw two panels of curves, one colour per layer, controls dashed; below, the number of units per pixel.

    Args:
        layers: by name, the statistics of a layer.
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
        raise ValueError(f"maps of needed units are {shapes} for a photo {tuple(photo.shape)}; expected its (H, W).")
    sheet = Sheet()
    top = sheet.heading(
        "How far units spread, and how many share a pixel",
        "solid: the network; dashed, its control: the same magnitudes with units (left) or pixels (right) shuffled",
    )
    panel = (PAGE - 2 * MARGIN - 0.9) / 2 - 0.25
    lefts = (MARGIN + 0.55, MARGIN + 0.55 + panel + 0.85)
    titles = (
        "pixels where a unit contributes more than average",
        "share of a pixel from its strongest units",
    )
    for x, title in zip(lefts, titles, strict=True):
        sheet.line(x, top, title, size=9.5, bold=True)
    spread, running = (sheet.axes(x, top + 0.24, panel, PANEL_HEIGHT) for x in lefts)
    for i, layer in enumerate(layers.values()):
        colour = LINE_COLOURS[i % len(LINE_COLOURS)]
        for values, style in ((layer.pixels, "-"), (layer.pixels_control, "--")):
            shares = array(values.double().sort(descending=True).values) / (height * width) * 100
            spread.plot(torch.linspace(0, 100, len(shares)).numpy(), shares, style, color=colour)
        for values, style in ((layer.running, "-"), (layer.running_control, "--")):
            running.plot(torch.linspace(0, 100, len(values)).numpy(), 100 * array(values), style, color=colour)
    for share in (50, 90):
        running.axhline(share, color="#d0d0d6", linewidth=0.9, zorder=0)
    _label_axes(spread, "units, from the widest to the narrowest (%)", "of the picture's pixels (%)")
    _label_axes(running, "units counted, the strongest at each pixel first (%)", "of the pixel (%)")
    solid = [line for line in spread.lines if line.get_linestyle() == "-"]
    add_legend(spread, solid, [*layers], fontsize=8.5, frameon=False)
    return sheet.finish(_draw_unit_counts(sheet, layers, photo, top + 0.24 + PANEL_HEIGHT + 0.62))


def _draw_unit_counts(sheet: Sheet, layers: Mapping[str, Spread], photo: Tensor, top: float) -> float:
    """Draw the photo and, per layer, the number of units per pixel; return the bottom."""
    columns = min(len(layers) + 1, 4)
    width = min((PAGE - 2 * MARGIN - (columns - 1) * 0.12) / columns, 2.6)
    height = width * photo.shape[-2] / photo.shape[-1]
    start = (PAGE - columns * width - (columns - 1) * 0.12) / 2
    title = "number of units that add up to 90 % of a pixel; bright: many (one scale per layer)"
    top = sheet.line(PAGE / 2, top, title, size=9.5, bold=True, align="center") + 0.05
    for i, name in enumerate(["", *layers]):
        row, column = divmod(i, columns)
        x, line = start + column * (width + 0.12), top + row * (height + 0.42)
        axes = sheet.axes(x, line, width, height)
        bare(axes)
        below, middle = line + height + 0.03, x + width / 2
        if not i:
            draw_photo(axes, photo)
            sheet.paragraph(middle, below, "the picture", width, size=8.5, align="center")
            continue
        layer = layers[name]
        axes.imshow(array(layer.needed), cmap="viridis", interpolation="nearest")
        median, control = (float(values.double().median()) for values in (layer.needed, layer.needed_control))
        text = f"{name}: {median:.0f} of {len(layer.pixels)}"
        below = sheet.paragraph(middle, below, text, width, size=8.5, align="center")
        text = f"pixels shuffled: {control:.0f}"
        sheet.paragraph(middle, below, text, width, size=8, colour=QUIET, align="center")
    return top + (len(layers) // columns + 1) * (height + 0.42) + 0.06


def _label_axes(axes: Axes, below: str, beside: str) -> None:
    axes.set_xlabel(below, fontsize=8.5, color=INK)
    axes.set_ylabel(beside, fontsize=8.5, color=INK)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, None)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
