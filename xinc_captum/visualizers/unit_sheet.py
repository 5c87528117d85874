"""A sheet with one card per linked unit: images at a low and a high value, their difference, and the verdict."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .layout import (
    MARGIN,
    PAGE,
    VERDICTS,
    Sheet,
    check_lengths,
    check_verdicts,
    clip_text,
    number,
    ordinal,
    text_width,
)
from .linked_unit import MIN_LIMIT
from .style import EDGE, INK, QUIET, bare, draw_photo, draw_signed, frame, limit_of

CARD_COLUMNS, MAX_CARDS = 3, 45
CARD_GAP, CARD_IMAGE_GAP = 0.22, 0.04  # inches between cards, and between the images of a card
CARD_IMAGE, CARD_MAX_HEIGHT = 0.66, 0.9  # inches of an image
CLASSES = 3  # classes on a card
VALUE_WIDTH = 0.28  # inches of the number beside a bar
CLASS_SIZE = 7.5  # points of the name of a class
SHORT_NAME, MIN_BAR = 0.2, 0.4  # inches: with longer names there are fewer columns; bars are at least so wide
ABOVE, BELOW = "#f0b9a6", "#b3cde6"  # mean response to the class above, or below, the mean over all classes
FADED = 0.22  # opacity of the images of units that fail


def unit_sheet(
    low: Tensor,
    high: Tensor,
    *,
    units: Sequence[int],
    ranks: Tensor,
    followed: Tensor,
    count: int,
    verdicts: Sequence[str],
    selectivity: Tensor | None = None,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
    title: str = "What units show",
) -> Figure:
    """Draw one card per unit: images with the unit low and high, their difference, the verdict, and its top classes.

    The images of units whose verdict is "fails" are faded, because they do not show that unit. Units whose rank is nan
    are dead and listed below the cards.

    Args:
        low: (U, C, H, W) in [0, 1], generated with the unit at a low value.
        high: (U, C, H, W), the same images with the unit at a high value.
        units: (U,), unit numbers in the layer.
        ranks: (U,), rank of the unit among all units by how far each moves; 1 moves most, nan marks a dead unit.
        followed: (U,), Spearman correlation of the values set and measured.
        count: number of units that can move.
        verdicts: (U,), "holds", "weak" or "fails", such as the verdict of
            :class:`xinc_captum.metrics.fidelity.Fidelity`; not used for dead units.
        selectivity: (U, classes), mean response to a class, in standard deviations from the mean over all.
        classes: name of each class.
        notes: (U,), one more line each, for example the part and measure that change most.
        title: title of the figure.

    Raises:
        ValueError: shapes that do not match, a wrong number of entries, an unknown verdict, or more than 45 units.

    Example:
        >>> low, high = torch.rand(2, 2, 1, 8, 8)
        >>> one = torch.ones(2)
        >>> figure = unit_sheet(low, high, units=[3, 7], ranks=one, followed=one, count=64, verdicts=["holds", "weak"])
        >>> figure.savefig("units.png")  # doctest: +SKIP
    """
    _check_cards(low, high, selectivity, classes)
    check_lengths(
        len(low), "unit", units=units, ranks=ranks, followed=followed, verdicts=verdicts, selectivity=selectivity,
        notes=notes,
    )  # fmt: skip
    check_verdicts(*verdicts)
    change = (high.float() - low.float()).mean(1)
    states = ["dead" if bool(rank.isnan()) else verdict for rank, verdict in zip(ranks, verdicts, strict=True)]
    alive = [i for i, state in enumerate(states) if state != "dead"]
    reliable = [i for i in alive if states[i] != "fails"]
    limit = limit_of(change[reliable] if reliable else change)
    sheet = Sheet()
    top = sheet.heading(title, _summary(states))
    top_classes = [] if selectivity is None else [_top_classes(row, classes) for row in selectivity]
    label = max((text_width(name, CLASS_SIZE) for few in top_classes for name, _ in few), default=0.0) + 0.05
    columns = CARD_COLUMNS if label < SHORT_NAME else CARD_COLUMNS - 1
    card = (PAGE - 2 * MARGIN - (columns - 1) * CARD_GAP) / columns
    largest = MIN_LIMIT if selectivity is None else max(float(selectivity.abs().nan_to_num(0).max()), MIN_LIMIT)
    height = min(CARD_IMAGE * low.shape[-2] / low.shape[-1], CARD_MAX_HEIGHT)
    width = height * low.shape[-1] / low.shape[-2]
    pitch = height + 0.2 + 0.145 * (1 + (notes is not None)) + 0.16
    for position, i in enumerate(alive):
        row, column = divmod(position, columns)
        x = MARGIN + column * (card + CARD_GAP)
        line = top + row * pitch
        sheet.line(x, line, f"unit {units[i]}", size=9, bold=True, colour=INK if i in reliable else QUIET)
        line += 0.19
        opacity = 1.0 if i in reliable else FADED
        for k, image in enumerate((low[i], high[i], change[i])):
            axes = sheet.axes(x + k * (width + CARD_IMAGE_GAP), line, width, height)
            if k < 2:
                draw_photo(axes, opacity * image.float() + (1 - opacity))
            else:
                draw_signed(axes, opacity * image, limit)
            frame(axes, width=0.5)
        if selectivity is not None:
            bars = x + 3 * (width + CARD_IMAGE_GAP) + 0.05
            _draw_classes(sheet, bars, line, x + card - bars, height, top_classes[i], largest, label)
        line += height + 0.03
        text, ink = _verdict_text(states[i], float(ranks[i]), float(followed[i]), count)
        sheet.line(x, line, clip_text(text, card, 7.5), size=7.5, colour=ink)
        if notes is not None:
            sheet.line(x, line + 0.145, clip_text(notes[i], card, 7.5), size=7.5, colour=INK)
    top += -(-len(alive) // columns) * pitch
    dead = [str(unit) for unit, state in zip(units, states, strict=True) if state == "dead"]
    if dead:
        text = f"Dead, without pictures: unit{'s' * (len(dead) > 1)} {', '.join(dead)}."
        top = sheet.note(top, text, colour=INK)
    return sheet.finish(sheet.note(top, _legend(selectivity)) + 0.06)


def _verdict_text(verdict: str, rank: float, followed: float, count: int) -> tuple[str, str]:
    """Return the line with the verdict, and its colour."""
    mark, colour = VERDICTS[verdict]
    rank_text = "moves most" if rank <= 1 else f"moves {ordinal(round(rank))}"
    text = f"{rank_text} of {count}, follows {number(followed, 2)}"
    return f"{mark} {text}" if verdict != "fails" else f"{mark} not this unit: {text}", colour


def _summary(verdicts: Sequence[str]) -> str:
    counts = {verdict: verdicts.count(verdict) for verdict in ("holds", "weak", "fails", "dead")}
    labels = {"holds": "✓ hold", "weak": "≈ are weak", "fails": "✗ fail (faded)", "dead": "are dead"}
    return f"of {len(verdicts)} units, " + ", ".join(f"{n} {labels[key]}" for key, n in counts.items() if n)


def _legend(selectivity: Tensor | None) -> str:
    text = (
        "Each card: the picture at a low and at a high value of the unit, and the change: red is brighter at the high "
        "value, blue darker; one scale for the sheet."
    )
    if selectivity is not None:
        text += (
            f" Bars: the {CLASSES} classes to which the unit's mean response differs most, red above its mean over "
            "all, blue below, in standard deviations."
        )
    return text + (
        " Moves: the unit's rank among all units by their measured change in standard deviations. Follows: Spearman "
        "correlation of the values set and measured."
    )


def _top_classes(responses: Tensor, classes: Sequence[str] | None) -> list[tuple[str, float]]:
    """Return names and means of the classes whose response differs most, the highest first."""
    indices = responses.abs().argsort(descending=True)[:CLASSES].tolist()
    indices.sort(key=lambda c: -float(responses[c]))
    return [(str(c) if classes is None else classes[c], float(responses[c])) for c in indices]


def _draw_classes(
    sheet: Sheet, x: float, top: float, width: float, height: float, classes: Sequence[tuple[str, float]],
    largest: float, label: float,
) -> None:  # fmt: skip
    """Draw names, bars on their own scale, and numbers."""
    label = min(label, width - VALUE_WIDTH - MIN_BAR) if label >= SHORT_NAME else label
    step = height / CLASSES
    axes = sheet.axes(x + label, top, width - label - VALUE_WIDTH, height)
    axes.set_xlim(-largest, largest)
    axes.set_ylim(CLASSES, 0)
    bare(axes)
    axes.axvline(0, color=EDGE, linewidth=0.8)
    for i, (name, value) in enumerate(classes):
        line = top + (i + 0.5) * step - 0.065
        axes.barh(i + 0.5, value, height=0.8, color=ABOVE if value > 0 else BELOW)
        sheet.line(x, line, clip_text(name, label, CLASS_SIZE), size=CLASS_SIZE)
        sheet.line(x + width, line, number(value, 1), size=7, colour=QUIET, align="right")


def _check_cards(low: Tensor, high: Tensor, selectivity: Tensor | None, classes: Sequence[str] | None) -> None:
    if low.dim() != 4 or not len(low) or low.shape != high.shape:
        raise ValueError(f"low and high have shapes {tuple(low.shape)} and {tuple(high.shape)}; expected (U, C, H, W).")
    if len(low) > MAX_CARDS:
        raise ValueError(f"{len(low)} units for one sheet; expected at most {MAX_CARDS}. Draw several sheets.")
    if classes is not None and (selectivity is None or selectivity.shape[1] != len(classes)):
        shape = None if selectivity is None else tuple(selectivity.shape)
        raise ValueError(f"{len(classes)} classes for selectivity of shape {shape}; expected (U, {len(classes)}).")
