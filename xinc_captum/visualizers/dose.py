"""A picture of doses: one photo with more and more of a feature, or less of it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .figure import INK, QUIET, bare, draw_photo
from .sheet import MARGIN, PAGE, Sheet

GAP = 0.07  # inches between pictures
WIDEST, TALLEST = 2.2, 3.0  # inches of one picture
A_LINE = 6  # pictures


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
    _check(images, doses, seed, {"labels": labels, "notes": notes})
    above = list(labels) if labels is not None else [_dose(dose) for dose in doses]
    below = list(notes) if notes is not None else ["the photo itself" if dose == 0 else "" for dose in doses]
    cells = list(zip(doses, images, above, below, strict=True))
    if 0 not in doses:
        cells.append((0, seed, "the photo itself" if labels else _dose(0), "" if labels else "the photo itself"))
    cells.sort(key=lambda one: one[0])
    columns = min(len(cells), A_LINE)
    cell = min(WIDEST, (PAGE - 2 * MARGIN - (columns - 1) * GAP) / columns)
    height, width = images.shape[-2:]
    tall = min(cell * height / width, TALLEST)
    shown = tall * width / height
    sheet = Sheet()
    how = "the photo itself is in the frame" if labels else "dose 0 is the photo itself, bit for bit"
    top = sheet.heading(f"The same photo, {_way(doses)} {title}", how)
    left = (PAGE - columns * cell - (columns - 1) * GAP) / 2
    for start in range(0, len(cells), columns):
        bottoms = []
        for i, (dose, image, label, note) in enumerate(cells[start : start + columns]):
            x = left + i * (cell + GAP) + cell / 2
            under = sheet.paragraph(x, top, label, cell, size=9, bold=dose == 0, align="center") + 0.03
            axes = sheet.axes(x - shown / 2, under, shown, tall)
            draw_photo(axes, image)
            bare(axes)
            if dose == 0:
                _frame(axes)
            bottoms.append(sheet.paragraph(x, under + tall + 0.05, note, cell, size=8, colour=QUIET, align="center"))
        top = max(bottoms) + 0.12
    return sheet.done(top)


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


def _check(images: Tensor, doses: Sequence[float], seed: Tensor, words: dict[str, Sequence[str] | None]) -> None:
    if images.dim() != 4 or len(images) != len(doses) or not len(images):
        raise ValueError(f"images have shape {tuple(images.shape)} for {len(doses)} doses; wanted one a dose.")
    if tuple(seed.shape) != tuple(images.shape[1:]):
        raise ValueError(f"seed has shape {tuple(seed.shape)}; wanted that of one image, {tuple(images.shape[1:])}.")
    for name, said in words.items():
        if said is not None and len(said) != len(doses):
            raise ValueError(f"{len(said)} {name} for {len(doses)} doses; wanted one a dose.")
