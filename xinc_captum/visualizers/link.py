"""Figures of a link: its audit, with a control for every score, and counterfactuals through the link."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from ..metrics.trust import Verdict
from .layout import (
    Sheet,
    array,
    bar_axes,
    check_axes,
    clip_text,
    draw_photo,
    draw_signed,
    frame,
    limit_of,
    number,
    percent,
    text_width,
)
from .style import BLUE, EDGE, INK, MARGIN, ORANGE, PAGE, QUIET

SCORE_LABEL, SCORE_TEXT = 2.1, 3.1  # inches left and right of the scale
SCORE_ROW = 0.25
AUDIT_GAP = 0.05  # inches between images
MAX_IMAGES = 8  # of each kind
ORDER = 2.6  # inches of a matrix
TICKS = (0, 0.25, 0.5, 0.75, 1)


class Measured(NamedTuple):
    """A score with its interval, and the score of a control.

    Attributes:
        name: what is measured.
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

    Example:
        >>> fit = [Measured("R² within classes", 0.61, 0.55, 0.66, 0.01)]
        >>> figure = link_audit({"Does the link explain more than the class?": fit})
    """
    if not groups or not all(groups.values()):
        raise ValueError(f"{len(groups)} groups of scores, some empty; expected at least one score in each.")
    for name, (before, after) in (pictures or {}).items():
        check_axes(**{f"{name} before": (before, "n, C, H, W"), f"{name} after": (after, "n, C, H, W")})
    sizes = {} if classes is None else {"classes": len(classes)}
    check_axes(sizes, **{f"orders of {name}": (order, "classes, classes") for name, order in (orders or {}).items()})
    sheet = Sheet()
    top = sheet.heading(title, "●: score of the link, with its interval; ◇: score of a control")
    if verdict:
        top = sheet.verdict(top, *verdict) + 0.1
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
                    at = first + line * (height + AUDIT_GAP)
                    draw_photo(sheet.axes(x + k * (cell + AUDIT_GAP), at, cell, height), image)
            bottoms.append(first + 2 * (height + AUDIT_GAP))
        top = max(bottoms) + 0.12
    return top


def _draw_scores(sheet: Sheet, top: float, group: Sequence[Measured], span: tuple[float, float]) -> float:
    width = PAGE - 2 * MARGIN - SCORE_LABEL - SCORE_TEXT
    axes = sheet.axes(MARGIN + SCORE_LABEL, top, width, SCORE_ROW * len(group))
    bar_axes(axes, len(group), *span, zero=0)
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
            axes.plot(score.control, row, "D", color="white", mec="#9a9aa4", ms=5, mew=1.4)
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
        draw_signed(sheet.axes(x, below, width, width), similarities, 1)
        for c, name in enumerate(names if with_names else ()):
            middle = below + (c + 0.5) * width / size - 0.06
            sheet.line(x - 0.05, middle, clip_text(name, label, 7), size=7, colour=QUIET, align="right")
    return top + 0.2 + width + 0.12


FLIP_GAP = 0.08  # inches between images
FLIP_LABEL, FLIP_CURVE = 1.15, 2.25  # inches of the text at the left, and of the curves at the right
FLIP_WIDTH, FLIP_HEIGHT = 1.3, 1.6  # inches of an image, at most
ORIGIN_COLOUR, TARGET_COLOUR, MISSED_COLOUR = BLUE, ORANGE, "#a8201a"


def counterfactual_rows(
    originals: Tensor,
    linked: Tensor,
    flipped: Tensor,
    *,
    chances: Tensor,
    predictions: Sequence[Sequence[str]],
    origins: Sequence[str],
    targets: Sequence[str],
    reached: Tensor,
    confidence: float = 0.0,
    path: Tensor | None = None,
    path_chances: Tensor | None = None,
    flips: Tensor | None = None,
    notes: Sequence[str] | None = None,
    title: str = "What would have to change for another class",
) -> Figure:
    """Draw one row per image: original, reconstruction, counterfactual, difference, and probabilities on the path.

    Below each image stand the model's probabilities of origin and target, and of the predicted class where that is
    neither. Rows that do not reach the target are marked. Rows whose original is of the target class already are marked
    and not counted. The difference is counterfactual minus reconstruction, so it excludes what the link loses.

    Args:
        originals: (N, C, H, W) in [0, 1].
        linked: (N, C, H, W), reconstructions of the originals through the link.
        flipped: (N, C, H, W), counterfactuals at the flip point, or the nearest result if the target is not reached.
        chances: (N, 3, 3), probabilities of origin, target and predicted class for original, linked and flipped.
        predictions: (N, 3), predicted class names of original, linked and flipped.
        origins: class that each image leaves: its predicted one, or the second choice if that is the target.
        targets: class that each image is moved to.
        reached: (N,) bool.
        confidence: probability that the target had to reach; 0 where being predicted was enough.
        path: (P,), positions on the path, from 0; None draws no curves.
        path_chances: (N, P, 2), probabilities of origin and target on the path.
        flips: (N,), position at which the target is reached; nan where it is not.
        notes: line under the text of each row, for example how far the representation moved.
        title: title of the figure.

    Example:
        >>> picture, chances = torch.rand(3, 2, 1, 8, 8), torch.rand(2, 3, 3)
        >>> figure = counterfactual_rows(*picture, chances=chances, predictions=[["3", "3", "8"], ["5", "5", "2"]],
        ...     origins=["3", "5"], targets=["8", "6"], reached=torch.tensor([True, False]))
    """
    if (path is None) != (path_chances is None):
        raise ValueError("path and path_chances belong together; only one of them is given.")
    check_axes(
        originals=(originals, "N, C, H, W"), linked=(linked, "N, C, H, W"), flipped=(flipped, "N, C, H, W"),
        chances=(chances, "N, 3, 3"), path=(path, "P"), path_chances=(path_chances, "N, P, 2"), flips=(flips, "N"),
        predictions=(predictions, "N"), origins=(origins, "N"), targets=(targets, "N"), reached=(reached, "N"),
        notes=(notes, "N"),
    )  # fmt: skip
    count = len(originals)
    curve = FLIP_CURVE if path is not None else 0.0
    available = PAGE - 2 * MARGIN - FLIP_LABEL - curve - (4 + bool(curve)) * FLIP_GAP
    cell = min(FLIP_WIDTH if curve else 1.4 * FLIP_WIDTH, available / 4)
    shape = originals.shape[-2] / originals.shape[-1]
    height = min(cell * shape, FLIP_HEIGHT)
    width = height / shape
    change = (flipped.float() - linked.float()).mean(1)
    limit = limit_of(change[reached] if reached.any() else change)
    lefts = [MARGIN + FLIP_LABEL + FLIP_GAP + i * (cell + FLIP_GAP) for i in range(4)]
    last = lefts[-1] + cell + 3 * FLIP_GAP
    chances, reached, percentage = chances.detach().cpu(), reached.cpu().bool(), _percentage(confidence)
    already = (chances[:, 0, 1] >= chances[:, 0, 2]) & (chances[:, 0, 1] >= confidence)
    flipped_rows = reached & ~already
    done, attempts = int(flipped_rows.sum()), int((~already).sum())
    sheet = Sheet()
    summary = f"{done} of {attempts} " + (f"reach {percentage} for the target class" if percentage else "flipped")
    summary += f", {count - attempts} of the target class already" if already.any() else ""
    top = sheet.heading(title, f"{summary}; below each picture: the network's probabilities")
    end = "flipped" if done == count and not percentage else "end of the path"
    for x, name in zip(lefts, ("the picture", "reconstruction", end, "what changed"), strict=True):
        sheet.line(x + cell / 2, top, name, size=8.5, align="center")
    if curve:
        sheet.line((last + PAGE - MARGIN) / 2, top, "on the path", size=8.5, align="center")
    top += 0.2
    for row, (origin, target) in enumerate(zip(origins, targets, strict=True)):
        predicts_target = (chances[row, :, 1] >= chances[row, :, 2]).tolist()
        if already[row]:
            lines = [(f"already {target}", 10, TARGET_COLOUR, True), ("not counted", 8.5, QUIET, False)]
        else:
            lines = [
                (target if predicts_target[0] else origin, 10, ORIGIN_COLOUR, True),
                (f"→ {target}" + (f" at {percentage}" if percentage else ""), 10, TARGET_COLOUR, True),
            ]
        if not reached[row] and not already[row]:
            reason = f"below {percentage}" if predicts_target[2] else f"predicted {predictions[row][2]}"
            lines += [("✗ not reached", 8.5, MISSED_COLOUR, True), (reason, 8.5, MISSED_COLOUR, False)]
        if notes is not None:
            lines.append((notes[row], 7.5, QUIET, False))
        line = top
        for text, points, colour, bold in lines:
            line = sheet.paragraph(MARGIN, line, text, FLIP_LABEL, size=points, colour=colour, bold=bold)
        bottom = top + height
        for k, image in enumerate((originals[row], linked[row], flipped[row])):
            axes = sheet.axes(lefts[k] + (cell - width) / 2, top, width, height)
            draw_photo(axes, image)
            frame(axes)
            if k == 2 and flipped_rows[row]:
                frame(axes, TARGET_COLOUR, 2)
            here, both = top + height + 0.03, chances[row, k, :2].tolist()
            entries = [(origin, both[0], ORIGIN_COLOUR), (target, both[1], TARGET_COLOUR)]
            if float(chances[row, k, 2]) > max(both):
                entries.append((predictions[row][k], float(chances[row, k, 2]), INK))
            for name, chance, colour in entries:
                text = f"{clip_text(name, cell - 0.45, 7.5)}: {percent(chance)}"
                here = sheet.line(lefts[k] + cell / 2, here, text, size=7.5, colour=colour, align="center")
            bottom = max(bottom, here)
        axes = sheet.axes(lefts[3] + (cell - width) / 2, top, width, height)
        draw_signed(axes, change[row], limit)
        frame(axes)
        if path is not None and path_chances is not None:
            flip = float("nan") if flips is None else float(flips[row])
            _draw_path(sheet, last, top, height, path, path_chances[row], flip, confidence)
        top = max(line, bottom) + 0.1
    how = f"What changed: red is brighter in the {'flipped' if end == 'flipped' else 'last'} picture than in the "
    how += "reconstruction, blue darker; one scale for all rows."
    if curve:
        how += " On the path: probability of the original class (blue) and of the target (orange); the vertical line "
        how += f"marks where the latter reaches {percentage} (dotted)." if percentage else "marks the flip."
    return sheet.finish(sheet.note(top, how) + 0.06)


def _draw_path(
    sheet: Sheet, x: float, top: float, height: float, path: Tensor, chances: Tensor, flip: float, confidence: float
) -> None:
    """Plot the probabilities of origin and target on the path, up to the right margin."""
    width = PAGE - MARGIN - x
    axes = sheet.axes(x, top, width, height)
    positions, both = array(path), array(chances)
    axes.plot(positions, both[:, 0], color=ORIGIN_COLOUR, linewidth=1.6)
    axes.plot(positions, both[:, 1], color=TARGET_COLOUR, linewidth=1.6)
    if not math.isnan(flip):
        axes.axvline(flip, color=INK, linewidth=1)
    if confidence:
        axes.axhline(confidence, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_xlim(float(positions[0]), float(positions[-1]))
    axes.set_ylim(-0.03, 1.03)
    frame(axes)
    line = top + height + 0.03
    sheet.line(x, line, "0", size=7.5, colour=QUIET)
    sheet.line(x + width, line, number(float(positions[-1]), 2), size=7.5, colour=QUIET, align="right")
    if flip == 0:
        text = "reached at the start"
    elif not math.isnan(flip):
        text = f"{f'reaches {_percentage(confidence)}' if confidence else 'flips'} at {number(flip, 2)}"
    else:
        text = f"does not reach {_percentage(confidence)}" if confidence else "does not flip"
    sheet.line(x + width / 2, line, text, size=7.5, align="center")


def _percentage(confidence: float) -> str:
    """Return the required probability as text, "" where none is required."""
    return f"{100 * confidence:g} %" if confidence else ""
