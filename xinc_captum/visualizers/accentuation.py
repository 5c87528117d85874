"""Figures of accentuations: rows of images, doses of a feature, score curves and class probabilities."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from .layout import (
    Sheet,
    add_legend,
    array,
    bar_axes,
    check_axes,
    draw_heat,
    draw_photo,
    frame,
    new_figure,
    percent,
    text_width,
    wrap,
)
from .style import IMAGE_GAP, INK, LINE_COLOURS, MARGIN, PAGE, QUIET


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
    heading: str = "What a feature responds to in this photo",
) -> Figure:
    """Draw one row per feature: the photo, a map of the feature in it, the accentuation, and its masked version.

    Args:
        photos: (N, C, H, W) in [0, 1], or (1, C, H, W), one photo for all rows.
        cams: (N, H, W), large where important, or None for no such column.
        images: (N, C, H, W), the accentuations.
        opacities: (N, 1, H, W) in [0, 1], opacity of the last column over grey paper.
        titles: feature of each row.
        notes: line below each title, for example the score before and after.
        trusts: verdict ("holds", "weak" or "fails") and reason of each row, shown below it.
        cam_name: title of the column of ``cams``.
        heading: title of the figure.

    Example:
        >>> photo, images = torch.rand(1, 3, 8, 12), torch.rand(2, 3, 8, 12)
        >>> masks = torch.rand(2, 1, 8, 12)
        >>> figure = accentuation_rows(photo, masks[:, 0], images, masks, titles=["lion", "lynx"])
        >>> figure.savefig("accentuated.png")  # doctest: +SKIP
    """
    one_or_all = "1, c, H, W" if len(photos) == 1 else "N, c, H, W"
    check_axes(
        images=(images, "N, C, H, W"), photos=(photos, one_or_all), cams=(cams, "N, H, W"),
        opacities=(opacities, "N, 1, H, W"), titles=(titles, "N"), notes=(notes, "N"), trusts=(trusts, "N"),
    )  # fmt: skip
    columns = ["the photo", cam_name, "accentuated: what", "accentuated, where it mattered"]
    if cams is None:
        del columns[1]
    cell = (PAGE - 2 * MARGIN - (len(columns) - 1) * IMAGE_GAP) / len(columns)
    width, height = _image_size(images, cell)
    sheet = Sheet()
    how = "accentuated: the photo changed so that the feature responds more, while it stays close to the photo"
    top = sheet.heading(heading, how)
    lefts = [MARGIN + i * (cell + IMAGE_GAP) for i in range(len(columns))]
    for row, title in enumerate(titles):
        top = sheet.paragraph(MARGIN, top, title, PAGE - 2 * MARGIN, size=11, bold=True)
        if notes is not None:
            top = sheet.note(top, notes[row], size=8.5)
        top += 0.04
        bottoms = [
            sheet.paragraph(x + cell / 2, top, name, cell, size=8.5, align="center")
            for x, name in zip(lefts, columns, strict=True)
        ]
        top = max(bottoms) + 0.02
        cells = [sheet.axes(x + (cell - width) / 2, top, width, height) for x in lefts]
        photo = photos[row if len(photos) > 1 else 0]
        draw_photo(cells[0], photo)
        if cams is not None:
            draw_heat(cells[1], photo, cams[row])
        draw_photo(cells[-2], images[row])
        image, opacity = images[row].clamp(0, 1).float().cpu(), opacities[row].float().cpu()
        draw_photo(cells[-1], opacity * image + (1 - opacity) * 0.94)  # over grey paper
        top += height + 0.08
        if trusts is not None:
            top = sheet.verdict(top, *trusts[row])
        top += 0.16
    return sheet.finish(top - 0.06)


def _image_size(images: Tensor, cell: float) -> tuple[float, float]:
    """Return width and height in inches of an image in a cell, at most 3 inches high."""
    height, width = images.shape[-2:]
    inches = min(cell * height / width, 3.0)
    return inches * width / height, inches


CLASS_GAP = 0.25  # inches between columns
CLASS_SIZE, CLASS_STEP = 8.5, 0.23  # points of a label, inches of a bar


def class_bars(predictions: Mapping[str, Sequence[tuple[str, float]]], *, marked: Sequence[str] = ()) -> Figure:
    """Draw one list of bars per image: labels and probabilities, the most probable first.

    Args:
        predictions: by the name of the image, pairs of label and probability in [0, 1].
        marked: labels to highlight, for example the targets.

    Example:
        >>> figure = class_bars({"the photo": [("tabby", 0.9), ("lynx", 0.05)], "after": [("lynx", 0.8)]})
    """
    if not predictions:
        raise ValueError("predictions is empty; expected at least one image: {'the photo': [('tabby', 0.9)]}.")
    columns = min(len(predictions), 3)
    width = (PAGE - 2 * MARGIN - (columns - 1) * CLASS_GAP) / columns
    sheet = Sheet()
    top = sheet.heading("What the network predicts", "the most probable classes, with their probabilities")
    names = list(predictions)
    for start in range(0, len(names), columns):
        row = {MARGIN + i * (width + CLASS_GAP): name for i, name in enumerate(names[start : start + columns])}
        below = max(sheet.paragraph(x, top, name, width, size=10, bold=True) for x, name in row.items()) + 0.05
        for x, name in row.items():
            _draw_class_list(sheet, x, below, width, predictions[name], marked)
        top = below + CLASS_STEP * max(len(predictions[name]) for name in row.values()) + 0.2
    return sheet.finish(top - 0.08)


def _draw_class_list(
    sheet: Sheet, x: float, top: float, width: float, classes: Sequence[tuple[str, float]], marked: Sequence[str]
) -> None:
    axes = sheet.axes(x, top, width, CLASS_STEP * len(classes))
    bar_axes(axes, len(classes), 0, 1, zero=0)
    label_width = width - text_width("100 %", CLASS_SIZE) - 0.2
    for i, (label, probability) in enumerate(classes):
        bold = label in marked
        axes.barh(i, 1, height=0.84, color="#f4f4f6")
        axes.barh(i, probability, height=0.84, color="#9dbbe6" if bold else "#dfe6f1")
        lines = wrap(label, label_width, CLASS_SIZE, bold=bold)
        text = lines[0] if len(lines) == 1 else f"{lines[0]} …"
        line = top + i * CLASS_STEP + 0.04
        sheet.line(x + 0.06, line, text, size=CLASS_SIZE, bold=bold)
        sheet.line(x + width - 0.06, line, percent(probability), size=CLASS_SIZE, align="right")


LINE_STYLES = ("-", "--", ":", "-.")  # lines differ without their colours


def score_curve(
    scores: Tensor,
    distances: Tensor | None = None,
    *,
    titles: Sequence[str],
    unit: str = "score",
    layer: str | None = None,
) -> Figure:
    """Plot the score and the distance to the photo over the optimization steps, one line per feature.

    Args:
        scores: (steps, N), nan after a row has stopped.
        distances: (steps, N), or None.
        titles: feature of each line.
        unit: unit of the score: "logit", "activation" …
        layer: layer at which the distance is measured.

    Example:
        >>> figure = score_curve(torch.rand(9, 2).cumsum(0), torch.rand(9, 2), titles=["lion", "lynx"], unit="logit")
    """
    shape = "steps, N" if len(scores) else "0, N"  # nothing is optimized at dose 0
    check_axes(titles=(titles, "N"), scores=(scores, shape), distances=(distances, shape))
    panels = [(scores, f"{unit}, mean over augmentations", "the score")]
    if distances is not None:
        where = f" at {layer}" if layer else ""
        panels.append((distances, f"distance of features{where}", "distance to the photo, which is kept small"))
    figure = new_figure(PAGE, 3.1 + 0.2 * ((len(titles) + 2) // 3))
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.set(w_pad=0.12, h_pad=0.08)  # type: ignore[call-arg]
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (values, name, title) in zip(all_axes, panels, strict=True):
        for row in range(len(titles)):
            style = {"color": LINE_COLOURS[row % len(LINE_COLOURS)], "linestyle": LINE_STYLES[row % len(LINE_STYLES)]}
            axes.plot(array(values[:, row]), linewidth=1.8, **style)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("optimization step", fontsize=9)
        axes.set_ylabel(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6ea", linewidth=0.8)
    columns = min(3, len(titles))
    add_legend(
        figure, all_axes[0].get_lines(), titles, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False
    )
    return figure


def dose_strip(
    images: Tensor,
    doses: Sequence[float],
    *,
    seed: Tensor,
    title: str,
    labels: Sequence[str] | None = None,
    notes: Sequence[str] | None = None,
) -> Figure:
    """Draw one photo at increasing doses of a feature; the unchanged photo, dose 0, has a frame.

    Args:
        images: (K, C, H, W) in [0, 1].
        doses: one per image; where none is 0, the seed is added.
        seed: (C, H, W), the unchanged photo.
        title: the feature.
        labels: line above each image instead of its dose.
        notes: line below each image, for example its score.

    Example:
        >>> figure = dose_strip(torch.rand(3, 3, 8, 12), [-0.5, 0.5, 1], seed=torch.rand(3, 8, 12), title="lion")
    """
    check_axes(
        doses=(doses, "K"), images=(images, "K, C, H, W"), seed=(seed, "C, H, W"), labels=(labels, "K"),
        notes=(notes, "K"),
    )  # fmt: skip
    above = labels or [_dose_label(dose) for dose in doses]
    below = notes or ["the unchanged photo" if dose == 0 else "" for dose in doses]
    cells = list(zip(doses, images, above, below, strict=True))
    if 0 not in doses:
        above_zero, below_zero = ("the unchanged photo", "") if labels else (_dose_label(0), "the unchanged photo")
        cells.append((0, seed, above_zero, below_zero))
    cells.sort(key=lambda one: one[0])
    columns = min(len(cells), 6)
    cell = min(2.2, (PAGE - 2 * MARGIN - (columns - 1) * IMAGE_GAP) / columns)
    width, height = _image_size(images, cell)
    sheet = Sheet()
    how = "the frame marks the unchanged photo" if labels else "dose 0 is the unchanged photo, bit-identical"
    direction = "less and less" if min(doses) < 0 else "more and more"
    if min(doses) < 0 < max(doses):
        direction = "from less to more"
    top = sheet.heading(f"The same photo, {direction} {title}", how)
    first = (PAGE - columns * cell - (columns - 1) * IMAGE_GAP) / 2
    for start in range(0, len(cells), columns):
        bottoms = []
        for i, (dose, image, label, note) in enumerate(cells[start : start + columns]):
            middle = first + i * (cell + IMAGE_GAP) + cell / 2
            image_top = sheet.paragraph(middle, top, label, cell, size=9, bold=dose == 0, align="center") + 0.03
            axes = sheet.axes(middle - width / 2, image_top, width, height)
            draw_photo(axes, image)
            if dose == 0:
                frame(axes, INK, 2.2)
            bottom = image_top + height + 0.05
            bottoms.append(sheet.paragraph(middle, bottom, note, cell, size=8, colour=QUIET, align="center"))
        top = max(bottoms) + 0.12
    return sheet.finish(top)


def _dose_label(dose: float) -> str:
    return "dose 0" if dose == 0 else f"dose {dose:.2f}".replace("-", "−")
