"""A page on which every place is known, in inches from its upper left corner, so that no text meets another."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Literal, TypedDict, Unpack

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from .figure import INK, QUIET, new_figure

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
        >>> sheet.done(bottom).get_size_inches().tolist()[0]
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

    def done(self, bottom: float) -> Figure:
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
