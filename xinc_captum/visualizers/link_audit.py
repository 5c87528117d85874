"""The audit of a link on one page: pictures before and after it, and every figure beside its control."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from .layout import (
    MARGIN,
    PAGE,
    Sheet,
    check_verdicts,
    clipped,
    number,
    verdict_line,
    wide,
)
from .style import (
    INK,
    QUIET,
    SIGNED,
    array,
    bare,
    draw_photo,
)

LABEL = 2.1  # inches left of the scale
RIGHT = 3.1  # and right of it
ROW = 0.25
GAP = 0.05
MOST = 8  # pictures a strip
BLUE, CONTROL, EDGE = "#1f5fa8", "#9a9aa4", "#d8d8de"
ORDER = 2.6  # inches of a matrix
TICKS = (0, 0.25, 0.5, 0.75, 1)


class Measured(NamedTuple):
    """A figure with its interval, and what the same figure is where there is nothing to find.

    Attributes:
        name: what was measured.
        value: usually in [0, 1].
        low: lower end of its interval; the value itself where there is none.
        high: upper end.
        control: the same figure of the control, or None.
        control_name: what the control is.
    """

    name: str
    value: float
    low: float
    high: float
    control: float | None = None
    control_name: str = "shuffled"


def link_audit(
    groups: Mapping[str, Sequence[Measured]],
    *,
    verdict: tuple[str, str] | None = None,
    pictures: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    orders: Mapping[str, Tensor] | None = None,
    classes: Sequence[str] | None = None,
    title: str = "How far to believe a link",
) -> Figure:
    """Pictures before and after the link, then every figure (● with its interval) beside its control (◇), in groups.

    Args:
        groups: figures by question, each group under its heading.
        verdict: "holds", "weak" or "fails", and the reason.
        pictures: by kind (generated, real …): (n, C, H, W) in [0, 1] before, and the same after the link; two kinds
            share a line. At most 8 of each are shown.
        orders: by space (representation, latent …): (classes, classes), how alike the classes are in it, in [-1, 1].
        classes: a name for each class of ``orders``.
        title: above everything.

    Raises:
        ValueError: no figures, pictures of two shapes, orders that are not square or not of ``classes``.

    Example:
        >>> fit = [Measured("R² within classes", 0.61, 0.55, 0.66, 0.01)]
        >>> figure = link_audit({"Does the link know more than the class?": fit})
        >>> figure.savefig("audit.png")  # doctest: +SKIP
    """
    _check(groups, pictures, orders, classes)
    check_verdicts(*([verdict[0]] if verdict else []))
    sheet = Sheet()
    top = sheet.heading(
        title, "●: the link, with its interval; ◇: its control, the same figure where nothing is to be found"
    )
    if verdict:
        top = verdict_line(sheet, top, *verdict) + 0.1
    if pictures:
        top = _strips(sheet, top, pictures)
    values = [one for group in groups.values() for one in group]
    lowest = min(0.0, *(min(one.low, one.value, one.control or 0.0) for one in values))
    highest = max(1.0, *(max(one.high, one.value) for one in values))
    span = (lowest - 0.03, highest + 0.03)
    for heading, group in groups.items():
        top = sheet.paragraph(MARGIN, top, heading, PAGE - 2 * MARGIN, size=10, bold=True) + 0.03
        top = _dots(sheet, top, group, span) + 0.12
    if orders:
        top = _orders(sheet, top, orders, classes)
    return sheet.finish(top)


def _strips(sheet: Sheet, top: float, pictures: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    """Two kinds beside each other, each picture over what the link makes of it."""
    columns = min(2, len(pictures))
    across = (PAGE - 2 * MARGIN - (columns - 1) * 0.3) / columns
    names = list(pictures)
    for start in range(0, len(names), columns):
        bottoms = []
        for i, name in enumerate(names[start : start + columns]):
            before, after = pictures[name]
            left = MARGIN + i * (across + 0.3)
            head = sheet.line(left, top, f"{name}: before, and through the link", size=9, bold=True) + 0.02
            count = min(len(before), MOST)
            cell = min(0.8, (across - (count - 1) * GAP) / count)
            tall = cell * before.shape[-2] / before.shape[-1]
            for k in range(count):
                for line, picture in enumerate((before[k], after[k])):
                    place = sheet.axes(left + k * (cell + GAP), head + line * (tall + GAP), cell, tall)
                    draw_photo(place, picture)
                    bare(place)
            bottoms.append(head + 2 * (tall + GAP))
        top = max(bottoms) + 0.12
    return top


def _dots(sheet: Sheet, top: float, group: Sequence[Measured], span: tuple[float, float]) -> float:
    across = PAGE - 2 * MARGIN - LABEL - RIGHT
    axes = sheet.axes(MARGIN + LABEL, top, across, ROW * len(group))
    axes.set_xlim(*span)
    axes.set_ylim(len(group) - 0.5, -0.5)
    bare(axes)
    for tick in TICKS:
        axes.axvline(tick, color=INK if not tick else EDGE, linewidth=1 if not tick else 0.7, zorder=0)
    for row, one in enumerate(group):
        here = top + ROW * row + 0.05
        name = clipped(one.name, LABEL - 0.15, 8.5)
        sheet.line(MARGIN + LABEL - 0.1, here, name, size=8.5, align="right")
        axes.plot([one.low, one.high], [row, row], color=BLUE, linewidth=2.2, solid_capstyle="butt")
        axes.plot(one.value, row, "o", color=BLUE, markersize=6.5)
        x = PAGE - MARGIN - RIGHT + 0.12
        said = number(one.value, 2)
        if one.low != one.high:
            said += f" ({number(one.low, 2)} to {number(one.high, 2)})"
        sheet.line(x, here, said, size=8.5)
        if one.control is not None:
            axes.plot(one.control, row, "D", color="white", markeredgecolor=CONTROL, markersize=5, markeredgewidth=1.4)
            x += wide(said, 8.5) + 0.1
            room = PAGE - MARGIN - x
            words = clipped(f"{number(one.control, 2)} {one.control_name}", room, 7.5)
            sheet.line(x, here + 0.012, words, size=7.5, colour=QUIET)
    bottom = below = top + ROW * len(group)
    for tick in TICKS:
        if span[0] <= tick <= span[1]:
            x = MARGIN + LABEL + across * (tick - span[0]) / (span[1] - span[0])
            below = sheet.line(x, bottom, f"{tick:g}", size=7, colour=QUIET, align="center")
    return below


def _orders(sheet: Sheet, top: float, orders: Mapping[str, Tensor], classes: Sequence[str] | None) -> float:
    """One matrix a space: where two agree at a glance, so does the order of classes."""
    said = "How alike the classes are: an order shared by both spaces looks the same (red: alike, blue: opposed)"
    top = sheet.paragraph(MARGIN, top, said, PAGE - 2 * MARGIN, size=10, bold=True) + 0.05
    size = len(next(iter(orders.values())))
    names = list(classes) if classes is not None else [str(c) for c in range(size)]
    written = ORDER / size > 0.13
    margin = min(0.9, max(wide(name, 7) for name in names) + 0.1) if written else 0.0
    across = min(ORDER, (PAGE - 2 * MARGIN) / len(orders) - margin - 0.2)
    start = (PAGE - len(orders) * (across + margin + 0.2)) / 2
    for i, (space, alike) in enumerate(orders.items()):
        left = start + i * (across + margin + 0.2) + margin
        below = sheet.line(left + across / 2, top, space, size=9, align="center") + 0.02
        axes = sheet.axes(left, below, across, across)
        axes.imshow(array(alike), cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
        bare(axes)
        for c, name in enumerate(names if written else ()):
            middle = below + (c + 0.5) * across / size - 0.06
            sheet.line(left - 0.05, middle, clipped(name, margin, 7), size=7, colour=QUIET, align="right")
    return top + 0.2 + across + 0.12


def _check(
    groups: Mapping[str, Sequence[Measured]],
    pictures: Mapping[str, tuple[Tensor, Tensor]] | None,
    orders: Mapping[str, Tensor] | None,
    classes: Sequence[str] | None,
) -> None:
    if not groups or not all(groups.values()):
        raise ValueError(f"{len(groups)} groups of figures, some empty; expected at least one figure in each.")
    for name, (before, after) in (pictures or {}).items():
        if before.dim() != 4 or before.shape != after.shape or not len(before):
            raise ValueError(
                f"pictures {name!r} have shapes {tuple(before.shape)} and {tuple(after.shape)}; expected (n, C, H, W) "
                "twice."
            )
    sizes = {tuple(alike.shape) for alike in (orders or {}).values()}
    if len(sizes) > 1 or any(len(size) != 2 or size[0] != size[1] for size in sizes):
        raise ValueError(f"orders have shapes {sorted(sizes)}; expected (classes, classes), the same for all.")
    if classes is not None and sizes and {(len(classes), len(classes))} != sizes:
        raise ValueError(f"{len(classes)} classes for orders of shape {sorted(sizes)[0]}; expected one a row.")
