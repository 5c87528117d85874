"""A sheet of linked units, to be read like a page of a field guide."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..metrics.fidelity import FOLLOWS, WEAKLY, last_place
from .layout import (
    MARGIN,
    PAGE,
    VERDICTS,
    Sheet,
    check_verdicts,
    clipped,
    number,
    ordinal,
    wide,
)
from .linked_unit import SMALL
from .style import (
    INK,
    QUIET,
    bare,
    draw_photo,
    draw_signed,
    limit_of,
)

COLUMNS, A_PAGE = 3, 45
GAP = 0.22  # inches between cards
THIN = 0.04  # between the pictures of one
PICTURE = 0.66
TALLEST = 0.9
BARS = 3  # classes a card names
NUMBER = 0.28  # inches beside a bar
LETTERS = 7.5  # size of a class's name
SHORT, BAR = 0.2, 0.4  # inches of names that leave room for bars on a narrow card, and of bars on a broad one
ABOVE, BELOW = "#f0b9a6", "#b3cde6"  # the mean response to a class is above, below that to all
FADED = 0.22  # how much is left of pictures which do not show what they claim to


def unit_sheet(
    low: Tensor,
    high: Tensor,
    *,
    units: Sequence[int],
    ranks: Tensor,
    followed: Tensor,
    count: int,
    verdicts: Sequence[str] | None = None,
    selectivity: Tensor | None = None,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
    title: str = "What units show",
) -> Figure:
    """One card a unit: drawn low and high, what changes, whose unit it is, and whether the pictures can be believed.

    A card says ✓ where the unit itself moves most and follows what is set, ≈ where it is among the first that move and
    half follows, and ✗ otherwise (:func:`moves`, or ``verdicts``): its pictures are then faded, since what they show is
    not that unit. Units with a rank that is not a number are dead, and listed below the cards.

    Args:
        low: (U, C, H, W) in [0, 1], drawn with the unit low.
        high: (U, C, H, W), the same picture with the unit high.
        units: (U,), their numbers in the layer.
        ranks: (U,), the unit's place among all units, by how far each moves; 1 moves most.
        followed: (U,), Spearman's correlation of the values set and measured.
        count: how many units can move.
        verdicts: (U,), "holds", "weak" or "fails", as of :class:`xinc_captum.metrics.fidelity.Fidelity`, which knows
            how sure the ranks are; None judges by the ranks alone (:func:`moves`).
        selectivity: (U, classes), mean response to a class, in standard deviations from the mean over all.
        classes: a name for each class.
        notes: (U,), a line more, for example the part and measure that change most.
        title: above everything.

    Raises:
        ValueError: shapes that do not fit, another number of anything than units, or more than 45 units.

    Example:
        >>> low, high = torch.rand(2, 2, 1, 8, 8)
        >>> figure = unit_sheet(low, high, units=[3, 7], ranks=torch.ones(2), followed=torch.ones(2), count=64)
        >>> figure.savefig("units.png")  # doctest: +SKIP
    """
    lengths: dict[str, Sequence[object] | Tensor | None] = {
        "units": units,
        "ranks": ranks,
        "followed": followed,
        "verdicts": verdicts,
        "selectivity": selectivity,
        "notes": notes,
    }
    _check(low, high, lengths, selectivity, classes)
    change = (high.float() - low.float()).mean(1)
    judged = [moves(float(rank), float(rho), count) for rank, rho in zip(ranks, followed, strict=True)]
    if verdicts is not None:
        check_verdicts(*verdicts)
        judged = ["dead" if by_rank == "dead" else given for by_rank, given in zip(judged, verdicts, strict=True)]
    believed = torch.tensor([verdict in {"holds", "weak"} for verdict in judged])
    limit = limit_of(change[believed] if believed.any() else change)
    alive = [i for i, verdict in enumerate(judged) if verdict != "dead"]
    sheet = Sheet()
    top = sheet.heading(title, _summary(judged))
    named = [] if selectivity is None else [_most_different(row, classes) for row in selectivity]
    label = max((wide(name, LETTERS) for few in named for name, _ in few), default=0.0) + 0.05
    columns = COLUMNS if label < SHORT else COLUMNS - 1
    across = (PAGE - 2 * MARGIN - (columns - 1) * GAP) / columns
    largest = SMALL if selectivity is None else max(float(selectivity.abs().nan_to_num(0).max()), SMALL)
    tall = min(PICTURE * low.shape[-2] / low.shape[-1], TALLEST)
    side = tall * low.shape[-1] / low.shape[-2]
    lines = 1 + (notes is not None)
    for place, i in enumerate(alive):
        row, column = divmod(place, columns)
        left = MARGIN + column * (across + GAP)
        here = top + row * (tall + 0.2 + 0.145 * lines + 0.16)
        colour = INK if believed[i] else QUIET
        sheet.line(left, here, f"unit {units[i]}", size=9, bold=True, colour=colour)
        here += 0.19
        shown = 1.0 if believed[i] else FADED
        for k, picture in enumerate((low[i], high[i], change[i])):
            x = left + k * (side + THIN)
            axes = sheet.axes(x, here, side, tall)
            if k < 2:
                draw_photo(axes, shown * picture.float() + (1 - shown))
            else:
                draw_signed(axes, shown * picture, limit)
            _edge(axes)
        if selectivity is not None:
            x = left + 3 * (side + THIN) + 0.05
            _bars(sheet, x, here, left + across - x, tall, named[i], largest, label)
        here += tall + 0.03
        mark, words, ink = _said(judged[i], float(ranks[i]), float(followed[i]), count)
        sheet.line(left, here, clipped(f"{mark} {words}", across, 7.5), size=7.5, colour=ink)
        if notes is not None:
            sheet.line(left, here + 0.145, clipped(notes[i], across, 7.5), size=7.5, colour=INK)
    rows = -(-len(alive) // columns)
    top += rows * (tall + 0.2 + 0.145 * lines + 0.16)
    dead = [str(unit) for unit, verdict in zip(units, judged, strict=True) if verdict == "dead"]
    if dead:
        words = f"Dead, so without pictures: unit{'s' * (len(dead) > 1)} {', '.join(dead)}."
        top = sheet.paragraph(MARGIN, top, words, PAGE - 2 * MARGIN, size=8, colour=INK)
    return sheet.finish(
        sheet.paragraph(MARGIN, top, _legend(selectivity), PAGE - 2 * MARGIN, size=8, colour=QUIET) + 0.06
    )


def moves(rank: float, followed: float, count: int) -> str:
    """Whether a unit's pictures show that unit: "holds", "weak", "fails", or "dead" where it never moves.

    The same rule as that of a sweep (:class:`xinc_captum.metrics.fidelity.Fidelity`): a unit holds which moves most and
    follows with a Spearman of .8; it fails where that is below .5, or where a twentieth of the units move more.

    Example:
        >>> [moves(rank, 0.9, 64) for rank in (1.0, 3.0, 9.0, float("nan"))]
        ['holds', 'weak', 'fails', 'dead']
    """
    if rank != rank:
        return "dead"
    if not followed >= WEAKLY or rank > last_place(count):
        return "fails"
    return "holds" if rank <= 1 and followed >= FOLLOWS else "weak"


def _said(verdict: str, rank: float, followed: float, count: int) -> tuple[str, str, str]:
    mark, colour = VERDICTS[verdict]
    place = "moves most" if rank <= 1 else f"moves {ordinal(round(rank))}"
    words = f"{place} of {count}, follows {number(followed, 2)}"
    return mark, words if verdict != "fails" else f"does not show it: {words}", colour


def _summary(verdicts: Sequence[str]) -> str:
    counted = {verdict: verdicts.count(verdict) for verdict in ("holds", "weak", "fails", "dead")}
    words = {"holds": "✓ move themselves", "weak": "≈ partly", "fails": "✗ do not (faded)", "dead": "dead"}
    return f"of {len(verdicts)} units, " + ", ".join(f"{n} {words[key]}" for key, n in counted.items() if n)


def _legend(selectivity: Tensor | None) -> str:
    said = (
        "Each card: drawn low, drawn high, and the change: red is brighter with the unit high, blue darker, one scale "
    )
    said += "for the sheet."
    if selectivity is not None:
        said += (
            f" Bars: the {BARS} classes to which the unit's mean response differs most, red above its mean over all, "
        )
        said += "blue below, in standard deviations."
    said += " Moves: the unit's place among all units by how far each moves, in standard deviations, when the network "
    return said + "looks at the pictures. Follows: Spearman's correlation of the values set with those measured."


def _most_different(mine: Tensor, classes: Sequence[str] | None) -> list[tuple[str, float]]:
    """Names and means of the classes to which a unit's response differs most, the highest first."""
    chosen = mine.abs().argsort(descending=True)[:BARS].tolist()
    chosen.sort(key=lambda c: -float(mine[c]))
    return [(str(c) if classes is None else classes[c], float(mine[c])) for c in chosen]


def _bars(
    sheet: Sheet, left: float, top: float, across: float, tall: float, named: Sequence[tuple[str, float]],
    largest: float, label: float,
) -> None:  # fmt: skip
    """Names, then bars on a scale of their own beside them, then numbers."""
    label = min(label, across - NUMBER - BAR) if label >= SHORT else label
    step = tall / BARS
    axes = sheet.axes(left + label, top, across - label - NUMBER, tall)
    axes.set_xlim(-largest, largest)
    axes.set_ylim(BARS, 0)
    bare(axes)
    axes.axvline(0, color="#d8d8de", linewidth=0.8)
    for place, (name, value) in enumerate(named):
        here = top + (place + 0.5) * step - 0.065
        axes.barh(place + 0.5, value, height=0.8, color=ABOVE if value > 0 else BELOW)
        sheet.line(left, here, clipped(name, label, LETTERS), size=LETTERS)
        sheet.line(left + across, here, number(value, 1), size=7, colour=QUIET, align="right")


def _edge(axes: Axes) -> None:
    bare(axes)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)
        spine.set_edgecolor("#d8d8de")


def _check(
    low: Tensor,
    high: Tensor,
    lengths: dict[str, Sequence[object] | Tensor | None],
    selectivity: Tensor | None,
    classes: Sequence[str] | None,
) -> None:
    if low.dim() != 4 or not len(low) or low.shape != high.shape:
        raise ValueError(f"low and high have shapes {tuple(low.shape)} and {tuple(high.shape)}; expected (U, C, H, W).")
    if len(low) > A_PAGE:
        raise ValueError(f"{len(low)} units for one sheet; expected at most {A_PAGE}. Draw one sheet for each page.")
    for name, given in lengths.items():
        if given is not None and len(given) != len(low):
            raise ValueError(f"{len(given)} {name} for {len(low)} pictures; expected one a unit.")
    if classes is not None and (selectivity is None or selectivity.shape[1] != len(classes)):
        shape = None if selectivity is None else tuple(selectivity.shape)
        raise ValueError(f"{len(classes)} classes for selectivity of shape {shape}; expected (U, {len(classes)}).")
