"""Text layout, numbers, verdict line."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Literal, TypedDict, Unpack

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from .style import INK, QUIET, new_figure

PAGE = 9.0  # inches: 900 pixels at 100 dots an inch
MARGIN = 0.14
GAP = 0.06  # inches between the cells of a grid
DOTS = (100, 120, 200)  # an inch: letters are rounded differently at each, these come within 2 % of the widest
LEADING = 1.32  # lines apart, in units of the letters' size

Align = Literal["left", "center", "right"]


class Style(TypedDict, total=False):
    """How text looks: what :meth:`Sheet.line` takes by name."""

    size: float
    colour: str
    bold: bool
    align: Align


class Sheet:
    """Collects axes and text; the height is said at the end, when it is known.

    Args:
        width: in inches.
        dots: an inch; None takes what matplotlib is set to.

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

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at a place."""
        axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0), label=str(len(self._axes)))
        self._axes.append((axes, (left, top, width, height)))
        return axes

    def line(
        self,
        left: float,
        top: float,
        text: str,
        *,
        size: float = 9,
        colour: str = INK,
        bold: bool = False,
        align: Align = "left",
    ) -> float:
        """One line of text; answers where the next may begin."""
        style = {"fontsize": size, "color": colour, "weight": "bold" if bold else "normal", "ha": align}
        self._texts.append((left, top, text, style))
        return top + size * LEADING / 72

    def paragraph(self, left: float, top: float, text: str, width: float, **style: Unpack[Style]) -> float:
        """Text broken into lines of at most ``width``; answers where the next may begin."""
        for line in broken(text, width, style.get("size", 9), bold=style.get("bold", False)):
            top = self.line(left, top, line, **style)
        return top

    def heading(self, title: str, subtitle: str = "") -> float:
        """What the picture is, and how to read it; answers where the rest may begin."""
        middle, wide = self.width / 2, self.width - 2 * MARGIN
        top = self.paragraph(middle, 0.1, title, wide, size=13, bold=True, align="center")
        if subtitle:
            top = self.paragraph(middle, top + 0.02, subtitle, wide, size=9, colour=QUIET, align="center")
        return top + 0.1

    def grid(self, words: Sequence[str], rows: int, top: float, shape: Sequence[int]) -> tuple[list[list[Axes]], float]:
        """Rows of equal cells as wide as the page, a word over each column; answers them and where the rest may begin.

        Args:
            words: one a column.
            rows: how many.
            top: where the words begin.
            shape: (…, H, W) of what the cells show.
        """
        side = (self.width - 2 * MARGIN) / len(words)
        high = (side - GAP) * shape[-2] / shape[-1]
        for j, word in enumerate(words):
            self.line(MARGIN + (j + 0.5) * side, top, word, size=8, colour=QUIET, align="center")
        tops = [top + 0.18 + row * (high + GAP) for row in range(rows)]
        cells = [[self.axes(MARGIN + j * side, at, side - GAP, high) for j in range(len(words))] for at in tops]
        return cells, top + 0.18 + rows * (high + GAP) + GAP

    def finish(self, bottom: float) -> Figure:
        """The figure, which ends at ``bottom``."""
        self._figure.set_size_inches(self.width, bottom)
        for axes, (left, top, width, height) in self._axes:
            place = (left / self.width, 1 - (top + height) / bottom, width / self.width, height / bottom)
            axes.set_position(place)
        for left, top, text, style in self._texts:
            self._figure.text(left / self.width, 1 - top / bottom, text, va="top", parse_math=False, **style)
        return self._figure


@lru_cache(8192)  # the same words stand in many figures
def wide(text: str, size: float = 9, *, bold: bool = False) -> float:
    """How wide a line is, in inches: coarse dots round letters differently than fine ones, and the widest counts."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return max(
        float(_renderer(dots).get_text_width_height_descent(text, font, ismath=False)[0]) / dots for dots in DOTS
    )


def broken(text: str, width: float, size: float = 9, *, bold: bool = False) -> list[str]:
    """Text in lines of at most ``width`` inches, broken between words, and inside one only where it is too long.

    Example:
        >>> broken("one two three", 0.6)
        ['one two', 'three']
    """
    lines = [""]
    for word in text.split():
        while wide(word, size, bold=bold) > width and len(word) > 1:
            keep = max(n for n in range(1, len(word)) if n == 1 or wide(word[:n], size, bold=bold) <= width)
            lines += [word[:keep], ""]
            word = word[keep:]
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or wide(longer, size, bold=bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]


@cache
def _renderer(dots: int) -> RendererAgg:
    figure = Figure(figsize=(1, 1), dpi=dots)
    renderer: RendererAgg = FigureCanvasAgg(figure).get_renderer()
    return renderer


SIZES = (9.0, 8.5, 8.0, 7.5, 7.0)
LINES = 3
PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[-_/.(])(?=[^-_/.(])")


def heads(names: Sequence[str], width: float) -> tuple[float, list[list[str]]]:
    """Each name in at most three lines of at most ``width`` inches, all in one size: the largest in which most fit.

    What does not fit ends in "…".

    Example:
        >>> heads(["Integrated Gradients", "InputXGradient"], 0.8)
        (9.0, [['Integrated', 'Gradients'], ['InputX', 'Gradient']])
    """
    tried = {size: [_lines(name, width, size) for name in names] for size in SIZES}
    size = max(SIZES, key=lambda size: sum(_fits(head, width, size) for head in tried[size]))
    return size, [_cut(head, width, size) for head in tried[size]]


def shortened(text: str, width: float, size: float) -> str:
    """The text, or as much of its beginning as fits with "…" behind it.

    Example:
        >>> shortened("three-toed sloth", 0.7, 9)
        'three-to…'
    """
    if wide(text, size) <= width:
        return text
    keep = max((n for n in range(len(text)) if wide(text[:n] + "…", size) <= width), default=0)
    return text[:keep].rstrip() + "…"


def _lines(name: str, width: float, size: float) -> list[str]:
    lines = [""]
    for word in name.split():
        for i, part in enumerate([word] if wide(word, size) <= width else PARTS.split(word)):
            longer = f"{lines[-1]}{'' if i or not lines[-1] else ' '}{part}"
            if not lines[-1] or wide(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
    return lines


def _fits(lines: list[str], width: float, size: float) -> bool:
    return len(lines) <= LINES and all(wide(line, size) <= width for line in lines)


def _cut(lines: list[str], width: float, size: float) -> list[str]:
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1] + "…"]
    return [shortened(line, width, size) for line in lines]


VERDICTS = {"holds": ("✓", "#1a6e33"), "weak": ("≈", "#8a5a00"), "fails": ("✗", "#a8201a")}


def check_verdicts(*verdicts: str) -> None:
    """Only what :data:`VERDICTS` knows.

    Raises:
        ValueError: an unknown verdict.
    """
    unknown = set(verdicts) - set(VERDICTS)
    if unknown:
        raise ValueError(f"verdict {min(unknown)!r} is not known; expected {', '.join(VERDICTS)}.")


def verdict_line(sheet: Sheet, top: float, verdict: str, because: str) -> float:
    """A mark, a word and a reason; colour only repeats what they say. Answers where the next line may begin."""
    mark, colour = VERDICTS[verdict]
    word = f"{mark} {verdict}"
    indent = wide(word, 9.5, bold=True) + 0.1
    sheet.line(MARGIN, top, word, size=9.5, colour=colour, bold=True)
    return sheet.paragraph(
        MARGIN + indent, top + 0.01, f"because {because}", sheet.width - 2 * MARGIN - indent, size=9, colour=INK
    )


def decimals_for(largest: float) -> int:
    """How many decimals leave about three digits of the largest magnitude.

    Example:
        >>> decimals_for(0.3), decimals_for(31.0), decimals_for(0.0)
        (2, 1, 2)
    """
    return 2 if not largest else min(4, max(0, 2 - max(math.floor(math.log10(largest)), 0)))


def decimals_over(span: float, largest: float) -> int:
    """How many decimals also tell values apart that lie within a span: about two digits of it.

    Example:
        >>> decimals_over(0.012, 0.05), decimals_over(2.0, 3.0), decimals_over(0.0, 3.0)
        (3, 2, 2)
    """
    needed = 1 - math.floor(math.log10(span)) if span > 0 and math.isfinite(span) else 0
    return min(6, max(decimals_for(largest), needed))


def numbered(names: Sequence[str]) -> list[str]:
    """Names that come more than once get numbers, in their order.

    Example:
        >>> numbered(["a one", "a two", "a one"])
        ['a one (1)', 'a two', 'a one (2)']
    """
    often, seen, found = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if often[name] > 1 else name)
    return found


def predicate(trust: object) -> str:
    """A verdict with its reason, to be read after what it is of: "holds" and "fails" are verbs, and "weak" is not.

    Example:
        >>> f"the link {predicate('weak, because of that')}", f"the link {predicate('holds, because of this')}"
        ('the link is weak, because of that', 'the link holds, because of this')
    """
    said = str(trust)
    return said if said.startswith(("holds", "fails")) else f"is {said}"


def number(value: float, decimals: int) -> str:
    """With a true minus sign, and no minus before a zero; a dash for what is not a number.

    Example:
        >>> number(-1.25, 1), number(-0.001, 1), number(float("nan"), 1)
        ('−1.2', '0.0', '–')
    """
    if not math.isfinite(value):
        return "–"
    said = f"{value:.{decimals}f}"
    return said.lstrip("-") if not float(said) else said.replace("-", "−")


def clipped(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """One line of at most about ``width`` inches, with dots where words were left out.

    Example:
        >>> clipped("golden retriever", 0.6, 8)
        'golden …'
    """
    lines = broken(text, width, size, bold=bold)
    return text if len(lines) < 2 else f"{broken(text, width - size / 72, size, bold=bold)[0]} …"


def ordinal(place: int) -> str:
    """A place in words.

    Example:
        >>> ordinal(1), ordinal(2), ordinal(11), ordinal(43)
        ('1st', '2nd', '11th', '43rd')
    """
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
