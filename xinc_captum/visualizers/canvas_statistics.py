"""Figures of canvas statistics: association with image fields, clusters of units, regions, and spread."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import (
    Align,
    Sheet,
    add_legend,
    array,
    bar_axes,
    bare,
    check_axes,
    draw_map,
    draw_photo,
    frame,
)
from .style import BLUE, CONTROL, HEAT, IMAGE_GAP, INK, LINE_COLOURS, MARGIN, ORANGE, PAGE, PALE_CONTROL, QUIET

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

    Example:
        >>> field, rho = torch.rand(8, 12), (torch.rand(5), torch.rand(9, 5))
        >>> figure = association_rows(torch.rand(3, 8, 12), field, {"edges": field}, {"edges": rho})
    """
    if not fields or set(fields) - set(rhos):
        raise ValueError(f"got fields {list(fields)} and correlations of {list(rhos)}; expected one of each, or more.")
    maps = {f"field {name}": (field, "H, W") for name, field in fields.items()}
    check_axes(photo=(photo, "C, H, W"), total=(total, "H, W"), **maps)
    height = FIELD_WIDTH * photo.shape[1] / photo.shape[2]
    row_height = max(height, 1.15)
    sheet = Sheet()
    how = "right: rank correlation of each unit with the field (blue) and with the shifted field (grey)"
    top = sheet.heading(f"Do the units of {layer} follow the picture's intensity or its edges?", how)
    lefts = [MARGIN + i * (FIELD_WIDTH + FIELD_GAP) for i in range(3)]
    for x, title in zip(lefts, ("the picture", "all units together", "the field"), strict=True):
        sheet.line(x + FIELD_WIDTH / 2, top, title, size=9, align="center")
    top += 0.2
    for name, field in fields.items():
        cells = [sheet.axes(x, top, FIELD_WIDTH, height) for x in lefts]
        draw_photo(cells[0], photo)
        draw_map(cells[1], total, HEAT)
        draw_map(cells[2], field, "gray")
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
    sheet.line(x, top, f"{name}: median |ρ| {median:.2f}, shifted {chance:.2f}", bold=True)


CLUSTER_COLOURS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#77aadd", "#999933", "#555555",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P")
LEGEND_COLUMNS = 3
CLUSTER_LABEL = 1.5  # inches left of the maps


def cluster_sheet(
    maps: Tensor,
    labels: Tensor,
    photo: Tensor,
    *,
    sources: Sequence[str],
    units: Tensor | None = None,
    positions: Tensor | None = None,
    facts: Mapping[str, tuple[float, float]] | None = None,
    members: int = 5,
) -> Figure:
    """Draw one row per cluster: its size, its sources, its mean map, and the maps of its most typical members.

    Above: a scatter plot of the units, and scores with their controls.

    Args:
        maps: (units, H, W), >= 0, contribution magnitude of each unit; every map has its own scale.
        labels: (units,), cluster numbers from 0.
        photo: (C, h, w) in [0, 1], of any size.
        sources: source of each unit: its layer, seed or network.
        units: (units,), unit numbers within their source; None uses the position in ``maps``.
        positions: (units, 2), positions in the scatter plot, for example of UMAP; None draws none.
        facts: by name, a score from 0 to 1 and that of its control.
        members: number of members per row, at most.

    Example:
        >>> maps, labels = torch.rand(6, 8, 12), torch.tensor([0, 0, 0, 1, 1, 1])
        >>> figure = cluster_sheet(maps, labels, torch.rand(3, 8, 12), sources=["h1"] * 6)
    """
    check_axes(
        maps=(maps, "units, H, W"), labels=(labels, "units"), sources=(sources, "units"), units=(units, "units"),
        positions=(positions, "units, 2"),
    )  # fmt: skip
    clusters = labels.unique().tolist()
    sheet = Sheet()
    how = "each row: the mean map of a cluster and its members closest to that mean; each map has its own scale"
    top = sheet.heading(f"{len(maps)} units in {len(clusters)} clusters, by where they contribute", how)
    x, bottom = MARGIN, top  # above: the scatter plot at the left, photo and scores at the right
    if positions is not None:
        sheet.line(MARGIN + 1.9, top, "UMAP (for orientation only)", size=9, bold=True, align="center")
        _scatter(sheet.axes(MARGIN, top + 0.22, 3.8, 2.5), labels, sources, positions)
        lines = -(-len(set(sources)) // LEGEND_COLUMNS) if len(set(sources)) > 1 else 0
        x, bottom = MARGIN + 4.1, top + 2.72 + 0.19 * lines
    width = min(1.15 * photo.shape[-1] / photo.shape[-2], 2.4)
    height = width * photo.shape[-2] / photo.shape[-1]
    draw_photo(sheet.axes(x, top, width, height), photo)
    line = top + height + 0.12
    for name, (value, control) in (facts or {}).items():
        line = sheet.paragraph(x, line, name, PAGE - MARGIN - x, size=8.5) + 0.03
        axes = sheet.axes(x, line, PAGE - MARGIN - x, 0.3)
        bar_axes(axes, 2, min(0.0, value, control), 1.25)
        axes.barh([0, 1], [value, control], height=0.78, color=[BLUE, PALE_CONTROL])
        for i, (score, suffix) in enumerate(((value, ""), (control, " shuffled"))):
            colour = QUIET if i else INK
            axes.text(max(score, 0) + 0.015, i, f"{score:.2f}{suffix}", fontsize=8, va="center", color=colour)
        line += 0.4
    top = max(bottom, line) + 0.1
    numbers = torch.arange(len(maps)) if units is None else units
    columns = members + 1
    cell = (PAGE - 2 * MARGIN - CLUSTER_LABEL - columns * IMAGE_GAP) / columns
    height = cell * maps.shape[1] / maps.shape[2]
    for cluster in clusters:
        indices = (labels == cluster).nonzero()[:, 0]
        unit = maps[indices].double()
        unit = unit / unit.sum((1, 2), keepdim=True).clamp_min(1e-300)
        mean = unit.mean(0)
        typical = indices[(unit - mean).flatten(1).norm(dim=1).argsort()][:members].tolist()
        colour = CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)]
        title = f"cluster {cluster}: {len(indices)} unit{'s' if len(indices) > 1 else ''}"
        line = sheet.line(MARGIN, top, title, size=9, bold=True, colour=colour)
        counts = {s: sum(sources[m] == s for m in indices.tolist()) for s in dict.fromkeys(sources)}
        for source, count in sorted(counts.items(), key=lambda entry: -entry[1])[:5]:
            if count:
                text = f"{count} of {source}"
                line = sheet.paragraph(MARGIN, line, text, CLUSTER_LABEL - 0.1, size=7.5, colour=QUIET)
        for i, values in enumerate([mean, *[maps[m] for m in typical]]):
            x = MARGIN + CLUSTER_LABEL + i * (cell + IMAGE_GAP)
            limit = float(values.double().flatten().quantile(0.99)) or 1.0
            draw_map(sheet.axes(x, top, cell, height), values, HEAT, vmin=0, vmax=limit)
            text = "mean" if not i else f"{sources[typical[i - 1]]}, unit {int(numbers[typical[i - 1]])}"
            middle, below = x + cell / 2, top + height + 0.02
            below = sheet.paragraph(middle, below, text, cell, size=7.5, colour=QUIET, align="center")
            line = max(line, below)
        top = line + 0.1
    return sheet.finish(top)


def _scatter(axes: Axes, labels: Tensor, sources: Sequence[str], positions: Tensor) -> None:
    points = array(positions)
    names, handles = [*dict.fromkeys(sources)], []
    for i, source in enumerate(names):
        indices = [n for n, s in enumerate(sources) if s == source]
        colours = [CLUSTER_COLOURS[int(labels[n]) % len(CLUSTER_COLOURS)] for n in indices]
        marker = MARKERS[i % len(MARKERS)]
        axes.scatter(points[indices, 0], points[indices, 1], c=colours, s=17, marker=marker, linewidths=0)
        handles.append(axes.scatter([], [], c=QUIET, s=17, marker=marker))
    frame(axes)
    if len(names) > 1:
        add_legend(
            axes,
            handles,
            names,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.02),
            ncols=min(LEGEND_COLUMNS, len(names)),
            fontsize=7.5,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.0,
        )


VARIANCE_ROW = 0.52  # inches


def cluster_variance_bars(shares: Mapping[str, tuple[float, Tensor]], verdict: str, *, claim: str = "motion") -> Figure:
    """Draw one bar per response: share of its variance explained by clusters, and the share with shuffled labels.

    Args:
        shares: by response, η² and its values with shuffled labels, (repeats,): an ``Explained`` without its last item.
        verdict: sentence below the bars; the part before ": " is its heading.
        claim: response whose bar is highlighted.

    Example:
        >>> figure = cluster_variance_bars({"motion": (0.4, torch.rand(9) / 9)}, "not supported here: …")
    """
    if not shares:
        raise ValueError("shares is empty; expected at least one response: {'motion': (share, shuffled)}.")
    sheet = Sheet()
    how = "share of the variance between units that the clusters explain; grey: shuffled labels and their 95 % quantile"
    top = sheet.heading(f"Are the clusters dominated by {claim}?", how)
    x, width = MARGIN + 1.1, PAGE - 2 * MARGIN - 1.1
    axes = sheet.axes(x, top, width, VARIANCE_ROW * len(shares))
    largest = min(1.0, 1.3 * max(share for share, _ in shares.values()) + 0.02)
    bar_axes(axes, len(shares), 0, largest)
    for i, (name, (share, shuffled)) in enumerate(shares.items()):
        chance, high = float(shuffled.mean()), float(shuffled.double().quantile(0.95))
        axes.barh(i - 0.17, share, height=0.4, color=ORANGE if name == claim else BLUE)
        axes.barh(i + 0.2, chance, height=0.24, color=PALE_CONTROL)
        axes.plot([chance, high], [i + 0.2, i + 0.2], color=INK, linewidth=1.1)
        axes.text(share + 0.008 * largest, i - 0.17, f"{100 * share:.0f} %", fontsize=9, va="center", color=INK)
        text = f"{100 * chance:.0f} % by chance"
        axes.text(max(high, chance) + 0.008 * largest, i + 0.22, text, fontsize=7.5, va="center", color=QUIET)
        sheet.line(x - 0.1, top + VARIANCE_ROW * i + 0.1, name, size=10, bold=name == claim, align="right")
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

    The deviation of a unit is √variance, over regions, of its preference δ (0: as much as the region's area predicts,
    1: twice as much). Bars are medians over units, whiskers the middle half of the units (of the controls: of all units
    and repeats). The controls are the regions shifted elsewhere, and random pixels.

    Args:
        variances: by kind, those of δ, (units,), of random pixels and of shifted regions, (repeats, units) each: a
            ``RegionTest`` without its first item, ``test[1:]``.
        labels: by kind, (H, W) integers, negative outside of all regions.
        photo: (C, H, W) in [0, 1].
        layer: name of the layer, for the heading.

    Example:
        >>> one = (torch.rand(9), torch.rand(2, 9), torch.rand(2, 9))
        >>> figure = region_bars({"cells": one}, {"cells": torch.zeros(8, 12).long()}, torch.rand(3, 8, 12))
    """
    if not variances or set(variances) - set(labels):
        raise ValueError(
            f"kinds are {', '.join(variances) or 'none'} and labels for {', '.join(labels) or 'none'}; expected at "
            "least one kind, and labels for each."
        )
    check_axes(photo=(photo, "C, H, W"), **{f"labels of {kind}": (labels[kind], "H, W") for kind in variances})
    empty = [kind for kind, (units, *_) in variances.items() if not units.isfinite().any()]
    if empty:
        raise ValueError(f"variances of {empty[0]} have no finite value; expected at least one unit that contributes.")
    image = min(REGION_IMAGE, REGION_ROW * photo.shape[-1] / photo.shape[-2])
    height = image * photo.shape[-2] / photo.shape[-1]
    x = MARGIN + REGION_IMAGE + 1.85
    width = PAGE - MARGIN - x - 1.75
    deviations = {  # √variance per unit and repeat; a mean over the repeats of a control would follow the few largest
        kind: [values.double().cpu().flatten().sqrt() for values in (units, shifted, scattered)]
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
        axes = sheet.axes(MARGIN + (REGION_IMAGE - image) / 2, top, image, height)
        draw_map(axes, _colour_regions(labels[kind], photo))
        name = f"{kind}, {len(labels[kind][labels[kind] >= 0].unique())} regions"
        below = sheet.paragraph(MARGIN + 1.0, top + height + 0.02, name, 2.1, size=8.5, bold=True, align="center")
        axes = sheet.axes(x, top, width, REGION_ROW)
        bar_axes(axes, len(REGION_BARS), 0, largest, zero=1.2)
        first = float(rows[0].nanmedian())
        for i, ((label, bar_colour), row) in enumerate(zip(REGION_BARS, rows, strict=True)):
            low, median, high = (float(torch.nanquantile(row, q)) for q in (0.25, 0.5, 0.75))
            axes.barh(i, median, height=0.62, color=bar_colour)
            axes.plot([low, high], [i, i], color=INK, linewidth=1.2, solid_capstyle="butt")
            line, colour, value = top + (i + 0.5) * REGION_ROW / 3 - 0.08, QUIET if i else INK, float(row.nanmedian())
            sheet.line(x - 0.08, line, label, size=8, colour=colour, align="right")
            factor = f"   (units: {first / value:.1f} × this)" if i and value > 0 else ""
            sheet.line(x + width + 0.1, line, f"{100 * value:.3g} %{factor}", size=8, colour=colour)
        top = max(top + REGION_ROW, below) + REGION_GAP
    return sheet.finish(top - REGION_GAP / 2)


def _colour_regions(labels: Tensor, photo: Tensor) -> Tensor:
    """Return an image with one random colour per region; pixels outside of all regions have the grey of the photo."""
    generator = torch.Generator().manual_seed(3)
    palette = 0.25 + 0.7 * torch.rand(int(labels.max()) + 1, 3, generator=generator)
    grey = torch.from_numpy(array(photo)).mean(0).clamp(0, 1)[..., None].expand(*labels.shape, 3)
    image = torch.where((labels.cpu() >= 0)[..., None], palette[labels.cpu().clamp_min(0)], grey)
    return 0.78 * image + 0.22 * grey


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

    Example:
        >>> pixels, running, needed = torch.arange(5), torch.linspace(0, 1, 6), torch.ones(8, 12)
        >>> one = Spread(pixels, pixels, running, running, needed, needed)
        >>> figure = spread_curves({"layer1": one}, torch.rand(3, 8, 12))
    """
    if not layers:
        raise ValueError("layers is empty; expected the statistics of at least one layer.")
    check_axes(photo=(photo, "C, H, W"), **{f"{name}.needed": (one.needed, "H, W") for name, one in layers.items()})
    sheet = Sheet()
    how = "solid: the network; dashed, its control: the same magnitudes with units (left) or pixels (right) shuffled"
    top = sheet.heading("How far units spread, and how many share a pixel", how)
    panel = (PAGE - 2 * MARGIN - 0.9) / 2 - 0.25
    lefts = (MARGIN + 0.55, MARGIN + 0.55 + panel + 0.85)
    sheet.line(lefts[0], top, "pixels where a unit contributes more than average", size=9.5, bold=True)
    sheet.line(lefts[1], top, "share of a pixel from its strongest units", size=9.5, bold=True)
    spread, running = (sheet.axes(x, top + 0.24, panel, PANEL_HEIGHT) for x in lefts)
    for i, layer in enumerate(layers.values()):
        colour = LINE_COLOURS[i % len(LINE_COLOURS)]
        for values, style in ((layer.pixels, "-"), (layer.pixels_control, "--")):
            shares = array(values.double().sort(descending=True).values) / layer.needed.numel() * 100
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
        below, middle = line + height + 0.03, x + width / 2
        if not i:
            draw_photo(axes, photo)
            sheet.paragraph(middle, below, "the picture", width, size=8.5, align="center")
            continue
        layer = layers[name]
        draw_map(axes, layer.needed, "viridis")
        text = f"{name}: {float(layer.needed.double().median()):.0f} of {len(layer.pixels)}"
        below = sheet.paragraph(middle, below, text, width, size=8.5, align="center")
        text = f"pixels shuffled: {float(layer.needed_control.double().median()):.0f}"
        sheet.paragraph(middle, below, text, width, size=8, colour=QUIET, align="center")
    return top + (len(layers) // columns + 1) * (height + 0.42) + 0.06


def _label_axes(axes: Axes, below: str, beside: str) -> None:
    axes.set_xlabel(below, fontsize=8.5, color=INK)
    axes.set_ylabel(beside, fontsize=8.5, color=INK)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, None)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
