"""Figure of clusters of units: mean maps, typical members, a scatter plot, and measured scores with controls."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import IMAGE_GAP, MARGIN, PAGE, Sheet
from .style import BLUE, HEAT, INK, PALE_CONTROL, QUIET, add_legend, array, bare, draw_photo, frame

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
            f"maps have shape {tuple(maps.shape)} and {counts}; expected (units, H, W) and one of each per unit."
        )
    clusters = labels.unique().tolist()
    sheet = Sheet()
    top = sheet.heading(
        f"{len(maps)} units in {len(clusters)} clusters, by where they contribute",
        "each row: the mean map of a cluster and its members closest to that mean; each map has its own scale",
    )
    top = _draw_overview(sheet, top, photo, labels, sources, positions, facts or {})
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
            axes = sheet.axes(x, top, cell, height)
            limit = float(values.double().flatten().quantile(0.99)) or 1.0
            axes.imshow(array(values), cmap=HEAT, vmin=0, vmax=limit, interpolation="nearest")
            bare(axes)
            text = "mean" if not i else f"{sources[typical[i - 1]]}, unit {int(numbers[typical[i - 1]])}"
            below = sheet.paragraph(
                x + cell / 2, top + height + 0.02, text, cell, size=7.5, colour=QUIET, align="center"
            )
            line = max(line, below)
        top = line + 0.1
    return sheet.finish(top)


def _draw_overview(
    sheet: Sheet,
    top: float,
    photo: Tensor,
    labels: Tensor,
    sources: Sequence[str],
    positions: Tensor | None,
    facts: Mapping[str, tuple[float, float]],
) -> float:
    """Draw the scatter plot at the left, photo and scores at the right; return the top of the rows."""
    x, bottom = MARGIN, top
    if positions is not None:
        sheet.line(MARGIN + 1.9, top, "UMAP (for orientation only)", size=9, bold=True, align="center")
        _scatter(sheet.axes(MARGIN, top + 0.22, 3.8, 2.5), labels, sources, positions)
        lines = -(-len(set(sources)) // LEGEND_COLUMNS) if len(set(sources)) > 1 else 0
        x, bottom = MARGIN + 4.1, top + 2.72 + 0.19 * lines
    width = min(1.15 * photo.shape[-1] / photo.shape[-2], 2.4)
    axes = sheet.axes(x, top, width, width * photo.shape[-2] / photo.shape[-1])
    draw_photo(axes, photo)
    bare(axes)
    line = top + width * photo.shape[-2] / photo.shape[-1] + 0.12
    for name, (value, control) in facts.items():
        width = PAGE - MARGIN - x
        line = sheet.paragraph(x, line, name, width, size=8.5) + 0.03
        axes = sheet.axes(x, line, width, 0.3)
        axes.barh([0, 1], [value, control], height=0.78, color=[BLUE, PALE_CONTROL])
        axes.set_xlim(min(0.0, value, control), 1.25)
        axes.set_ylim(1.5, -0.5)
        bare(axes)
        axes.axvline(0, color=INK, linewidth=1)
        for i, (score, suffix) in enumerate(((value, ""), (control, " shuffled"))):
            colour = QUIET if i else INK
            axes.text(max(score, 0) + 0.015, i, f"{score:.2f}{suffix}", fontsize=8, va="center", color=colour)
        line += 0.4
    return max(bottom, line) + 0.1


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
