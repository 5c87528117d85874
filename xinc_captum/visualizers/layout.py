"""Text layout in inches: sheets of axes and text, line breaking, number formats and the line of a verdict."""

import math
import re
from collections import Counter
from collections.abc import Sequence, Sized
from functools import cache, lru_cache
from typing import Any, Literal, TypedDict, Unpack

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from .style import INK, QUIET, SIGNED, array, bare, new_figure

PAGE, WIDE_PAGE = 9.0, 11.0  # inches: 900 pixels at 100 dots per inch, and the width for a dozen video frames
MARGIN = 0.14
GRID_GAP, IMAGE_GAP = 0.06, 0.07  # inches between the cells of Sheet.grid, and between images elsewhere
DOTS = (100, 120, 200)  # per inch: letters are rounded differently at each; the widest of these is within 2 %
LEADING = 1.32  # distance of lines, in units of the font size

Align = Literal["left", "center", "right"]


class Style(TypedDict, total=False):
    """Text style: the keyword arguments of :meth:`Sheet.line`."""

    size: float
    colour: str
    bold: bool
    align: Align


class Sheet:
    """Collect axes and text at positions in inches from the upper left corner; the height is set at the end.

    Args:
        width: in inches.
        dots: dots per inch; None uses matplotlib's setting.

    Example:
        >>> sheet = Sheet(4)
        >>> bottom = sheet.paragraph(0.1, 0.1, "a line or two", 3.8)
        >>> sheet.finish(bottom).get_size_inches().tolist()[0]
        4.0
    """

    def __init__(self, width: float = PAGE, dots: float | None = None) -> None:
        self.width = width
        self._figure = new_figure(width, 1, dots)
        self._figure.set_layout_engine("none")
        self._axes: list[tuple[Axes, tuple[float, float, float, float]]] = []
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []

    def axes(self, x: float, top: float, width: float, height: float) -> Axes:
        """Add axes whose upper left corner is (x, top)."""
        axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0), label=str(len(self._axes)))
        self._axes.append((axes, (x, top, width, height)))
        return axes

    def line(
        self,
        x: float,
        top: float,
        text: str,
        *,
        size: float = 9,
        colour: str = INK,
        bold: bool = False,
        align: Align = "left",
    ) -> float:
        """Add one line of text and return the top of the next line."""
        style = {"fontsize": size, "color": colour, "weight": "bold" if bold else "normal", "ha": align}
        self._texts.append((x, top, text, style))
        return top + size * LEADING / 72

    def paragraph(self, x: float, top: float, text: str, width: float, **style: Unpack[Style]) -> float:
        """Add text, broken into lines of at most ``width`` inches, and return the top of the next line."""
        for line in wrap(text, width, style.get("size", 9), bold=style.get("bold", False)):
            top = self.line(x, top, line, **style)
        return top

    def heading(self, title: str, subtitle: str = "") -> float:
        """Add the title and, below it, how to read the figure; return the top of what follows."""
        middle, width = self.width / 2, self.width - 2 * MARGIN
        top = self.paragraph(middle, 0.1, title, width, size=13, bold=True, align="center")
        if subtitle:
            top = self.paragraph(middle, top + 0.02, subtitle, width, size=9, colour=QUIET, align="center")
        return top + 0.1

    def note(self, top: float, text: str, *, size: float = 8, colour: str = QUIET) -> float:
        """Add a paragraph as wide as the page and return the top of the next line."""
        return self.paragraph(MARGIN, top, text, self.width - 2 * MARGIN, size=size, colour=colour)

    def grid(
        self, titles: Sequence[str], rows: int, top: float, shape: Sequence[int]
    ) -> tuple[list[list[Axes]], float]:
        """Add rows of equal cells as wide as the page, and return the cells and the top of what follows.

        Args:
            titles: one per column.
            rows: number of rows.
            top: top of the titles.
            shape: (…, H, W) of the images in the cells.
        """
        side = (self.width - 2 * MARGIN) / len(titles)
        height = (side - GRID_GAP) * shape[-2] / shape[-1]
        for j, title in enumerate(titles):
            self.line(MARGIN + (j + 0.5) * side, top, title, size=8, colour=QUIET, align="center")
        tops = [top + 0.18 + row * (height + GRID_GAP) for row in range(rows)]
        cells = [[self.axes(MARGIN + j * side, at, side - GRID_GAP, height) for j in range(len(titles))] for at in tops]
        return cells, top + 0.18 + rows * (height + GRID_GAP) + GRID_GAP

    def colour_scale(self, x: float, top: float, labels: tuple[str, str, str], *, offset: float = 0.15) -> None:
        """Add a horizontal red-and-blue scale, 2.2 inches wide, with labels under its ends and its middle."""
        width = 2.2
        axes = self.axes(x, top, width, 0.13)
        axes.imshow(array(torch.linspace(-1, 1, 201))[None], cmap=SIGNED, aspect="auto")
        bare(axes)
        for position, label in zip((0.0, 0.5, 1.0), labels, strict=True):
            self.line(x + position * width, top + offset, label, size=7.5, align="center")

    def finish(self, bottom: float) -> Figure:
        """Return the figure, which ends at ``bottom``."""
        self._figure.set_size_inches(self.width, bottom)
        for axes, (x, top, width, height) in self._axes:
            axes.set_position((x / self.width, 1 - (top + height) / bottom, width / self.width, height / bottom))
        for x, top, text, style in self._texts:
            self._figure.text(x / self.width, 1 - top / bottom, text, va="top", parse_math=False, **style)
        return self._figure


class FrameColumns:
    """Rows of video frames on a sheet: a label at the left, then one cell per selected frame.

    Args:
        sheet: the rows are as wide as its page.
        frames: (frames, C, H, W).
        most: number of frames that are shown at most; of more, evenly spaced ones.
        label: inches of the label.
        right: inches that stay free at the right.
    """

    def __init__(self, sheet: Sheet, frames: torch.Tensor, most: int, label: float, right: float = 0.0) -> None:
        self.sheet, self.label = sheet, label
        self.indices = even_indices(len(frames), most)
        self.cell = (sheet.width - 2 * MARGIN - label - right) / len(self.indices)
        self.height = (self.cell - 0.04) * frames.shape[-2] / frames.shape[-1]
        self.x = MARGIN + label + 0.02
        self.width = self.cell * len(self.indices) - 0.04

    def header(self, top: float, prefix: str = "frame ") -> float:
        """Add the number of each frame and return the top of what follows."""
        for i, t in enumerate(self.indices):
            middle = MARGIN + self.label + (i + 0.5) * self.cell
            self.sheet.line(middle, top, f"{prefix}{t}", size=8, colour=QUIET, align="center")
        return top + 0.17

    def row(self, top: float) -> list[Axes]:
        """Add one cell per frame, without ticks."""
        tops = [MARGIN + self.label + i * self.cell + 0.02 for i in range(len(self.indices))]
        cells = [self.sheet.axes(x, top, self.cell - 0.04, self.height) for x in tops]
        for axes in cells:
            bare(axes)
        return cells


def even_indices(count: int, most: int) -> list[int]:
    """Return at most ``most`` indices below ``count``, evenly spaced, with the first and the last.

    Example:
        >>> even_indices(10, 4), even_indices(2, 4)
        ([0, 3, 6, 9], [0, 1])
    """
    return torch.linspace(0, count - 1, min(count, most)).round().long().tolist()


def check_lengths(count: int, item: str, **values: Sized | None) -> None:
    """Check that every sequence has one entry per item; None is allowed.

    Raises:
        ValueError: a sequence has another length.
    """
    for name, entries in values.items():
        if entries is not None and len(entries) != count:
            raise ValueError(f"{name} has {len(entries)} entries for {count} {item}s; expected one per {item}.")


@lru_cache(8192)  # figures repeat the same texts
def text_width(text: str, size: float = 9, *, bold: bool = False) -> float:
    """Return the width of a line in inches, the largest over several resolutions, which round letters differently."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return max(
        float(_renderer(dots).get_text_width_height_descent(text, font, ismath=False)[0]) / dots for dots in DOTS
    )


def wrap(text: str, width: float, size: float = 9, *, bold: bool = False) -> list[str]:
    """Break text into lines of at most ``width`` inches, between words, or inside a word that is too long.

    Example:
        >>> wrap("one two three", 0.6)
        ['one two', 'three']
    """
    lines = [""]
    for word in text.split():
        while text_width(word, size, bold=bold) > width and len(word) > 1:
            count = max(n for n in range(1, len(word)) if n == 1 or text_width(word[:n], size, bold=bold) <= width)
            lines += [word[:count], ""]
            word = word[count:]
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or text_width(longer, size, bold=bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]


@cache
def _renderer(dots: int) -> RendererAgg:
    figure = Figure(figsize=(1, 1), dpi=dots)
    renderer: RendererAgg = FigureCanvasAgg(figure).get_renderer()
    return renderer


NAME_SIZES = (9.0, 8.5, 8.0, 7.5, 7.0)
NAME_LINES = 3
NAME_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[-_/.(])(?=[^-_/.(])")


def fit_names(names: Sequence[str], width: float) -> tuple[float, list[list[str]]]:
    """Break each name into at most three lines of at most ``width`` inches, in the largest size that fits most names.

    Names that do not fit end in "…".

    Example:
        >>> fit_names(["Integrated Gradients", "InputXGradient"], 0.8)
        (9.0, [['Integrated', 'Gradients'], ['InputX', 'Gradient']])
    """
    lines_by_size = {size: [_name_lines(name, width, size) for name in names] for size in NAME_SIZES}
    size = max(NAME_SIZES, key=lambda size: sum(_name_fits(lines, width, size) for lines in lines_by_size[size]))
    return size, [_truncate(lines, width, size) for lines in lines_by_size[size]]


def shorten(text: str, width: float, size: float) -> str:
    """Return the text, or as many of its first letters as fit, followed by "…".

    Example:
        >>> shorten("three-toed sloth", 0.7, 9)
        'three-to…'
    """
    if text_width(text, size) <= width:
        return text
    count = max((n for n in range(len(text)) if text_width(text[:n] + "…", size) <= width), default=0)
    return text[:count].rstrip() + "…"


def _name_lines(name: str, width: float, size: float) -> list[str]:
    lines = [""]
    for word in name.split():
        for i, part in enumerate([word] if text_width(word, size) <= width else NAME_PARTS.split(word)):
            longer = f"{lines[-1]}{'' if i or not lines[-1] else ' '}{part}"
            if not lines[-1] or text_width(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
    return lines


def _name_fits(lines: list[str], width: float, size: float) -> bool:
    return len(lines) <= NAME_LINES and all(text_width(line, size) <= width for line in lines)


def _truncate(lines: list[str], width: float, size: float) -> list[str]:
    if len(lines) > NAME_LINES:
        lines = [*lines[: NAME_LINES - 1], lines[NAME_LINES - 1] + "…"]
    return [shorten(line, width, size) for line in lines]


VERDICTS = {"holds": ("✓", "#1a6e33"), "weak": ("≈", "#8a5a00"), "fails": ("✗", "#a8201a")}


def check_verdicts(*verdicts: str) -> None:
    """Check that every verdict is a key of :data:`VERDICTS`.

    Raises:
        ValueError: an unknown verdict.
    """
    unknown = set(verdicts) - set(VERDICTS)
    if unknown:
        raise ValueError(f"verdict {min(unknown)!r} is not known; expected {', '.join(VERDICTS)}.")


def verdict_line(sheet: Sheet, top: float, verdict: str, because: str) -> float:
    """Add the mark, the verdict and its reason, and return the top of the next line.

    The colour repeats what the mark and the word tell, so the line can be read without it.
    """
    mark, colour = VERDICTS[verdict]
    word = f"{mark} {verdict}"
    indent = text_width(word, 9.5, bold=True) + 0.1
    sheet.line(MARGIN, top, word, size=9.5, colour=colour, bold=True)
    return sheet.paragraph(
        MARGIN + indent, top + 0.01, f"because {because}", sheet.width - 2 * MARGIN - indent, size=9, colour=INK
    )


def decimals_for(largest: float) -> int:
    """Return the number of decimals that shows about three digits of the largest magnitude.

    Example:
        >>> decimals_for(0.3), decimals_for(31.0), decimals_for(0.0)
        (2, 1, 2)
    """
    return 2 if not largest else min(4, max(0, 2 - max(math.floor(math.log10(largest)), 0)))


def decimals_over(span: float, largest: float) -> int:
    """Return the number of decimals that also distinguishes values within a span, about two digits of the span.

    Example:
        >>> decimals_over(0.012, 0.05), decimals_over(2.0, 3.0), decimals_over(0.0, 3.0)
        (3, 2, 2)
    """
    needed = 1 - math.floor(math.log10(span)) if span > 0 and math.isfinite(span) else 0
    return min(6, max(decimals_for(largest), needed))


def number_duplicates(names: Sequence[str]) -> list[str]:
    """Append a running number to every name that occurs more than once.

    Example:
        >>> number_duplicates(["a one", "a two", "a one"])
        ['a one (1)', 'a two', 'a one (2)']
    """
    counts, so_far, labels = Counter(names), Counter[str](), []
    for name in names:
        so_far[name] += 1
        labels.append(f"{name} ({so_far[name]})" if counts[name] > 1 else name)
    return labels


def predicate(trust: object) -> str:
    """Return a verdict and its reason as the end of a sentence: "holds" and "fails" are verbs, "weak" is not.

    Example:
        >>> f"the link {predicate('weak, because of that')}", f"the link {predicate('holds, because of this')}"
        ('the link is weak, because of that', 'the link holds, because of this')
    """
    text = str(trust)
    return text if text.startswith(("holds", "fails")) else f"is {text}"


def number(value: float, decimals: int) -> str:
    """Format a number with a true minus sign, without a minus before zero, and as a dash where it is not finite.

    Example:
        >>> number(-1.25, 1), number(-0.001, 1), number(float("nan"), 1)
        ('−1.2', '0.0', '–')
    """
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def clip_text(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Return one line of at most about ``width`` inches, with "…" in place of the words that do not fit.

    Example:
        >>> clip_text("golden retriever", 0.6, 8)
        'golden …'
    """
    lines = wrap(text, width, size, bold=bold)
    return text if len(lines) < 2 else f"{wrap(text, width - size / 72, size, bold=bold)[0]} …"


def ordinal(position: int) -> str:
    """Return a position as an ordinal number.

    Example:
        >>> ordinal(1), ordinal(2), ordinal(11), ordinal(43)
        ('1st', '2nd', '11th', '43rd')
    """
    suffix = "th" if position % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(position % 10, "th")
    return f"{position}{suffix}"
