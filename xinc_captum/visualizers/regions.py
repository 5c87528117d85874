"""A picture of regions: how much more a unit paints in some than in others, with both controls beside it."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, QUIET, array, bare
from .sheet import MARGIN, PAGE, Sheet

FOUND, ELSEWHERE, RANDOM = "#1f5fa8", "#9a9aa2", "#cfcfd6"
BARS = (("these regions", FOUND), ("same shapes elsewhere", ELSEWHERE), ("random pixels, same areas", RANDOM))
ROW, GAP = 1.0, 0.2  # inches


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
    shown = min(2.0, ROW * width / height)
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
        bars = sheet.axes(left, top, across, ROW)
        _bars(bars, (found, shifted, scattered), furthest)
        middle = [float(d.nanmedian()) for d in (found, shifted, scattered)]
        for i, ((words, colour), value) in enumerate(zip(BARS, middle, strict=True)):
            line = top + (i + 0.5) * ROW / 3 - 0.08
            sheet.line(left - 0.08, line, words, size=8, colour=INK if colour == FOUND else QUIET, align="right")
            says = f"{100 * value:.3g} %" + ("" if i == 0 else f"   {_times(middle[0], value)}")
            sheet.line(left + across + 0.1, line, says, size=8, colour=INK if i == 0 else QUIET)
        top = max(top + ROW, below) + GAP
    return sheet.done(top - GAP / 2)


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
                f"labels of {kind} have shape {tuple(labels[kind].shape)} for a photo {tuple(photo.shape)}; wanted its "
                "(H, W)."
            )
        if not found.isfinite().any():
            raise ValueError(f"{kind}: no unit paints anything, so there is nothing to show.")
