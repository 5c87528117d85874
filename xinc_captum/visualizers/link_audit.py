"""Figure of the audit of a link: images before and after it, and every score with its control."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from ..metrics.trust import Verdict
from .layout import MARGIN, PAGE, Sheet, check_verdicts, clip_text, number, text_width, verdict_line
from .style import BLUE, EDGE, INK, QUIET, SIGNED, array, bare, draw_photo

SCORE_LABEL, SCORE_TEXT = 2.1, 3.1  # inches left and right of the scale
SCORE_ROW = 0.25
AUDIT_GAP = 0.05  # inches between images
MAX_IMAGES = 8  # of each kind
CONTROL_EDGE = "#9a9aa4"
ORDER = 2.6  # inches of a matrix
TICKS = (0, 0.25, 0.5, 0.75, 1)


class Measured(NamedTuple):
    """A score with its interval, and the score of a control.

    Attributes:
        name: name of the score.
        value: usually in [0, 1].
        low: lower end of the interval; the value itself where there is none.
        high: upper end of the interval.
        control: score of the control, or None.
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
    verdict: Verdict | tuple[str, str] | None = None,
    pictures: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    orders: Mapping[str, Tensor] | None = None,
    classes: Sequence[str] | None = None,
    title: str = "How reliable is a link?",
) -> Figure:
    """Draw images before and after the link, then groups of scores (● with interval) with their controls (◇).

    Args:
        groups: scores by question, which is the heading of the group.
        verdict: "holds", "weak" or "fails", and the reason.
        pictures: by kind (generated, real …): (n, C, H, W) in [0, 1] before and after the link; at most 8 of each kind
            are shown.
        orders: by space (representation, latent …): (classes, classes), similarity of the classes in [-1, 1].
        classes: name of each class of ``orders``.
        title: title of the figure.

    Raises:
        ValueError: no scores, images of two shapes, orders that are not square or not of ``classes``.

    Example:
        >>> fit = [Measured("R² within classes", 0.61, 0.55, 0.66, 0.01)]
        >>> figure = link_audit({"Does the link explain more than the class?": fit})
        >>> figure.savefig("audit.png")  # doctest: +SKIP
    """
    _check_audit(groups, pictures, orders, classes)
    check_verdicts(*list(verdict or ())[:1])
    sheet = Sheet()
    top = sheet.heading(title, "●: score of the link, with its interval; ◇: score of a control")
    if verdict:
        top = verdict_line(sheet, top, *verdict) + 0.1
    if pictures:
        top = _draw_images(sheet, top, pictures)
    values = [one for group in groups.values() for one in group]
    lowest = min(0.0, *(min(one.low, one.value, one.control or 0.0) for one in values))
    highest = max(1.0, *(max(one.high, one.value) for one in values))
    span = (lowest - 0.03, highest + 0.03)
    for heading, group in groups.items():
        top = sheet.paragraph(MARGIN, top, heading, PAGE - 2 * MARGIN, size=10, bold=True) + 0.03
        top = _draw_scores(sheet, top, group, span) + 0.12
    if orders:
        top = _draw_orders(sheet, top, orders, classes)
    return sheet.finish(top)


def _draw_images(sheet: Sheet, top: float, pictures: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    """Draw two kinds per line, each image above its reconstruction through the link."""
    columns = min(2, len(pictures))
    width = (PAGE - 2 * MARGIN - (columns - 1) * 0.3) / columns
    names = list(pictures)
    for start in range(0, len(names), columns):
        bottoms = []
        for i, name in enumerate(names[start : start + columns]):
            before, after = pictures[name]
            x = MARGIN + i * (width + 0.3)
            first = sheet.line(x, top, f"{name}: original above, reconstruction below", size=9, bold=True) + 0.02
            count = min(len(before), MAX_IMAGES)
            cell = min(0.8, (width - (count - 1) * AUDIT_GAP) / count)
            height = cell * before.shape[-2] / before.shape[-1]
            for k in range(count):
                for line, image in enumerate((before[k], after[k])):
                    axes = sheet.axes(x + k * (cell + AUDIT_GAP), first + line * (height + AUDIT_GAP), cell, height)
                    draw_photo(axes, image)
                    bare(axes)
            bottoms.append(first + 2 * (height + AUDIT_GAP))
        top = max(bottoms) + 0.12
    return top


def _draw_scores(sheet: Sheet, top: float, group: Sequence[Measured], span: tuple[float, float]) -> float:
    width = PAGE - 2 * MARGIN - SCORE_LABEL - SCORE_TEXT
    axes = sheet.axes(MARGIN + SCORE_LABEL, top, width, SCORE_ROW * len(group))
    axes.set_xlim(*span)
    axes.set_ylim(len(group) - 0.5, -0.5)
    bare(axes)
    for tick in TICKS:
        axes.axvline(tick, color=INK if not tick else EDGE, linewidth=1 if not tick else 0.7, zorder=0)
    for row, score in enumerate(group):
        line = top + SCORE_ROW * row + 0.05
        name = clip_text(score.name, SCORE_LABEL - 0.15, 8.5)
        sheet.line(MARGIN + SCORE_LABEL - 0.1, line, name, size=8.5, align="right")
        axes.plot([score.low, score.high], [row, row], color=BLUE, linewidth=2.2, solid_capstyle="butt")
        axes.plot(score.value, row, "o", color=BLUE, markersize=6.5)
        x = PAGE - MARGIN - SCORE_TEXT + 0.12
        text = number(score.value, 2)
        if score.low != score.high:
            text += f" ({number(score.low, 2)} to {number(score.high, 2)})"
        sheet.line(x, line, text, size=8.5)
        if score.control is not None:
            style: dict[str, Any] = {
                "color": "white",
                "markeredgecolor": CONTROL_EDGE,
                "markersize": 5,
                "markeredgewidth": 1.4,
            }
            axes.plot(score.control, row, "D", **style)
            x += text_width(text, 8.5) + 0.1
            control = clip_text(f"{number(score.control, 2)} {score.control_name}", PAGE - MARGIN - x, 7.5)
            sheet.line(x, line + 0.012, control, size=7.5, colour=QUIET)
    bottom = below = top + SCORE_ROW * len(group)
    for tick in TICKS:
        if span[0] <= tick <= span[1]:
            x = MARGIN + SCORE_LABEL + width * (tick - span[0]) / (span[1] - span[0])
            below = sheet.line(x, bottom, f"{tick:g}", size=7, colour=QUIET, align="center")
    return below


def _draw_orders(sheet: Sheet, top: float, orders: Mapping[str, Tensor], classes: Sequence[str] | None) -> float:
    """Draw one matrix of similarities per space."""
    title = "Similarity of the classes: a structure of both spaces looks the same (red: similar, blue: opposite)"
    top = sheet.paragraph(MARGIN, top, title, PAGE - 2 * MARGIN, size=10, bold=True) + 0.05
    size = len(next(iter(orders.values())))
    names = list(classes) if classes is not None else [str(c) for c in range(size)]
    with_names = ORDER / size > 0.13
    label = min(0.9, max(text_width(name, 7) for name in names) + 0.1) if with_names else 0.0
    width = min(ORDER, (PAGE - 2 * MARGIN) / len(orders) - label - 0.2)
    start = (PAGE - len(orders) * (width + label + 0.2)) / 2
    for i, (space, similarities) in enumerate(orders.items()):
        x = start + i * (width + label + 0.2) + label
        below = sheet.line(x + width / 2, top, space, size=9, align="center") + 0.02
        axes = sheet.axes(x, below, width, width)
        axes.imshow(array(similarities), cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
        bare(axes)
        for c, name in enumerate(names if with_names else ()):
            middle = below + (c + 0.5) * width / size - 0.06
            sheet.line(x - 0.05, middle, clip_text(name, label, 7), size=7, colour=QUIET, align="right")
    return top + 0.2 + width + 0.12


def _check_audit(
    groups: Mapping[str, Sequence[Measured]],
    pictures: Mapping[str, tuple[Tensor, Tensor]] | None,
    orders: Mapping[str, Tensor] | None,
    classes: Sequence[str] | None,
) -> None:
    if not groups or not all(groups.values()):
        raise ValueError(f"{len(groups)} groups of scores, some empty; expected at least one score in each.")
    for name, (before, after) in (pictures or {}).items():
        if before.dim() != 4 or before.shape != after.shape or not len(before):
            raise ValueError(
                f"pictures {name!r} have shapes {tuple(before.shape)} and {tuple(after.shape)}; expected (n, C, H, W) "
                "twice."
            )
    sizes = {tuple(order.shape) for order in (orders or {}).values()}
    if len(sizes) > 1 or any(len(size) != 2 or size[0] != size[1] for size in sizes):
        raise ValueError(f"orders have shapes {sorted(sizes)}; expected (classes, classes), the same for all.")
    if classes is not None and sizes and {(len(classes), len(classes))} != sizes:
        raise ValueError(f"{len(classes)} classes for orders of shape {sorted(sizes)[0]}; expected one per row.")
