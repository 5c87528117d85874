"""Accentuation rows, dose strip, curves, class bars."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .layout import MARGIN, PAGE, Sheet, broken, check_verdicts, verdict_line, wide
from .style import INK, QUIET, array, bare, draw_heat, draw_photo, legend_of, new_figure

GAP = 0.07  # inches between pictures
TALLEST = 3.0  # inches of one picture
PAPER = 0.94  # what shows where nothing mattered


def accentuation_rows(
    photos: Tensor,
    cams: Tensor | None,
    images: Tensor,
    opacities: Tensor,
    *,
    titles: Sequence[str],
    notes: Sequence[str] | None = None,
    trusts: Sequence[tuple[str, str]] | None = None,
    cam_name: str = "Grad-CAM: where",
    heading: str = "What a feature sees in this photo",
) -> Figure:
    """One row a feature: the photo, where the feature is found in it, accentuated, and accentuated through its mask.

    Args:
        photos: (N, C, H, W) in [0, 1], one for all rows or one a row.
        cams: (N, H, W), large where important, or None for no such column.
        images: (N, C, H, W), accentuated.
        opacities: (N, 1, H, W) in [0, 1]: the rest is paper.
        titles: each row's feature.
        notes: a line below each title, for example the score before and after.
        trusts: each row's verdict ("holds", "weak" or "fails") and the reason, said below the row.
        cam_name: the column of ``cams``.
        heading: above everything.

    Raises:
        ValueError: shapes that do not fit, a wrong number of titles, notes or trusts, or an unknown verdict.

    Example:
        >>> photo, images = torch.rand(1, 3, 8, 12), torch.rand(2, 3, 8, 12)
        >>> masks = torch.rand(2, 1, 8, 12)
        >>> figure = accentuation_rows(photo, masks[:, 0], images, masks, titles=["lion", "lynx"])
        >>> figure.savefig("accentuated.png")  # doctest: +SKIP
    """
    _check(photos, cams, images, opacities, {"titles": titles, "notes": notes, "trusts": trusts})
    check_verdicts(*(verdict for verdict, _ in trusts or ()))
    columns = ["the photo", *([] if cams is None else [cam_name]), "accentuated: what", "what, where it mattered"]
    cell = (PAGE - 2 * MARGIN - (len(columns) - 1) * GAP) / len(columns)
    height, width = images.shape[-2:]
    tall = min(cell * height / width, TALLEST)
    shown = tall * width / height
    sheet = Sheet()
    top = sheet.heading(
        heading,
        "accentuated: changed so that the network sees more of the feature, and kept close to the photo",
    )
    lefts = [MARGIN + i * (cell + GAP) for i in range(len(columns))]
    for row, title in enumerate(titles):
        top = sheet.paragraph(MARGIN, top, title, PAGE - 2 * MARGIN, size=11, bold=True)
        if notes is not None:
            top = sheet.paragraph(MARGIN, top, notes[row], PAGE - 2 * MARGIN, size=8.5, colour=QUIET)
        top += 0.04
        below = [
            sheet.paragraph(left + cell / 2, top, name, cell, size=8.5, align="center")
            for left, name in zip(lefts, columns, strict=True)
        ]
        top = max(below) + 0.02
        places = [sheet.axes(left + (cell - shown) / 2, top, shown, tall) for left in lefts]
        photo = photos[row if len(photos) > 1 else 0]
        draw_photo(places[0], photo)
        if cams is not None:
            draw_heat(places[1], photo, cams[row])
        draw_photo(places[-2], images[row])
        draw_photo(places[-1], _on_paper(images[row], opacities[row]))
        for place in places:
            bare(place)
        top += tall + 0.08
        if trusts is not None:
            top = verdict_line(sheet, top, *trusts[row])
        top += 0.16
    return sheet.finish(top - 0.06)


def _on_paper(image: Tensor, opacity: Tensor) -> Tensor:
    image = image.clamp(0, 1).float().cpu()
    opacity = opacity.float().cpu()
    return opacity * image + (1 - opacity) * PAPER


def _check(
    photos: Tensor,
    cams: Tensor | None,
    images: Tensor,
    opacities: Tensor,
    words: dict[str, Sequence[object] | None],
) -> None:
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (N, C, H, W), one a feature.")
    rows, size = len(images), tuple(images.shape[2:])
    if photos.dim() != 4 or len(photos) not in {1, rows} or tuple(photos.shape[2:]) != size:
        raise ValueError(
            f"photos have shape {tuple(photos.shape)} for images of shape {tuple(images.shape)}; expected one for all "
            "rows, or one a row, of the same height and width."
        )
    for name, maps, expected in (("cams", cams, (rows, *size)), ("opacities", opacities, (rows, 1, *size))):
        if maps is not None and tuple(maps.shape) != expected:
            raise ValueError(f"{name} have shape {tuple(maps.shape)}; expected {expected}.")
    for name, said in words.items():
        if said is not None and len(said) != rows:
            raise ValueError(f"{len(said)} {name} for {rows} rows; expected one a row.")


CLASS_GAP = 0.25  # inches between columns
CLASSES_A_LINE = 3  # columns
BAR, MARKED = "#dfe6f1", "#9dbbe6"
SIZE, STEP = 8.5, 0.23  # points of a label, inches of a bar


def class_bars(answers: Mapping[str, Sequence[tuple[str, float]]], *, marked: Sequence[str] = ()) -> Figure:
    """One list of bars for each image: labels and probabilities, likeliest first.

    Args:
        answers: by the image's name, (label, probability) in [0, 1].
        marked: labels that stand out, because they were asked for.

    Raises:
        ValueError: no answers.

    Example:
        >>> figure = class_bars({"the photo": [("tabby", 0.9), ("lynx", 0.05)], "after": [("lynx", 0.8)]})
        >>> len(figure.axes)
        2
    """
    if not answers:
        raise ValueError("answers is empty; give at least one image's: {'the photo': [('tabby', 0.9)]}.")
    columns = min(len(answers), CLASSES_A_LINE)
    across = (PAGE - 2 * MARGIN - (columns - 1) * CLASS_GAP) / columns
    sheet = Sheet()
    top = sheet.heading("What the network answers", "its likeliest classes, with their probabilities")
    names = list(answers)
    for start in range(0, len(names), columns):
        row = names[start : start + columns]
        lefts = [MARGIN + i * (across + CLASS_GAP) for i in range(len(row))]
        below = max(
            sheet.paragraph(left, top, name, across, size=10, bold=True) for left, name in zip(lefts, row, strict=True)
        )
        bottoms = [
            _bars(sheet, left, below + 0.05, across, answers[name], marked)
            for left, name in zip(lefts, row, strict=True)
        ]
        top = max(bottoms) + 0.2
    return sheet.finish(top - 0.08)


def _bars(
    sheet: Sheet, left: float, top: float, across: float, answer: Sequence[tuple[str, float]], marked: Sequence[str]
) -> float:
    axes = sheet.axes(left, top, across, STEP * len(answer))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(answer) - 0.5, -0.5)
    bare(axes)
    for i, (label, chance) in enumerate(answer):
        stands_out = label in marked
        axes.barh(i, 1, height=0.84, color="#f4f4f6")
        axes.barh(i, chance, height=0.84, color=MARKED if stands_out else BAR)
        room = across - wide("100 %", SIZE) - 0.2
        lines = broken(label, room, SIZE, bold=stands_out)
        short = lines[0] if len(lines) == 1 else f"{lines[0]} …"
        line = top + i * STEP + 0.04
        sheet.line(left + 0.06, line, short, size=SIZE, bold=stands_out)
        sheet.line(left + across - 0.06, line, percent(chance), size=SIZE, colour=INK, align="right")
    return top + STEP * len(answer)


def percent(chance: float) -> str:
    """A probability as people read it.

    Example:
        >>> percent(0.004), percent(0.431)
        ('<1 %', '43 %')
    """
    if 0 < chance < 0.01:
        return "<1 %"
    if 0.99 < chance < 1:
        return ">99 %"
    return f"{100 * chance:.0f} %"


DASHES = ("-", "--", ":", "-.")  # so that lines differ without their colours
COLOURS = ("#1f5fa8", "#c4561a", "#3a7d44", "#8a4a9e", "#6b6b6b", "#b08900")


def score_curve(
    scores: Tensor,
    distances: Tensor | None = None,
    *,
    titles: Sequence[str],
    unit: str = "score",
    layer: str | None = None,
) -> Figure:
    """How the score and the distance to the photo grew, step by step, one line a feature.

    Args:
        scores: (steps, N), nan where a row had arrived.
        distances: (steps, N) likewise, or None.
        titles: each line's feature.
        unit: what the score is: "logit", "activation" …
        layer: where the distance was measured.

    Raises:
        ValueError: another number of dims, or of titles.

    Example:
        >>> figure = score_curve(torch.rand(9, 2).cumsum(0), torch.rand(9, 2), titles=["lion", "lynx"], unit="logit")
        >>> figure.axes[0].get_xlabel()
        'steps made'
    """
    if scores.dim() != 2 or scores.shape[1] != len(titles):
        raise ValueError(
            f"scores have shape {tuple(scores.shape)} for {len(titles)} titles; expected (steps, rows), a title a row."
        )
    if distances is not None and distances.shape != scores.shape:
        raise ValueError(
            f"distances have shape {tuple(distances.shape)}; expected that of the scores, {tuple(scores.shape)}."
        )
    panels = [(scores, f"{unit}, mean over the views", "the score")]
    if distances is not None:
        where = f" at {layer}" if layer else ""
        panels.append((distances, f"distance of features{where}", "distance to the photo, held down meanwhile"))
    figure = new_figure(PAGE, 3.1 + 0.2 * ((len(titles) + 2) // 3))
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.set(w_pad=0.12, h_pad=0.08)  # type: ignore[call-arg]
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (values, name, words) in zip(drawn, panels, strict=True):
        for row in range(len(titles)):
            style = {"color": COLOURS[row % len(COLOURS)], "linestyle": DASHES[row % len(DASHES)]}
            axes.plot(array(values[:, row]), linewidth=1.8, **style)
        axes.set_title(words, fontsize=10, color=INK)
        axes.set_xlabel("steps made", fontsize=9)
        axes.set_ylabel(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6ea", linewidth=0.8)
    columns = min(3, len(titles))
    legend_of(
        figure, drawn[0].get_lines(), titles, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False
    )
    return figure


DOSE_GAP = 0.07  # inches between pictures
WIDEST, DOSE_TALLEST = 2.2, 3.0  # inches of one picture
DOSES_A_LINE = 6  # pictures


def dose_strip(
    images: Tensor,
    doses: Sequence[float],
    *,
    seed: Tensor,
    title: str,
    labels: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
) -> Figure:
    """One photo at several doses of a feature, from left to right, the photo itself in a frame at dose 0.

    Args:
        images: (K, C, H, W) in [0, 1].
        doses: one an image; where none is 0, the seed is put among them.
        seed: (C, H, W), the photo itself.
        title: the feature.
        labels: a line above each image instead of its dose.
        notes: a line below each image, for example its score.

    Raises:
        ValueError: shapes that do not fit, or another number of doses, labels or notes.

    Example:
        >>> figure = dose_strip(torch.rand(3, 3, 8, 12), [-0.5, 0.5, 1], seed=torch.rand(3, 8, 12), title="lion")
        >>> len(figure.axes)
        4
    """
    _check_dose(images, doses, seed, {"labels": labels, "notes": notes})
    above = list(labels) if labels is not None else [_dose(dose) for dose in doses]
    below = list(notes) if notes is not None else ["the photo itself" if dose == 0 else "" for dose in doses]
    cells = list(zip(doses, images, above, below, strict=True))
    if 0 not in doses:
        cells.append((0, seed, "the photo itself" if labels else _dose(0), "" if labels else "the photo itself"))
    cells.sort(key=lambda one: one[0])
    columns = min(len(cells), DOSES_A_LINE)
    cell = min(WIDEST, (PAGE - 2 * MARGIN - (columns - 1) * DOSE_GAP) / columns)
    height, width = images.shape[-2:]
    tall = min(cell * height / width, DOSE_TALLEST)
    shown = tall * width / height
    sheet = Sheet()
    how = "the photo itself is in the frame" if labels else "dose 0 is the photo itself, bit for bit"
    top = sheet.heading(f"The same photo, {_way(doses)} {title}", how)
    left = (PAGE - columns * cell - (columns - 1) * DOSE_GAP) / 2
    for start in range(0, len(cells), columns):
        bottoms = []
        for i, (dose, image, label, note) in enumerate(cells[start : start + columns]):
            x = left + i * (cell + DOSE_GAP) + cell / 2
            under = sheet.paragraph(x, top, label, cell, size=9, bold=dose == 0, align="center") + 0.03
            axes = sheet.axes(x - shown / 2, under, shown, tall)
            draw_photo(axes, image)
            bare(axes)
            if dose == 0:
                _frame(axes)
            bottoms.append(sheet.paragraph(x, under + tall + 0.05, note, cell, size=8, colour=QUIET, align="center"))
        top = max(bottoms) + 0.12
    return sheet.finish(top)


def _way(doses: Sequence[float]) -> str:
    if min(doses) < 0 < max(doses):
        return "from less to more"
    return "less and less" if min(doses) < 0 else "more and more"


def _dose(dose: float) -> str:
    return "dose 0" if dose == 0 else f"dose {dose:.2f}".replace("-", "−")


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(2.2)
        spine.set_edgecolor(INK)


def _check_dose(images: Tensor, doses: Sequence[float], seed: Tensor, words: dict[str, Sequence[str] | None]) -> None:
    if images.dim() != 4 or len(images) != len(doses) or not len(images):
        raise ValueError(f"images have shape {tuple(images.shape)} for {len(doses)} doses; expected one a dose.")
    if tuple(seed.shape) != tuple(images.shape[1:]):
        raise ValueError(f"seed has shape {tuple(seed.shape)}; expected that of one image, {tuple(images.shape[1:])}.")
    for name, said in words.items():
        if said is not None and len(said) != len(doses):
            raise ValueError(f"{len(said)} {name} for {len(doses)} doses; expected one a dose.")
