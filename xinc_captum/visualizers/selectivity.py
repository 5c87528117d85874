"""A table of units by classes: which classes drive which unit."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, QUIET, SIGNED, array, bare
from .sheet import MARGIN, PAGE, Sheet, wide
from .words import clipped, number

ROW, TALL_NAME = 0.185, 1.3  # inches of a line, and of the longest name above a column
NARROW, BROAD = 0.36, 0.85  # inches of a column
LABEL, SHARE = 0.85, 1.0  # inches left of the table, and of the bars at its right
MOST = 60
SMALL = 0.1  # standard deviations: a scale is never smaller, or what is written as 0.0 would look like something
PALE = 0.55  # of the scale: beyond it, ink becomes white


def selectivity_table(
    means: Tensor,
    *,
    units: Sequence[int],
    classes: Sequence[str],
    explained: Tensor | None = None,
    ordered: bool = True,
    title: str = "Which classes drive which units",
) -> Figure:
    """One line a unit, one column a class: the unit's mean response, in red above its mean over all, in blue below.

    Args:
        means: (U, classes), mean response to each class in standard deviations from the unit's mean over all.
        units: (U,), their numbers in the layer.
        classes: a name for each column.
        explained: (U,), the share in [0, 1] of each unit's variance that the classes explain, drawn at the right.
        ordered: lines by the class that drives them most, those of a class strongest first; else as given.
        title: above everything.

    Raises:
        ValueError: shapes that do not fit, or more than 60 units.

    Example:
        >>> figure = selectivity_table(torch.randn(4, 3), units=range(4), classes=["cat", "dog", "owl"])
        >>> figure.savefig("selectivity.png")  # doctest: +SKIP
    """
    _check(means, units, classes, explained)
    means = means.detach().float().cpu()
    strongest, favourite = means.nan_to_num(-torch.inf).max(1)
    key = sorted(range(len(means)), key=lambda u: (int(favourite[u]), -float(strongest[u])))
    lines = key if ordered else list(range(len(means)))
    room = PAGE - 2 * MARGIN - LABEL - (SHARE + 0.25 if explained is not None else 0)
    column = min(BROAD, room / len(classes))
    written = column >= NARROW
    across = column * len(classes)
    left = MARGIN + LABEL + (room - across) / 2
    sheet = Sheet()
    top = sheet.heading(
        title, "mean response to a class, in standard deviations of the unit; red: above its mean over all, blue: below"
    )
    upright = any(wide(name, 8) > column - 0.04 for name in classes)
    above = min(TALL_NAME, max(wide(name, 8) for name in classes) + 0.08) if upright else 0.2
    heads = sheet.axes(left, top, across, above)
    bare(heads)
    heads.set_xlim(0, len(classes))
    heads.set_ylim(0, 1)
    heads.patch.set_visible(False)
    for c, name in enumerate(classes):
        text = clipped(name, TALL_NAME - 0.1, 8) if upright else name
        words = heads.text(c + 0.5, 0.06, text, fontsize=8, ha="center", va="bottom", color=INK, parse_math=False)
        words.set_rotation(90 if upright else 0)
    top += above
    limit = max(float(means.abs().nan_to_num(0).max()), SMALL)
    table = sheet.axes(left, top, across, ROW * len(lines))
    table.imshow(array(means[lines]), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    bare(table)
    for row, unit in enumerate(lines):
        sheet.line(left - 0.08, top + row * ROW + 0.025, f"unit {units[unit]}", size=8, align="right")
        for c in range(len(classes)) if written else ():
            value = float(means[unit, c])
            ink = "white" if abs(value) > PALE * limit else INK
            bold = "bold" if c == int(favourite[unit]) else "normal"
            table.text(c, row, number(value, 1), fontsize=7, ha="center", va="center", color=ink, weight=bold)
    bottom = top + ROW * len(lines)
    if explained is not None:
        x = left + across + 0.25
        sheet.paragraph(x, top - 0.3, "variance between classes", SHARE, size=7.5, colour=QUIET)
        bars = sheet.axes(x, top, SHARE, ROW * len(lines))
        shares = array(explained)[lines]
        bars.barh(range(len(lines)), shares, height=0.72, color="#1f5fa8")
        bars.set_xlim(0, 1)
        bars.set_ylim(len(lines) - 0.5, -0.5)
        bare(bars)
        bars.axvline(0, color=INK, linewidth=0.8)
        for row, share in enumerate(shares):
            inside = share > 0.6
            bars.text(share + (-0.03 if inside else 0.03), row, f"{100 * share:.0f} %", fontsize=7, va="center",
                      ha="right" if inside else "left", color="white" if inside else INK)  # fmt: skip
    return sheet.done(bottom + 0.12)


def _check(means: Tensor, units: Sequence[int], classes: Sequence[str], explained: Tensor | None) -> None:
    if tuple(means.shape) != (len(units), len(classes)) or not means.numel():
        raise ValueError(
            f"means have shape {tuple(means.shape)} for {len(units)} units and {len(classes)} classes; wanted "
            f"{(len(units), len(classes))}."
        )
    if len(units) > MOST:
        raise ValueError(f"{len(units)} units for one table; wanted at most {MOST}. Choose the most selective ones.")
    if explained is not None and tuple(explained.shape) != (len(units),):
        raise ValueError(f"explained has shape {tuple(explained.shape)}; wanted {(len(units),)}, one a unit.")
