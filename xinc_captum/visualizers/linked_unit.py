"""Figures of linked units: filmstrips from low to high values, a table of class selectivity, one card per unit."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..metrics.trust import Verdict
from .layout import (
    Sheet,
    array,
    bar_axes,
    bare,
    check_axes,
    check_verdicts,
    clip_text,
    decimals_over,
    draw_photo,
    draw_signed,
    even_indices,
    finite_range,
    frame,
    limit_of,
    number,
    number_duplicates,
    ordinal,
    text_width,
)
from .style import BLUE, EDGE, IMAGE_GAP, INK, MARGIN, ORANGE, PAGE, QUIET, VERDICTS

STRIP_LABEL = 1.0  # inches left of the images
GAUGE = 0.15  # inches of the line with the values set and measured
TRACK = "#c9c9d1"


def unit_filmstrips(
    images: Tensor,
    values: Tensor,
    measured: Tensor,
    *,
    rows: Sequence[str],
    notes: Sequence[str] | None = None,
    bases: Tensor | None = None,
    originals: Tensor | None = None,
    original_predictions: Sequence[str] | None = None,
    predictions: Sequence[Sequence[str]] | None = None,
    origins: Sequence[str] | None = None,
    trust: Verdict | tuple[str, str] | None = None,
    title: str = "One unit, from low to high",
    columns: int = 6,
) -> Figure:
    """Draw one row per image (or unit) and one column per value, with the value set and the value measured below.

    Below an image stand the value that the unit was set to (▽ on the line) and the value measured when the image is
    encoded again (●). At the right: last image minus first, and measured against set values, where the grey diagonal is
    a unit that follows exactly. An orange frame marks images whose predicted class differs from ``origins``.

    Args:
        images: (N, S, C, H, W) in [0, 1].
        values: (S,), one scale for all rows, or (N, S), one scale per row.
        measured: (N, S), the unit in the encoded images.
        rows: name of each row; equal names are numbered.
        notes: line below each name, for example how well the unit moves.
        bases: (N, C, H, W), images before the unit is changed, shown first.
        originals: (N, C, H, W), the images that ``bases`` are reconstructions of, shown before them.
        original_predictions: (N,), predicted class names of the originals.
        predictions: (N, S), predicted class names of the images.
        origins: (N,), predicted class names before; None uses those of the first images.
        trust: verdict ("holds", "weak" or "fails") and the reason, shown below.
        title: title of the figure.
        columns: number of values that are shown at most; of more, the first, the last and evenly spaced ones.

    Example:
        >>> frames, values = torch.rand(2, 3, 1, 8, 8), torch.tensor([0.0, 1.0, 2.0])
        >>> figure = unit_filmstrips(frames, values, torch.rand(2, 3), rows=["a three", "an eight"])
    """
    check_axes(
        images=(images, "N, S, C, H, W"), values=(values, "S" if values.dim() == 1 else "N, S"),
        measured=(measured, "N, S"), bases=(bases, "N, C, H, W"), originals=(originals, "N, C, H, W"),
        rows=(rows, "N"), notes=(notes, "N"), predictions=(predictions, "N"), origins=(origins, "N"),
        original_predictions=(original_predictions, "N"),
    )  # fmt: skip
    count, steps = images.shape[:2]
    if steps < 2:
        raise ValueError(f"images has shape {tuple(images.shape)}; expected (N, S, C, H, W) with at least two values.")
    if originals is not None and bases is None:
        raise ValueError("originals is given without bases; expected the reconstructions of the originals too.")
    for name, labels in zip(rows, predictions or (), strict=False):
        check_axes({"S": steps}, **{f"predictions of {name}": (labels, "S")})
    indices = even_indices(steps, columns)
    values = values.expand(count, steps).double().cpu()
    measured = measured.double().cpu()
    shared = bool((values == values[0]).all())
    cells = len(indices) + 2 + (bases is not None) + (originals is not None)
    first = int(originals is not None)  # the column of the bases
    cell = min(1.15, (PAGE - 2 * MARGIN - STRIP_LABEL - cells * IMAGE_GAP) / cells)
    height = cell * images.shape[-2] / images.shape[-1]
    lefts = [MARGIN + STRIP_LABEL + IMAGE_GAP + i * (cell + IMAGE_GAP) for i in range(cells)]
    strip = lefts[-len(indices) - 2 : -2]
    change = (images[:, -1] - images[:, 0]).float().mean(1)
    limit = limit_of(change)
    everything = torch.cat([values, measured], 1)
    reach = (values.amax(1) - values.amin(1)).nan_to_num(0)
    decimals = decimals_over(float(reach.max()), float(everything.nan_to_num(0).abs().max()))
    sheet = Sheet()
    top = sheet.heading(title, "below each picture: the value that was set (▽) → the value that was measured (●)")
    titles = dict.fromkeys(lefts, "") | {strip[0]: "lowest", strip[-1]: "highest", lefts[-2]: "what changed"}
    titles |= {lefts[-1]: "measured vs set"} | ({lefts[first]: "unchanged"} if bases is not None else {})
    titles |= {lefts[0]: "the picture", lefts[1]: "linked"} if originals is not None else {}
    size = 8.5 * min(1.0, cell / 0.94)  # the longest title takes 0.94 inches
    for x, text in titles.items():
        sheet.line(x + cell / 2, top, text, size=size, align="center")
    top += 0.2
    for row, name in enumerate(number_duplicates(rows)):
        low, high = finite_range(everything if shared else everything[row])
        space = 0.09 * (high - low) or 0.5  # for the marks
        span = low - space, high + space
        line = sheet.paragraph(MARGIN, top, name, STRIP_LABEL, size=9, bold=True)
        if notes is not None:
            line = sheet.paragraph(MARGIN, line, notes[row], STRIP_LABEL, size=7.5, colour=QUIET)
        labels = list(predictions[row]) if predictions is not None else [""] * steps
        origin = labels[0] if origins is None else origins[row]
        if bases is not None:
            before = [(bases[row], origin)]
            if originals is not None:
                before.insert(0, (originals[row], "" if original_predictions is None else original_predictions[row]))
            for x, (photo, label) in zip(lefts, before, strict=False):
                draw_photo(sheet.axes(x, top, cell, height), photo)
                below = top + height + GAUGE + 0.17
                sheet.line(x + cell / 2, below, clip_text(label, cell, 8), size=8, align="center")
        for x, i in zip(strip, indices, strict=True):
            flipped = labels[i] != origin
            axes = sheet.axes(x, top, cell, height)
            draw_photo(axes, images[row, i])
            if flipped:
                frame(axes, ORANGE, 2.4)
            _gauge(sheet.axes(x, top + height + 0.03, cell, GAUGE), values[row, i], measured[row, i], span)
            pair = f"{number(float(values[row, i]), decimals)} → {number(float(measured[row, i]), decimals)}"
            below = sheet.line(x + cell / 2, top + height + GAUGE + 0.04, pair, size=7, colour=QUIET, align="center")
            text = clip_text(f"now {labels[i]}" if flipped else labels[i], cell, 8, bold=flipped)
            colour = ORANGE if flipped else INK
            sheet.line(x + cell / 2, below, text, size=8, colour=colour, bold=flipped, align="center")
        axes = sheet.axes(lefts[-2], top, cell, height)
        draw_signed(axes, change[row], limit)
        frame(axes, TRACK)
        flips = torch.tensor([label != origin for label in labels])
        _response(sheet.axes(lefts[-1], top, cell, height), values[row], measured[row], span, flips)
        top = max(line, top + height + GAUGE + 0.18 + (0.15 if predictions is not None else 0)) + 0.09
    how = "What changed: red is brighter at the highest value than at the lowest, blue darker; one scale for all rows. "
    how += "Measured vs set: measured over set values; a unit on the grey line follows the set values exactly."
    how += " Orange: another class is predicted than before." if predictions is not None else ""
    top = sheet.note(top, how)
    return sheet.finish((sheet.verdict(top + 0.05, *trust) if trust else top) + 0.06)


def _gauge(axes: Axes, target: Tensor, measured: Tensor, span: tuple[float, float]) -> None:
    """Mark the value set (▽) and the value measured (●) on a line."""
    axes.axhline(0, color=TRACK, linewidth=1.4)
    axes.plot([float(target), float(measured)], [0, 0], color=INK, linewidth=1.4)
    axes.plot(float(target), 0.45, "v", color="white", markeredgecolor=INK, markersize=4.5, markeredgewidth=0.9)
    axes.plot(float(measured), 0, "o", color=INK, markersize=4)
    axes.set_xlim(*span)
    axes.set_ylim(-1, 1)
    bare(axes)


def _response(axes: Axes, target: Tensor, measured: Tensor, span: tuple[float, float], flips: Tensor) -> None:
    """Plot measured against set values, with orange dots where the predicted class differs."""
    axes.plot(span, span, color=TRACK, linewidth=1)
    axes.plot(array(target), array(measured), "-o", color=INK, markersize=3, linewidth=1.2)
    axes.plot(array(target[flips]), array(measured[flips]), "o", color=ORANGE, markersize=3.4)
    axes.set_xlim(*span)
    axes.set_ylim(*span)
    frame(axes, TRACK)


TABLE_ROW, TABLE_HEADER = 0.185, 1.3  # inches of a line, and of the longest class name above a column
NARROW_COLUMN, WIDE_COLUMN = 0.36, 0.85  # inches: numbers are written from the first on; columns grow to the second
TABLE_LABEL, TABLE_SHARE = 0.85, 1.0  # inches left of the table, and of the bars at its right
MAX_UNITS = 60
MIN_LIMIT = 0.1  # standard deviations at the end of a scale, at least: what is written as 0.0 must look like 0


def selectivity_table(
    means: Tensor,
    *,
    units: Sequence[int],
    classes: Sequence[str],
    explained: Tensor | None = None,
    ordered: bool = True,
    title: str = "Which classes drive which units",
) -> Figure:
    """Draw a table of mean responses, one line per unit and one column per class, red above the mean over all.

    Args:
        means: (U, classes), mean response to each class in standard deviations from the unit's mean over all.
        units: (U,), unit numbers in the layer.
        classes: name of each column.
        explained: (U,), share in [0, 1] of each unit's variance that the classes explain, drawn at the right.
        ordered: sort lines by the class with the largest response, and by that response; False keeps their order.
        title: title of the figure.

    Raises:
        ValueError: more than 60 units.

    Example:
        >>> figure = selectivity_table(torch.randn(4, 3), units=range(4), classes=["cat", "dog", "owl"])
    """
    count = len(units)
    sizes = {"units": count, "classes": len(classes)}
    check_axes(sizes, means=(means, "units, classes"), explained=(explained, "units"))
    if count > MAX_UNITS:
        raise ValueError(f"{count} units for one table; expected at most {MAX_UNITS}. Choose the most selective ones.")
    means = means.detach().float().cpu()
    strongest, favourite = means.nan_to_num(-torch.inf).max(1)
    lines = list(range(count))
    if ordered:
        lines.sort(key=lambda u: (int(favourite[u]), -float(strongest[u])))
    available = PAGE - 2 * MARGIN - TABLE_LABEL - (TABLE_SHARE + 0.25 if explained is not None else 0)
    column = min(WIDE_COLUMN, available / len(classes))
    width = column * len(classes)
    x = MARGIN + TABLE_LABEL + (available - width) / 2
    sheet = Sheet()
    top = sheet.heading(
        title, "mean response to a class, in standard deviations of the unit; red: above its mean over all, blue: below"
    )
    top += _draw_class_names(sheet, x, top, width, classes)
    limit = max(float(means.abs().nan_to_num(0).max()), MIN_LIMIT)
    table = sheet.axes(x, top, width, TABLE_ROW * len(lines))
    draw_signed(table, means[lines], limit, aspect="auto")
    for row, unit in enumerate(lines):
        sheet.line(x - 0.08, top + row * TABLE_ROW + 0.025, f"unit {units[unit]}", size=8, align="right")
        for c in range(len(classes)) if column >= NARROW_COLUMN else ():
            value = float(means[unit, c])
            ink = "white" if abs(value) > 0.55 * limit else INK
            bold = "bold" if c == int(favourite[unit]) else "normal"
            table.text(c, row, number(value, 1), fontsize=7, ha="center", va="center", color=ink, weight=bold)
    bottom = top + TABLE_ROW * len(lines)
    if explained is not None:
        x += width + 0.25
        sheet.paragraph(x, top - 0.3, "variance between classes", TABLE_SHARE, size=7.5, colour=QUIET)
        _draw_shares(sheet.axes(x, top, TABLE_SHARE, TABLE_ROW * len(lines)), explained[lines])
    return sheet.finish(bottom + 0.12)


def _draw_class_names(sheet: Sheet, x: float, top: float, width: float, classes: Sequence[str]) -> float:
    """Write the names of the classes above their columns, rotated where they are long; return the height."""
    column = width / len(classes)
    rotated = any(text_width(name, 8) > column - 0.04 for name in classes)
    height = min(TABLE_HEADER, max(text_width(name, 8) for name in classes) + 0.08) if rotated else 0.2
    header = sheet.axes(x, top, width, height)
    bare(header)
    header.set_xlim(0, len(classes))
    header.set_ylim(0, 1)
    header.patch.set_visible(False)
    for c, name in enumerate(classes):
        label = clip_text(name, TABLE_HEADER - 0.1, 8) if rotated else name
        text = header.text(c + 0.5, 0.06, label, fontsize=8, ha="center", va="bottom", color=INK, parse_math=False)
        text.set_rotation(90 if rotated else 0)
    return height


def _draw_shares(axes: Axes, explained: Tensor) -> None:
    shares = array(explained)
    bar_axes(axes, len(shares), 0, 1, zero=0.8)
    axes.barh(range(len(shares)), shares, height=0.72, color=BLUE)
    for row, share in enumerate(shares):
        inside = share > 0.6
        axes.text(share + (-0.03 if inside else 0.03), row, f"{100 * share:.0f} %", fontsize=7, va="center",
                  ha="right" if inside else "left", color="white" if inside else INK)  # fmt: skip


CARD_COLUMNS, MAX_CARDS = 3, 45
CARD_GAP, CARD_IMAGE_GAP = 0.22, 0.04  # inches between cards, and between the images of a card
CLASSES = 3  # classes on a card
VALUE_WIDTH = 0.28  # inches of the number beside a bar
CLASS_SIZE = 7.5  # points of the name of a class
SHORT_NAME, MIN_BAR = 0.2, 0.4  # inches: with longer names there are fewer columns; bars are at least so wide
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
        ValueError: more than 45 units.

    Example:
        >>> low, high = torch.rand(2, 2, 1, 8, 8)
        >>> one = torch.ones(2)
        >>> figure = unit_sheet(low, high, units=[3, 7], ranks=one, followed=one, count=64, verdicts=["holds", "weak"])
    """
    check_axes(
        low=(low, "U, C, H, W"), high=(high, "U, C, H, W"), ranks=(ranks, "U"), followed=(followed, "U"),
        selectivity=(selectivity, "U, classes"), units=(units, "U"), verdicts=(verdicts, "U"), notes=(notes, "U"),
    )  # fmt: skip
    if len(low) > MAX_CARDS:
        raise ValueError(f"{len(low)} units for one sheet; expected at most {MAX_CARDS}. Draw several sheets.")
    if classes is not None and (selectivity is None or selectivity.shape[1] != len(classes)):
        shape = None if selectivity is None else tuple(selectivity.shape)
        raise ValueError(f"{len(classes)} classes for selectivity of shape {shape}; expected (U, {len(classes)}).")
    check_verdicts(*verdicts)
    change = (high.float() - low.float()).mean(1)
    states = ["dead" if bool(rank.isnan()) else verdict for rank, verdict in zip(ranks, verdicts, strict=True)]
    alive = [i for i, state in enumerate(states) if state != "dead"]
    reliable = [i for i in alive if states[i] != "fails"]
    limit = limit_of(change[reliable] if reliable else change)
    sheet = Sheet()
    labels = {"holds": "✓ hold", "weak": "≈ are weak", "fails": "✗ fail (faded)", "dead": "are dead"}
    counts = [f"{states.count(state)} {label}" for state, label in labels.items() if state in states]
    top = sheet.heading(title, f"of {len(states)} units, {', '.join(counts)}")
    top_classes = [] if selectivity is None else [_top_classes(row, classes) for row in selectivity]
    label = max((text_width(name, CLASS_SIZE) for few in top_classes for name, _ in few), default=0.0) + 0.05
    columns = CARD_COLUMNS if label < SHORT_NAME else CARD_COLUMNS - 1
    card = (PAGE - 2 * MARGIN - (columns - 1) * CARD_GAP) / columns
    largest = MIN_LIMIT if selectivity is None else max(float(selectivity.abs().nan_to_num(0).max()), MIN_LIMIT)
    height = min(0.66 * low.shape[-2] / low.shape[-1], 0.9)
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
        mark, ink = VERDICTS[states[i]]
        text = "moves most" if ranks[i] <= 1 else f"moves {ordinal(round(float(ranks[i])))}"
        text = f"{'' if i in reliable else 'not this unit: '}{text} of {count}, follows {number(float(followed[i]), 2)}"
        sheet.line(x, line, clip_text(f"{mark} {text}", card, 7.5), size=7.5, colour=ink)
        if notes is not None:
            sheet.line(x, line + 0.145, clip_text(notes[i], card, 7.5), size=7.5, colour=INK)
    top += -(-len(alive) // columns) * pitch
    dead = [str(unit) for unit, state in zip(units, states, strict=True) if state == "dead"]
    if dead:
        text = f"Dead, without pictures: unit{'s' * (len(dead) > 1)} {', '.join(dead)}."
        top = sheet.note(top, text, colour=INK)
    how = (
        "Each card: the picture at a low and at a high value of the unit, and the change: red is brighter at the high "
    )
    how += "value, blue darker; one scale for the sheet."
    if selectivity is not None:
        how += f" Bars: the {CLASSES} classes to which the unit's mean response differs most, red above its mean over "
        how += "all, blue below, in standard deviations."
    how += " Moves: the unit's rank among all units by their measured change in standard deviations. Follows: Spearman "
    how += "correlation of the values set and measured."
    return sheet.finish(sheet.note(top, how) + 0.06)


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
    bar_axes(axes, CLASSES, -largest, largest, zero=0.8, colour=EDGE)
    for i, (name, value) in enumerate(classes):
        line = top + (i + 0.5) * step - 0.065
        axes.barh(i, value, height=0.8, color="#f0b9a6" if value > 0 else "#b3cde6")
        sheet.line(x, line, clip_text(name, label, CLASS_SIZE), size=CLASS_SIZE)
        sheet.line(x + width, line, number(value, 1), size=7, colour=QUIET, align="right")
