"""Figures of linked units: filmstrips from low to high values, and a table of class selectivity."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..metrics.trust import Verdict
from .layout import (
    IMAGE_GAP,
    MARGIN,
    PAGE,
    Sheet,
    check_lengths,
    check_verdicts,
    clip_text,
    decimals_over,
    even_indices,
    number,
    number_duplicates,
    text_width,
    verdict_line,
)
from .style import BLUE, INK, ORANGE, QUIET, SIGNED, array, bare, draw_photo, draw_signed, frame, limit_of

STRIP_LABEL = 1.0  # inches left of the images
STRIP_WIDTH = 1.15  # inches of an image, at most
GAUGE = 0.15  # inches of the line with the values set and measured
COLUMN_TITLE = 0.94  # inches of the longest title of a column
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

    Raises:
        ValueError: shapes that do not match, fewer than two values, a wrong number of names, or an unknown verdict.

    Example:
        >>> frames, values = torch.rand(2, 3, 1, 8, 8), torch.tensor([0.0, 1.0, 2.0])
        >>> figure = unit_filmstrips(frames, values, torch.rand(2, 3), rows=["a three", "an eight"])
        >>> figure.savefig("filmstrips.png")  # doctest: +SKIP
    """
    _check_strips(images, values, measured, bases, originals, predictions)
    check_lengths(
        len(images), "row", rows=rows, notes=notes, predictions=predictions, origins=origins,
        original_predictions=original_predictions,
    )  # fmt: skip
    check_verdicts(*list(trust or ())[:1])
    count = images.shape[1]
    indices = even_indices(count, columns)
    values = values.expand(len(images), count).double().cpu()
    measured = measured.double().cpu()
    shared = bool((values == values[0]).all())
    cells = len(indices) + 2 + (bases is not None) + (originals is not None)
    first = int(originals is not None)  # the column of the bases
    cell = min(STRIP_WIDTH, (PAGE - 2 * MARGIN - STRIP_LABEL - cells * IMAGE_GAP) / cells)
    height = cell * images.shape[-2] / images.shape[-1]
    lefts = [MARGIN + STRIP_LABEL + IMAGE_GAP + i * (cell + IMAGE_GAP) for i in range(cells)]
    strip = lefts[-len(indices) - 2 : -2]
    change = (images[:, -1] - images[:, 0]).float().mean(1)
    limit = limit_of(change)
    everything = torch.cat([values, measured], 1)
    reach = (values.amax(1) - values.amin(1)).nan_to_num(0)
    decimals = decimals_over(float(reach.max()), float(everything.nan_to_num(0).abs().max()))
    sheet = Sheet()
    top = sheet.heading(
        title,
        "below each picture: the value that was set (▽) → the value that was measured (●)",
    )
    titles = dict.fromkeys(lefts, "") | {strip[0]: "lowest", strip[-1]: "highest", lefts[-2]: "what changed"}
    titles |= {lefts[-1]: "measured vs set"} | ({lefts[first]: "unchanged"} if bases is not None else {})
    titles |= {lefts[0]: "the picture", lefts[1]: "linked"} if originals is not None else {}
    for x, text in titles.items():
        sheet.line(x + cell / 2, top, text, size=8.5 * min(1.0, cell / COLUMN_TITLE), align="center")
    top += 0.2
    for row, name in enumerate(number_duplicates(rows)):
        span = _span(everything if shared else everything[row])
        line = sheet.paragraph(MARGIN, top, name, STRIP_LABEL, size=9, bold=True)
        if notes is not None:
            line = sheet.paragraph(MARGIN, line, notes[row], STRIP_LABEL, size=7.5, colour=QUIET)
        labels = list(predictions[row]) if predictions is not None else [""] * count
        origin = labels[0] if origins is None else origins[row]
        if bases is not None:
            before = [(bases[row], origin)]
            if originals is not None:
                before.insert(0, (originals[row], "" if original_predictions is None else original_predictions[row]))
            for x, (photo, label) in zip(lefts, before, strict=False):
                axes = sheet.axes(x, top, cell, height)
                draw_photo(axes, photo)
                bare(axes)
                below = top + height + GAUGE + 0.17
                sheet.line(x + cell / 2, below, clip_text(label, cell, 8), size=8, align="center")
        for x, i in zip(strip, indices, strict=True):
            flipped = labels[i] != origin
            axes = sheet.axes(x, top, cell, height)
            draw_photo(axes, images[row, i])
            if flipped:
                frame(axes, ORANGE, 2.4)
            else:
                bare(axes)
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
    return sheet.finish((verdict_line(sheet, top + 0.05, *trust) if trust else top) + 0.06)


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


def _span(values: Tensor) -> tuple[float, float]:
    """Return a range that contains all finite values, with a margin for the marks."""
    finite = values[values.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    margin = 0.09 * (high - low) or 0.5
    return low - margin, high + margin


def _check_strips(
    images: Tensor,
    values: Tensor,
    measured: Tensor,
    bases: Tensor | None,
    originals: Tensor | None,
    predictions: Sequence[Sequence[str]] | None,
) -> None:
    if images.dim() != 5 or not len(images) or images.shape[1] < 2:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, S, C, H, W) with at least two values.")
    rows, count = images.shape[:2]
    if tuple(values.shape) not in {(count,), (rows, count)}:
        raise ValueError(f"values have shape {tuple(values.shape)}; expected {(count,)} or {(rows, count)}.")
    if tuple(measured.shape) != (rows, count):
        raise ValueError(f"measured has shape {tuple(measured.shape)}; expected {(rows, count)}, one per image.")
    if bases is not None and tuple(bases.shape) != (rows, *images.shape[2:]):
        raise ValueError(f"bases have shape {tuple(bases.shape)}; expected {(rows, *images.shape[2:])}.")
    if originals is not None and (bases is None or originals.shape != bases.shape):
        shape = None if bases is None else tuple(bases.shape)
        raise ValueError(f"originals have shape {tuple(originals.shape)}; expected the bases', {shape}.")
    for row in predictions or ():
        if len(row) != count:
            raise ValueError(f"{len(row)} predictions for {count} images of a row; expected one per image.")


TABLE_ROW, TABLE_HEADER = 0.185, 1.3  # inches of a line, and of the longest class name above a column
NARROW_COLUMN, WIDE_COLUMN = 0.36, 0.85  # inches: numbers are written from the first on; columns grow to the second
TABLE_LABEL, TABLE_SHARE = 0.85, 1.0  # inches left of the table, and of the bars at its right
MAX_UNITS = 60
MIN_LIMIT = 0.1  # standard deviations at the end of a scale, at least: what is written as 0.0 must look like 0
LIGHT_INK = 0.55  # share of the scale from which on numbers are white


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
        ValueError: shapes that do not match, or more than 60 units.

    Example:
        >>> figure = selectivity_table(torch.randn(4, 3), units=range(4), classes=["cat", "dog", "owl"])
        >>> figure.savefig("selectivity.png")  # doctest: +SKIP
    """
    _check_table(means, units, classes, explained)
    means = means.detach().float().cpu()
    strongest, favourite = means.nan_to_num(-torch.inf).max(1)
    key = sorted(range(len(means)), key=lambda u: (int(favourite[u]), -float(strongest[u])))
    lines = key if ordered else list(range(len(means)))
    room = PAGE - 2 * MARGIN - TABLE_LABEL - (TABLE_SHARE + 0.25 if explained is not None else 0)
    column = min(WIDE_COLUMN, room / len(classes))
    width = column * len(classes)
    x = MARGIN + TABLE_LABEL + (room - width) / 2
    sheet = Sheet()
    top = sheet.heading(
        title, "mean response to a class, in standard deviations of the unit; red: above its mean over all, blue: below"
    )
    top += _draw_class_names(sheet, x, top, width, classes)
    limit = max(float(means.abs().nan_to_num(0).max()), MIN_LIMIT)
    table = sheet.axes(x, top, width, TABLE_ROW * len(lines))
    table.imshow(array(means[lines]), cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    bare(table)
    for row, unit in enumerate(lines):
        sheet.line(x - 0.08, top + row * TABLE_ROW + 0.025, f"unit {units[unit]}", size=8, align="right")
        for c in range(len(classes)) if column >= NARROW_COLUMN else ():
            value = float(means[unit, c])
            ink = "white" if abs(value) > LIGHT_INK * limit else INK
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
    axes.barh(range(len(shares)), shares, height=0.72, color=BLUE)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(shares) - 0.5, -0.5)
    bare(axes)
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, share in enumerate(shares):
        inside = share > 0.6
        axes.text(share + (-0.03 if inside else 0.03), row, f"{100 * share:.0f} %", fontsize=7, va="center",
                  ha="right" if inside else "left", color="white" if inside else INK)  # fmt: skip


def _check_table(means: Tensor, units: Sequence[int], classes: Sequence[str], explained: Tensor | None) -> None:
    if tuple(means.shape) != (len(units), len(classes)) or not means.numel():
        raise ValueError(
            f"means have shape {tuple(means.shape)} for {len(units)} units and {len(classes)} classes; expected "
            f"{(len(units), len(classes))}."
        )
    if len(units) > MAX_UNITS:
        raise ValueError(
            f"{len(units)} units for one table; expected at most {MAX_UNITS}. Choose the most selective ones."
        )
    if explained is not None and tuple(explained.shape) != (len(units),):
        raise ValueError(f"explained has shape {tuple(explained.shape)}; expected {(len(units),)}, one per unit.")
