"""A picture of answers: the likeliest classes of a photo and of what became of it."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .figure import INK, bare
from .sheet import MARGIN, PAGE, Sheet, broken, wide

GAP = 0.25  # inches between columns
A_LINE = 3  # columns
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
    columns = min(len(answers), A_LINE)
    across = (PAGE - 2 * MARGIN - (columns - 1) * GAP) / columns
    sheet = Sheet()
    top = sheet.heading("What the network answers", "its likeliest classes, with their probabilities")
    names = list(answers)
    for start in range(0, len(names), columns):
        row = names[start : start + columns]
        lefts = [MARGIN + i * (across + GAP) for i in range(len(row))]
        below = max(
            sheet.paragraph(left, top, name, across, size=10, bold=True) for left, name in zip(lefts, row, strict=True)
        )
        bottoms = [
            _bars(sheet, left, below + 0.05, across, answers[name], marked)
            for left, name in zip(lefts, row, strict=True)
        ]
        top = max(bottoms) + 0.2
    return sheet.done(top - 0.08)


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
