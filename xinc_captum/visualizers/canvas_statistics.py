"""Association, regions, spread, explained."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .accentuation import COLOURS
from .layout import MARGIN, PAGE, Sheet
from .style import HEAT, INK, QUIET, array, bare, draw_photo, legend_of

ASSOCIATION_GAP = 0.1


def association_rows(
    photo: Tensor,
    total: Tensor,
    fields: Mapping[str, Tensor],
    rhos: Mapping[str, tuple[Tensor, Tensor]],
    *,
    layer: str = "layer",
) -> Figure:
    """One row a field: the field beside what the layer paints, and the units' rank correlations beside the control's.

    Args:
        photo: (C, H, W) in [0, 1].
        total: (H, W), what all units paint together.
        fields: by name, (H, W), for example intensity and edges.
        rhos: by name, (units,) and the control's (repeats, units): an ``Association``.
        layer: its name, for the heading.

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
    cell = 1.72
    tall = cell * size[0] / size[1]
    high = max(tall, 1.15)
    sheet = Sheet()
    top = sheet.heading(
        f"Do the units of {layer} follow the picture's intensity or its edges?",
        "right: each unit's rank correlation with the field (blue) and with the same field rolled elsewhere (grey)",
    )
    places = [MARGIN + i * (cell + ASSOCIATION_GAP) for i in range(3)]
    for left, word in zip(places, ("the picture", "all units' paint", "the field"), strict=True):
        sheet.line(left + cell / 2, top, word, size=9, align="center")
    top += 0.2
    left, across = places[-1] + cell + 0.3, PAGE - MARGIN - places[-1] - cell - 0.3
    for name, field in fields.items():
        for place, values in zip(places, (None, total, field), strict=True):
            axes = sheet.axes(place, top, cell, tall)
            bare(axes)
            if values is None:
                draw_photo(axes, photo)
            else:
                axes.imshow(array(values), cmap="gray" if values is field else HEAT, interpolation="nearest")
        found, control = (array(rho) for rho in rhos[name])
        found, control = found[np.isfinite(found)], control[np.isfinite(control)]
        reach = max(float(np.abs(found).max(initial=0.1)), float(np.quantile(np.abs(control), 0.99))) * 1.05
        edges = np.linspace(-reach, reach, 32)
        axes = sheet.axes(left, top + 0.2, across, high - 0.36)
        for rho, colour, opaque in ((control, "#9a9aa2", 0.75), (found, "#1f5fa8", 0.65)):
            heights = np.histogram(rho, edges)[0] / max(len(rho), 1)
            axes.bar(edges[:-1], heights, width=edges[1] - edges[0], align="edge", color=colour, alpha=opaque)
        bare(axes)
        axes.axvline(0, color=INK, linewidth=0.8)
        low, top_number = (f"{sign * reach:+.2f}" for sign in (-1, 1))
        for part, words, align in ((0.0, low, "left"), (0.5, "0", "center"), (1.0, top_number, "right")):
            sheet.line(left + part * across, top + high - 0.14, words, size=7.5, colour=QUIET, align=align)  # type: ignore[arg-type]
        middle, chance = (np.median(np.abs(rho)) if len(rho) else np.nan for rho in (found, control))
        says = f"{name}: median |ρ| {middle:.2f}, elsewhere {chance:.2f}"
        sheet.line(left, top, says, size=9, bold=True)
        top += high + 0.16
    return sheet.finish(top)


EXPLAINED_ROW = 0.52


def cluster_variance_bars(found: Mapping[str, tuple[float, Tensor]], verdict: str, *, claim: str = "motion") -> Figure:
    """One bar a response: the share of its variance that clusters explain, and what shuffled labels explain.

    Args:
        found: by response, η² and the same with shuffled labels, (repeats,): an ``Explained`` without its last item.
        verdict: one sentence, said below.
        claim: the response whose bar stands out.

    Raises:
        ValueError: no response.

    Example:
        >>> import torch
        >>> figure = cluster_variance_bars({"motion": (0.4, torch.rand(9) / 9)}, "not supported here: …")
        >>> figure.savefig("explained.png")  # doctest: +SKIP
    """
    if not found:
        raise ValueError("found is empty; give at least one response: {'motion': (share, shuffled)}.")
    sheet = Sheet()
    top = sheet.heading(
        f"Are the clusters dominated by {claim}?",
        "share of the variance between units that their cluster explains; grey: shuffled labels, the line their 95 %",
    )
    left, across = MARGIN + 1.1, PAGE - 2 * MARGIN - 1.1
    axes = sheet.axes(left, top, across, EXPLAINED_ROW * len(found))
    furthest = min(1.0, 1.3 * max(share for share, _ in found.values()) + 0.02)
    for i, (name, (share, shuffled)) in enumerate(found.items()):
        chance, high = float(shuffled.mean()), float(shuffled.double().quantile(0.95))
        axes.barh(i - 0.17, share, height=0.4, color="#c4561a" if name == claim else "#1f5fa8")
        axes.barh(i + 0.2, chance, height=0.24, color="#b5b5bd")
        axes.plot([chance, high], [i + 0.2, i + 0.2], color=INK, linewidth=1.1)
        axes.text(share + 0.008 * furthest, i - 0.17, f"{100 * share:.0f} %", fontsize=9, va="center", color=INK)
        words = f"{100 * chance:.0f} % by chance"
        axes.text(max(high, chance) + 0.008 * furthest, i + 0.22, words, fontsize=7.5, va="center", color=QUIET)
        sheet.line(left - 0.1, top + EXPLAINED_ROW * i + 0.1, name, size=10, bold=name == claim, align="right")
    axes.set_xlim(0, furthest)
    axes.set_ylim(len(found) - 0.5, -0.5)
    bare(axes)
    axes.axvline(0, color=INK, linewidth=1)
    bottom = top + EXPLAINED_ROW * len(found) + 0.1
    answer, _, because = verdict.partition(": ")
    bottom = sheet.line(PAGE / 2, bottom, answer, size=11, bold=True, align="center")
    return sheet.finish(sheet.paragraph(PAGE / 2, bottom, because, PAGE - 4 * MARGIN, size=9, align="center") + 0.08)


FOUND, ELSEWHERE, RANDOM = "#1f5fa8", "#9a9aa2", "#cfcfd6"
BARS = (("these regions", FOUND), ("same shapes elsewhere", ELSEWHERE), ("random pixels, same areas", RANDOM))
REGION_ROW, REGION_GAP = 1.0, 0.2  # inches


def region_bars(
    variances: Mapping[str, Sequence[Tensor]],
    labels: Mapping[str, Tensor],
    photo: Tensor,
    *,
    layer: str = "layer",
) -> Figure:
    """One row for each kind of region: what it looks like, and how far units deviate from their share of its area.

    Bars are medians over units of √variance of the preference δ (0 % = as much as the area accounts for), whiskers
    the middle half of the units (of the controls: of all units and repeats). Beside them the same for the
    regions rolled elsewhere and for random pixels.

    Args:
        variances: by kind, (units,), then scattered (repeats, units) and shifted (repeats, units): a ``RegionTest``
            without its first item, ``test[1:]``.
        labels: by kind, (H, W) integers, negative outside of all regions.
        photo: (C, H, W) in [0, 1].
        layer: its name, for the heading.

    Raises:
        ValueError: no kind, kinds without labels, labels of another size than the photo, or no unit that paints.

    Example:
        >>> one = (torch.rand(9), torch.rand(2, 9), torch.rand(2, 9))
        >>> figure = region_bars({"cells": one}, {"cells": torch.zeros(8, 12).long()}, torch.rand(3, 8, 12))
        >>> figure.savefig("regions.png")  # doctest: +SKIP
    """
    _check(variances, labels, photo)
    height, width = photo.shape[-2:]
    shown = min(2.0, REGION_ROW * width / height)
    left = MARGIN + 2.0 + 1.85
    across = PAGE - MARGIN - left - 1.75
    deviations = {kind: [_deviation(v) for v in (one[0], one[2], one[1])] for kind, one in variances.items()}
    furthest = 1.05 * max(float(torch.nanquantile(d, 0.75)) for ds in deviations.values() for d in ds)
    sheet = Sheet()
    top = sheet.heading(
        f"Which regions the units of {layer} care about",
        "how far a unit's paint in a region is from the region's share of the picture; bar: the median unit, line: the "
        "middle half of the units",
    )
    for kind, (found, shifted, scattered) in deviations.items():
        axes = sheet.axes(MARGIN + (2.0 - shown) / 2, top, shown, shown * height / width)
        axes.imshow(array(_coloured(labels[kind], photo)), interpolation="nearest")
        bare(axes)
        name = f"{kind}, {len(labels[kind][labels[kind] >= 0].unique())} regions"
        below = top + shown * height / width + 0.02
        below = sheet.paragraph(MARGIN + 1.0, below, name, 2.1, size=8.5, bold=True, align="center")
        bars = sheet.axes(left, top, across, REGION_ROW)
        _bars(bars, (found, shifted, scattered), furthest)
        middle = [float(d.nanmedian()) for d in (found, shifted, scattered)]
        for i, ((words, colour), value) in enumerate(zip(BARS, middle, strict=True)):
            line = top + (i + 0.5) * REGION_ROW / 3 - 0.08
            sheet.line(left - 0.08, line, words, size=8, colour=INK if colour == FOUND else QUIET, align="right")
            says = f"{100 * value:.3g} %" + ("" if i == 0 else f"   {_times(middle[0], value)}")
            sheet.line(left + across + 0.1, line, says, size=8, colour=INK if i == 0 else QUIET)
        top = max(top + REGION_ROW, below) + REGION_GAP
    return sheet.finish(top - REGION_GAP / 2)


def _times(value: float, control: float) -> str:
    return f"(found: {value / control:.1f} × this)" if control > 0 else ""


def _deviation(variances: Tensor) -> Tensor:
    """√variance for every unit, and every repeat of a control: means over repeats would follow the few largest."""
    deviation: Tensor = variances.double().cpu().flatten().sqrt()
    return deviation


def _bars(axes: Axes, rows: Sequence[Tensor], furthest: float) -> None:
    for i, (row, (_, colour)) in enumerate(zip(rows, BARS, strict=True)):
        low, middle, high = (float(torch.nanquantile(row, q)) for q in (0.25, 0.5, 0.75))
        axes.barh(i, middle, height=0.62, color=colour)
        axes.plot([low, high], [i, i], color=INK, linewidth=1.2, solid_capstyle="butt")
    axes.set_xlim(0, furthest)
    axes.set_ylim(2.5, -0.5)
    bare(axes)
    axes.axvline(0, color=INK, linewidth=1.2)


def _coloured(labels: Tensor, photo: Tensor) -> Tensor:
    """Every region in a colour of its own that is told from its neighbours', object-free pixels in the photo's grey."""
    generator = torch.Generator().manual_seed(3)
    palette = 0.25 + 0.7 * torch.rand(int(labels.max()) + 1, 3, generator=generator)
    grey = torch.from_numpy(array(photo)).mean(0).clamp(0, 1)[..., None].expand(*labels.shape, 3)
    picture = torch.where((labels.cpu() >= 0)[..., None], palette[labels.cpu().clamp_min(0)], grey)
    return 0.78 * picture + 0.22 * grey


def _check(variances: Mapping[str, Sequence[Tensor]], labels: Mapping[str, Tensor], photo: Tensor) -> None:
    if not variances or set(variances) - set(labels):
        raise ValueError(f"kinds are {', '.join(variances) or 'none'} and labels for {', '.join(labels) or 'none'}.")
    for kind, (found, *_) in variances.items():
        if labels[kind].shape != photo.shape[-2:]:
            raise ValueError(
                f"labels of {kind} have shape {tuple(labels[kind].shape)} for a photo {tuple(photo.shape)}; "
                "expected its "
                "(H, W)."
            )
        if not found.isfinite().any():
            raise ValueError(f"{kind}: no unit paints anything, so there is nothing to show.")


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
        raise ValueError(f"maps of needed units are {shapes} for a photo {tuple(photo.shape)}; expected its (H, W).")
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
    return sheet.finish(_maps(sheet, layers, photo, top + 0.24 + TALL + 0.62))


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
