"""Filmstrips, selectivity."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import MARGIN, PAGE, Sheet, check_verdicts, clipped, decimals_over, number, numbered, verdict_line, wide
from .style import INK, QUIET, SIGNED, array, bare, draw_photo, draw_signed, limit_of

GAP = 0.07  # inches between pictures
LABEL = 1.0  # inches left of them
WIDEST = 1.15
GAUGE = 0.15
HEAD = 0.79  # inches of the longest word above a column
FLIP = "#c4561a"
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
    trust: tuple[str, str] | None = None,
    title: str = "One unit, from low to high",
    columns: int = 6,
) -> Figure:
    """One row a picture (or a unit), one column a value of the unit; under each frame, whether the unit followed.

    Under a frame stand the value that the unit was set to (▽ on the line) and the one measured when the network looks
    at the frame (●). At the right: last frame minus first, and measured against set, where the grey diagonal is a unit
    that follows exactly. Frames whose answer is not ``origins``' are framed: the class has flipped on the way.

    Args:
        images: (N, S, C, H, W) in [0, 1].
        values: (S,), one scale for all rows, or (N, S), one scale a row.
        measured: (N, S), the unit in the re-encoded frames.
        rows: a name for each row; equal ones are numbered.
        notes: a line under each name, for example how well the row's unit moves.
        bases: (N, C, H, W), the pictures before the unit is touched, shown first.
        originals: (N, C, H, W), with ``bases``: the pictures that these are linked from, shown before them.
        original_predictions: (N,) words, what the network answers to the originals.
        predictions: what the network answers to each frame, (N, S) words.
        origins: (N,) words, the answer before; None: the first frame's.
        trust: verdict ("holds", "weak" or "fails") and the reason, said below.
        title: above everything.
        columns: at most so many frames; of more, the first, the last and some between, as evenly as they can be.

    Raises:
        ValueError: shapes that do not fit, fewer than two values, another number of names, or an unknown verdict.

    Example:
        >>> frames, values = torch.rand(2, 3, 1, 8, 8), torch.tensor([0.0, 1.0, 2.0])
        >>> figure = unit_filmstrips(frames, values, torch.rand(2, 3), rows=["a three", "an eight"])
        >>> figure.savefig("filmstrips.png")  # doctest: +SKIP
    """
    given: dict[str, Sequence[object] | None] = {
        "rows": rows,
        "notes": notes,
        "predictions": predictions,
        "origins": origins,
    }
    _check(images, values, measured, bases, given | {"original_predictions": original_predictions})
    if originals is not None and (bases is None or originals.shape != bases.shape):
        shape = None if bases is None else tuple(bases.shape)
        raise ValueError(f"originals have shape {tuple(originals.shape)}; expected the bases', {shape}.")
    check_verdicts(*([trust[0]] if trust else []))
    count = images.shape[1]
    kept = torch.linspace(0, count - 1, min(count, columns)).round().long().tolist()
    values = values.expand(len(images), count).double().cpu()
    measured = measured.double().cpu()
    shared = bool((values == values[0]).all())
    cells = len(kept) + 2 + (bases is not None) + (originals is not None)
    first = int(originals is not None)  # the column of the bases
    cell = min(WIDEST, (PAGE - 2 * MARGIN - LABEL - cells * GAP) / cells)
    tall = cell * images.shape[-2] / images.shape[-1]
    lefts = [MARGIN + LABEL + GAP + i * (cell + GAP) for i in range(cells)]
    films = lefts[-len(kept) - 2 : -2]
    change = (images[:, -1] - images[:, 0]).float().mean(1)
    limit = limit_of(change)
    everything = torch.cat([values, measured], 1)
    reach = (values.amax(1) - values.amin(1)).nan_to_num(0)
    decimals = decimals_over(float(reach.max()), float(everything.nan_to_num(0).abs().max()))
    sheet = Sheet()
    top = sheet.heading(
        title,
        "under each frame: what the unit was set to (▽) → what it is when the network looks at the frame (●)",
    )
    heads = dict.fromkeys(lefts, "") | {films[0]: "lowest", films[-1]: "highest", lefts[-2]: "what changed"}
    heads |= {lefts[-1]: "did it follow?"} | ({lefts[first]: "untouched"} if bases is not None else {})
    heads |= {lefts[0]: "the picture", lefts[1]: "linked"} if originals is not None else {}
    for left, head in heads.items():
        sheet.line(left + cell / 2, top, head, size=8.5 * min(1.0, cell / HEAD), align="center")
    top += 0.2
    for row, name in enumerate(numbered(rows)):
        span = _span(everything if shared else everything[row])
        line = sheet.paragraph(MARGIN, top, name, LABEL, size=9, bold=True)
        if notes is not None:
            line = sheet.paragraph(MARGIN, line, notes[row], LABEL, size=7.5, colour=QUIET)
        said = list(predictions[row]) if predictions is not None else [""] * count
        origin = said[0] if origins is None else origins[row]
        if bases is not None:
            shown = [(bases[row], origin)]
            if originals is not None:
                shown.insert(0, (originals[row], "" if original_predictions is None else original_predictions[row]))
            for left, (photo, word) in zip(lefts, shown, strict=False):
                _photo(sheet, left, top, cell, tall, photo)
                sheet.line(left + cell / 2, top + tall + GAUGE + 0.17, clipped(word, cell, 8), size=8, align="center")
        for left, i in zip(films, kept, strict=True):
            flipped = said[i] != origin
            _photo(sheet, left, top, cell, tall, images[row, i], FLIP if flipped else None)
            _gauge(sheet.axes(left, top + tall + 0.03, cell, GAUGE), values[row, i], measured[row, i], span)
            pair = f"{number(float(values[row, i]), decimals)} → {number(float(measured[row, i]), decimals)}"
            below = sheet.line(left + cell / 2, top + tall + GAUGE + 0.04, pair, size=7, colour=QUIET, align="center")
            words = clipped(f"now {said[i]}" if flipped else said[i], cell, 8, bold=flipped)
            colour = FLIP if flipped else INK
            sheet.line(left + cell / 2, below, words, size=8, colour=colour, bold=flipped, align="center")
        axes = sheet.axes(lefts[-2], top, cell, tall)
        draw_signed(axes, change[row], limit)
        _frame(axes, TRACK)
        flips = torch.tensor([word != origin for word in said])
        _response(sheet.axes(lefts[-1], top, cell, tall), values[row], measured[row], span, flips)
        top = max(line, top + tall + GAUGE + 0.18 + (0.15 if predictions is not None else 0)) + 0.09
    how = "What changed: red is brighter at the highest value than at the lowest, blue darker, one scale for all rows. "
    how += "Did it follow: ● over ▽, on the grey line a unit that does exactly as it is told."
    how += " Orange: the network answers another class than before." if predictions is not None else ""
    top = sheet.paragraph(MARGIN, top, how, PAGE - 2 * MARGIN, size=8, colour=QUIET)
    return sheet.finish((verdict_line(sheet, top + 0.05, *trust) if trust else top) + 0.06)


def _photo(
    sheet: Sheet, left: float, top: float, wide: float, tall: float, photo: Tensor, colour: str | None = None
) -> None:
    axes = sheet.axes(left, top, wide, tall)
    draw_photo(axes, photo)
    bare(axes)
    if colour:
        _frame(axes, colour, 2.4)


def _frame(axes: Axes, colour: str, width: float = 0.8) -> None:
    bare(axes)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(width)
        spine.set_edgecolor(colour)


def _gauge(axes: Axes, expected: Tensor, got: Tensor, span: tuple[float, float]) -> None:
    """Where on the scale the unit was set, and where it is."""
    axes.axhline(0, color=TRACK, linewidth=1.4)
    axes.plot([float(expected), float(got)], [0, 0], color=INK, linewidth=1.4)
    axes.plot(float(expected), 0.45, "v", color="white", markeredgecolor=INK, markersize=4.5, markeredgewidth=0.9)
    axes.plot(float(got), 0, "o", color=INK, markersize=4)
    axes.set_xlim(*span)
    axes.set_ylim(-1, 1)
    bare(axes)


def _response(axes: Axes, expected: Tensor, got: Tensor, span: tuple[float, float], flips: Tensor) -> None:
    axes.plot(span, span, color=TRACK, linewidth=1)
    axes.plot(array(expected), array(got), "-o", color=INK, markersize=3, linewidth=1.2)
    axes.plot(array(expected[flips]), array(got[flips]), "o", color=FLIP, markersize=3.4)
    axes.set_xlim(*span)
    axes.set_ylim(*span)
    _frame(axes, TRACK)


def _span(values: Tensor) -> tuple[float, float]:
    """A scale that holds all values, with room at its ends for the marks."""
    finite = values[values.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    room = 0.09 * (high - low) or 0.5
    return low - room, high + room


def _check(
    images: Tensor,
    values: Tensor,
    measured: Tensor,
    bases: Tensor | None,
    words: dict[str, Sequence[object] | None],
) -> None:
    if images.dim() != 5 or not len(images) or images.shape[1] < 2:
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, S, C, H, W) with at least two values.")
    rows, count = images.shape[:2]
    if tuple(values.shape) not in {(count,), (rows, count)}:
        raise ValueError(f"values have shape {tuple(values.shape)}; expected {(count,)} or {(rows, count)}.")
    if tuple(measured.shape) != (rows, count):
        raise ValueError(f"measured has shape {tuple(measured.shape)}; expected {(rows, count)}, one a frame.")
    if bases is not None and tuple(bases.shape) != (rows, *images.shape[2:]):
        raise ValueError(f"bases have shape {tuple(bases.shape)}; expected {(rows, *images.shape[2:])}.")
    for name, said in words.items():
        if said is not None and len(said) != rows:
            raise ValueError(f"{len(said)} {name} for {rows} rows; expected one a row.")
    for line in words["predictions"] or ():
        if len(line) != count:  # type: ignore[arg-type]
            raise ValueError(f"{len(line)} predictions for {count} frames of a row; expected one a frame.")  # type: ignore[arg-type]


ROW, TALL_NAME = 0.185, 1.3  # inches of a line, and of the longest name above a column
NARROW, BROAD = 0.36, 0.85  # inches of a column
SELECTIVITY_LABEL, SHARE = 0.85, 1.0  # inches left of the table, and of the bars at its right
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
    _check_selectivity(means, units, classes, explained)
    means = means.detach().float().cpu()
    strongest, favourite = means.nan_to_num(-torch.inf).max(1)
    key = sorted(range(len(means)), key=lambda u: (int(favourite[u]), -float(strongest[u])))
    lines = key if ordered else list(range(len(means)))
    room = PAGE - 2 * MARGIN - SELECTIVITY_LABEL - (SHARE + 0.25 if explained is not None else 0)
    column = min(BROAD, room / len(classes))
    written = column >= NARROW
    across = column * len(classes)
    left = MARGIN + SELECTIVITY_LABEL + (room - across) / 2
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
    return sheet.finish(bottom + 0.12)


def _check_selectivity(means: Tensor, units: Sequence[int], classes: Sequence[str], explained: Tensor | None) -> None:
    if tuple(means.shape) != (len(units), len(classes)) or not means.numel():
        raise ValueError(
            f"means have shape {tuple(means.shape)} for {len(units)} units and {len(classes)} classes; expected "
            f"{(len(units), len(classes))}."
        )
    if len(units) > MOST:
        raise ValueError(f"{len(units)} units for one table; expected at most {MOST}. Choose the most selective ones.")
    if explained is not None and tuple(explained.shape) != (len(units),):
        raise ValueError(f"explained has shape {tuple(explained.shape)}; expected {(len(units),)}, one a unit.")
