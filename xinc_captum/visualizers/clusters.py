"""A picture of clusters: their mean maps, the canvases of some members, and how far to believe them."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import MARGIN, PAGE, Sheet
from .style import (
    HEAT,
    INK,
    QUIET,
    array,
    bare,
    draw_photo,
    legend_of,
)

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#77aadd", "#999933", "#555555")
MARKS = ("o", "s", "^", "D", "v", "P")
GAP = 0.07
LEGEND = 3  # sources a line


def cluster_sheet(
    maps: Tensor,
    labels: Tensor,
    photo: Tensor,
    *,
    sources: Sequence[str],
    units: Tensor | None = None,
    positions: Tensor | None = None,
    facts: Mapping[str, tuple[float, float]] | None = None,
    shown: int = 5,
) -> Figure:
    """One row a cluster: how many units from where, its mean map, and the canvases of its most typical members.

    Above: the units as UMAP lays them out (only to look at), and measured facts, each beside its control.

    Args:
        maps: (units, H, W), >= 0, how much each unit paints; every map is shown on its own scale.
        labels: (units,), clusters from 0.
        photo: (C, h, w) in [0, 1], of any size.
        sources: a word for each unit: its layer, seed or network.
        units: (units,), their numbers within their source; None: their places in ``maps``.
        positions: (units, 2), or None for no such panel.
        facts: by name, a value from 0 to 1 and its control's.
        shown: at most so many members a row.

    Raises:
        ValueError: another number of labels, sources, units or positions than maps.

    Example:
        >>> maps, labels = torch.rand(6, 8, 12), torch.tensor([0, 0, 0, 1, 1, 1])
        >>> figure = cluster_sheet(maps, labels, torch.rand(3, 8, 12), sources=["h1"] * 6)
        >>> figure.savefig("clusters.png")  # doctest: +SKIP
    """
    counts = {
        "labels": len(labels),
        "sources": len(sources),
        "units": len(maps if units is None else units),
        "positions": len(maps if positions is None else positions),
    }
    wrong = [name for name, count in counts.items() if count != len(maps)]
    if maps.dim() != 3 or wrong:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)} and {counts}; expected (units, H, W) and one of each a unit."
        )
    clusters = labels.unique().tolist()
    sheet = Sheet()
    top = sheet.heading(
        f"{len(maps)} units in {len(clusters)} clusters, by where they paint",
        "each row: the mean map of a cluster, then its members closest to that mean, bright: much paint, own scales",
    )
    top = _above(sheet, top, photo, labels, sources, positions, facts or {})
    numbers = torch.arange(len(maps)) if units is None else units
    columns = shown + 1
    said = 1.5
    cell = (PAGE - 2 * MARGIN - said - columns * GAP) / columns
    tall = cell * maps.shape[1] / maps.shape[2]
    for cluster in clusters:
        members = (labels == cluster).nonzero()[:, 0]
        unit = maps[members].double()
        unit = unit / unit.sum((1, 2), keepdim=True).clamp_min(1e-300)
        mean = unit.mean(0)
        typical = members[(unit - mean).flatten(1).norm(dim=1).argsort()][:shown].tolist()
        colour = COLOURS[cluster % len(COLOURS)]
        said_first = f"cluster {cluster}: {len(members)} unit{'s' if len(members) > 1 else ''}"
        line = sheet.line(MARGIN, top, said_first, size=9, bold=True, colour=colour)
        counted = {s: sum(sources[m] == s for m in members.tolist()) for s in dict.fromkeys(sources)}
        for source, count in sorted(counted.items(), key=lambda one: -one[1])[:5]:
            if count:
                line = sheet.paragraph(MARGIN, line, f"{count} of {source}", said - 0.1, size=7.5, colour=QUIET)
        for i, values in enumerate([mean, *[maps[m] for m in typical]]):
            left = MARGIN + said + i * (cell + GAP)
            axes = sheet.axes(left, top, cell, tall)
            axes.imshow(array(values), cmap=HEAT, vmin=0, vmax=_bright(values), interpolation="nearest")
            bare(axes)
            words = "mean" if not i else f"{sources[typical[i - 1]]}, unit {int(numbers[typical[i - 1]])}"
            below = sheet.paragraph(
                left + cell / 2, top + tall + 0.02, words, cell, size=7.5, colour=QUIET, align="center"
            )
            line = max(line, below)
        top = line + 0.1
    return sheet.finish(top)


def _above(
    sheet: Sheet,
    top: float,
    photo: Tensor,
    labels: Tensor,
    sources: Sequence[str],
    positions: Tensor | None,
    facts: Mapping[str, tuple[float, float]],
) -> float:
    """The scatter on the left, the picture and the facts on the right; answers where the rows may begin."""
    left, bottom = MARGIN, top
    if positions is not None:
        sheet.line(MARGIN + 1.9, top, "UMAP, only to look at", size=9, bold=True, align="center")
        _scatter(sheet.axes(MARGIN, top + 0.22, 3.8, 2.5), labels, sources, positions)
        lines = -(-len(set(sources)) // LEGEND) if len(set(sources)) > 1 else 0
        left, bottom = MARGIN + 4.1, top + 2.72 + 0.19 * lines
    tall = 1.15
    wide = min(tall * photo.shape[-1] / photo.shape[-2], 2.4)
    axes = sheet.axes(left, top, wide, wide * photo.shape[-2] / photo.shape[-1])
    draw_photo(axes, photo)
    bare(axes)
    here = top + wide * photo.shape[-2] / photo.shape[-1] + 0.12
    for name, (value, control) in facts.items():
        across = PAGE - MARGIN - left
        here = sheet.paragraph(left, here, name, across, size=8.5) + 0.03
        axes = sheet.axes(left, here, across, 0.3)
        axes.barh([0, 1], [value, control], height=0.78, color=["#1f5fa8", "#b5b5bd"])
        axes.set_xlim(min(0.0, value, control), 1.25)
        axes.set_ylim(1.5, -0.5)
        bare(axes)
        axes.axvline(0, color=INK, linewidth=1)
        for i, (number, words) in enumerate(((value, ""), (control, " shuffled"))):
            said = f"{number:.2f}{words}"
            axes.text(max(number, 0) + 0.015, i, said, fontsize=8, va="center", color=QUIET if i else INK)
        here += 0.4
    return max(bottom, here) + 0.1


def _scatter(axes: Axes, labels: Tensor, sources: Sequence[str], positions: Tensor) -> None:
    places = array(positions)
    names, handles = [*dict.fromkeys(sources)], []
    for i, source in enumerate(names):
        chosen = [n for n, s in enumerate(sources) if s == source]
        colours = [COLOURS[int(labels[n]) % len(COLOURS)] for n in chosen]
        mark = MARKS[i % len(MARKS)]
        axes.scatter(places[chosen, 0], places[chosen, 1], c=colours, s=17, marker=mark, linewidths=0)
        handles.append(axes.scatter([], [], c=QUIET, s=17, marker=mark))
    bare(axes)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_edgecolor("#d8d8de")
    if len(names) > 1:
        legend_of(
            axes,
            handles,
            names,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.02),
            ncols=min(LEGEND, len(names)),
            fontsize=7.5,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.0,
        )


def _bright(values: Tensor) -> float:
    return float(values.double().flatten().quantile(0.99)) or 1.0
