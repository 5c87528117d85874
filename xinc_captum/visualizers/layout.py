"""Building blocks of all figures: sheets laid out in inches, texts that fit, photos and maps on axes."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from functools import cache, lru_cache
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray
from torch import Tensor

from .style import DIM, EDGE, GRID_GAP, HEAT, INK, LEADING, MARGIN, PAGE, QUIET, SIGNED, VERDICTS

DOTS = (100, 120, 200)  # per inch, at which text is measured: each rounds letters differently, by up to 2 %


class Page(Figure):
    """A figure whose PDF and PostScript files contain TrueType fonts, because many journals refuse Type 3 fonts."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save the figure like matplotlib's ``Figure.savefig``."""
        with rc_context({"pdf.fonttype": 42, "ps.fonttype": 42}):
            super().savefig(*args, **kwargs)


def new_figure(
    width: float, height: float, title: str = "", subtitle: str = "", *, dots: float | None = None
) -> Figure:
    """Return a white figure, with title and subtitle above everything else, outside pyplot's global state."""
    figure = Page(figsize=(width, height), dpi=dots, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if title and engine is not None:
        inch = 1 / height
        style: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False}
        figure.text(0.5, 1 - 0.1 * inch, title, fontsize=13, color=INK, weight="bold", **style)
        if subtitle:
            figure.text(0.5, 1 - 0.36 * inch, subtitle, fontsize=9, color=QUIET, **style)
        engine.set(rect=(0, 0, 1, 1 - (0.62 if subtitle else 0.4) * inch))  # type: ignore[call-arg]
    return figure


def array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor as a float32 array on the CPU."""
    values: NDArray[np.float32] = torch.as_tensor(tensor).detach().float().cpu().numpy()
    return values


def bare(axes: Axes, title: str = "", *, note: str = "", size: float = 9) -> None:
    """Remove ticks and frame; add a title above and a grey note below."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, fontsize=size, color=INK, pad=3, parse_math=False)
    if note:
        axes.set_xlabel(note, fontsize=size - 1.5, color=QUIET, labelpad=2, parse_math=False)


def frame(axes: Axes, colour: str = EDGE, width: float = 0.8) -> None:
    """Remove ticks, and draw a frame around the axes."""
    bare(axes)
    axes.spines[:].set(visible=True, linewidth=width, edgecolor=colour)


def bar_axes(axes: Axes, count: int, low: float, high: float, *, zero: float = 1.0, colour: str = INK) -> None:
    """Prepare axes for ``count`` horizontal bars, the first on top, with a vertical line at 0 of the width ``zero``."""
    axes.set_xlim(low, high)
    axes.set_ylim(count - 0.5, -0.5)
    bare(axes)
    if zero:
        axes.axvline(0, color=colour, linewidth=zero)


def add_legend(target: Axes | Figure, handles: Sequence[Artist], names: Sequence[str], **kwargs: Any) -> None:
    """Add a legend with the names as they are.

    Matplotlib itself reads dollar signs as mathematics and leaves out labels that begin with an underscore.
    """
    legend = target.legend(handles, [str(i) for i in range(len(names))], **kwargs)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def add_colorbar(
    figure: Figure, axes: Any, limit: float, *, low: str, high: str, end: float = 1.0, size: float = 8, **kwargs: Any
) -> None:
    """Add a red-and-blue colour bar with words at the fraction ``end`` of the limit."""
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), SIGNED), ax=axes, **kwargs)
    bar.set_ticks([-end * limit, 0, end * limit], labels=[low, "nothing", high])
    bar.ax.tick_params(labelsize=size, colors=INK, length=0)
    bar.outline.set_visible(False)


def draw_photo(axes: Axes, photo: Tensor, title: str = "", *, grey: bool = False) -> None:
    """Draw a photo (C, H, W), clipped to [0, 1], without ticks; with other than 1 or 3 channels, their mean."""
    values = array(photo).clip(0, 1)
    values = values if values.shape[0] in (1, 3) else values.mean(0, keepdims=True)
    if grey or values.shape[0] == 1:
        axes.imshow(values.mean(0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(values.transpose(1, 2, 0), interpolation="nearest")
    bare(axes, title)


def draw_map(
    axes: Axes, values: Tensor, colours: str | Colormap | None = None, title: str = "", *, note: str = "", **kwargs: Any
) -> None:
    """Draw a map (H, W), or an image (H, W, 3), without ticks; the note stands below it."""
    axes.imshow(array(values), cmap=colours, interpolation="nearest", **kwargs)
    bare(axes, title, note=note)


def draw_signed(axes: Axes, signed: Tensor, limit: float, title: str = "", **kwargs: Any) -> None:
    """Draw a map (H, W) in red and blue, zero in white, like :func:`draw_map`."""
    draw_map(axes, signed, SIGNED, title, vmin=-limit, vmax=limit, **kwargs)


def limit_of(maps: Tensor, quantile: float = 0.995) -> float:
    """Return the end of a signed colour scale: a high quantile of the magnitudes, so that no single pixel sets it."""
    magnitudes = np.abs(array(maps)).ravel()
    if magnitudes.size > 1 << 20:
        magnitudes = magnitudes[:: magnitudes.size // (1 << 20) + 1]
    return float(np.quantile(magnitudes, quantile)) or 1.0


def draw_heat(axes: Axes, photo: Tensor, values: Tensor, limit: float | None = None) -> None:
    """Draw :func:`heat_over` without ticks; if there is no map, write the reason (:func:`no_heat`) over the photo."""
    axes.imshow(heat_over(photo, values, limit))
    reason = no_heat(values)
    axes.text(0.5, 0.5, reason, color="white", fontsize=9, ha="center", va="center", transform=axes.transAxes)
    bare(axes)


def heat_over(photo: Tensor, values: Tensor, limit: float | None = None) -> NDArray[Any]:
    """Return a heat map (H, W) over the darkened grey photo (C, H, W), as an image (H, W, 3) in [0, 1].

    Larger values are lighter, on dark and on bright photos; negative values are not shown. The scale ends at ``limit``,
    or at :func:`heat_limit` of the map. If :func:`no_heat` returns a reason, only the darkened photo is returned.
    """
    grey = array(photo).clip(0, 1).mean(0)
    empty = bool(no_heat(values))
    strength = np.zeros_like(grey) if empty else (array(values) / (limit or heat_limit(values))).clip(0, 1)
    return _glow(grey, strength)


def no_heat(values: Tensor) -> str:
    """Return why a map cannot be drawn ("not finite" or "constant"), or ""."""
    if not values.isfinite().all():
        return "not finite"
    return "constant" if bool(values.max() - values.min() <= 1e-6 * values.abs().max()) else ""


def heat_limit(values: Tensor) -> float:
    """Return the end of the heat scale: the 99th percentile of the finite, non-negative values."""
    values = values[values.isfinite()]
    return limit_of(values.clamp_min(0), 0.99) if (values > 0).any() else 1.0


def draw_scale(axes: Axes) -> None:
    """Draw the colour scale of a heat map over middle grey."""
    strength = np.linspace(0, 1, 256, dtype=np.float32)[None]
    axes.imshow(_glow(np.full_like(strength, 0.5), strength), aspect="auto")
    bare(axes)


def _glow(grey: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[Any]:
    """Add the heat map to the photo; alpha blending would darken a bright photo at the low end of the scale."""
    heat = colormaps[HEAT](strength)[..., :3]
    photo = DIM * grey * (1 - strength**2)  # 0 at the maximum, so that the maximum has the same colour on all photos
    return np.asarray(1 - (1 - heat) * (1 - photo[..., None]))


Align = Literal["left", "center", "right"]


class Style(TypedDict, total=False):
    """Style of a text: size in points, 9 by default; ``align`` tells which end of the text is at ``x``."""

    size: float
    colour: str
    bold: bool
    align: Align


class Sheet:
    """Collect axes and text at positions in inches from the upper left corner; :meth:`finish` sets the height."""

    def __init__(self, width: float = PAGE, dots: float | None = None) -> None:
        self.width = width
        self._figure = new_figure(width, 1, dots=dots)
        self._figure.set_layout_engine("none")
        self._axes: list[tuple[Axes, tuple[float, float, float, float]]] = []
        self._texts: list[tuple[float, float, str, dict[str, Any]]] = []

    def axes(self, x: float, top: float, width: float, height: float) -> Axes:
        """Add axes whose upper left corner is (x, top)."""
        axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0), label=str(len(self._axes)))
        self._axes.append((axes, (x, top, width, height)))
        return axes

    def line(self, x: float, top: float, text: str, **style: Unpack[Style]) -> float:
        """Add one line of text and return the top of the next line."""
        size, weight = style.get("size", 9.0), "bold" if style.get("bold") else "normal"
        font = {"fontsize": size, "color": style.get("colour", INK), "weight": weight, "ha": style.get("align", "left")}
        self._texts.append((x, top, text, font))
        return top + size * LEADING / 72

    def paragraph(self, x: float, top: float, text: str, width: float, **style: Unpack[Style]) -> float:
        """Add text, broken into lines of at most ``width`` inches, and return the top of the next line."""
        for line in wrap(text, width, style.get("size", 9.0), bold=style.get("bold", False)):
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

    def verdict(self, top: float, verdict: str, because: str) -> float:
        """Add the verdict, readable without its colour, and its reason; return the top of the next line."""
        check_verdicts(verdict)
        mark, colour = VERDICTS[verdict]
        word = f"{mark} {verdict}"
        indent = text_width(word, 9.5, bold=True) + 0.1
        self.line(MARGIN, top, word, size=9.5, colour=colour, bold=True)
        return self.paragraph(MARGIN + indent, top + 0.01, f"because {because}", self.width - 2 * MARGIN - indent)

    def grid(
        self, titles: Sequence[str], rows: int, top: float, shape: Sequence[int]
    ) -> tuple[list[list[Axes]], float]:
        """Add rows of equal cells for images (…, H, W), titles above, as wide as the page; return cells and bottom."""
        side = (self.width - 2 * MARGIN) / len(titles)
        height = (side - GRID_GAP) * shape[-2] / shape[-1]
        for j, title in enumerate(titles):
            self.line(MARGIN + (j + 0.5) * side, top, title, size=8, colour=QUIET, align="center")
        tops = [top + 0.18 + row * (height + GRID_GAP) for row in range(rows)]
        cells = [[self.axes(MARGIN + j * side, at, side - GRID_GAP, height) for j in range(len(titles))] for at in tops]
        return cells, top + 0.18 + rows * (height + GRID_GAP) + GRID_GAP

    def rule(self, x: float, top: float, width: float) -> None:
        """Add a thin grey line."""
        axes = self.axes(x, top, width, 0.012)
        axes.set_facecolor(QUIET)
        bare(axes)

    def colour_scale(self, x: float, top: float, labels: tuple[str, str, str]) -> None:
        """Add a horizontal red-and-blue scale, 2.2 inches wide, with labels under its ends and its middle."""
        width = 2.2
        axes = self.axes(x, top, width, 0.13)
        axes.imshow(array(torch.linspace(-1, 1, 201))[None], cmap=SIGNED, aspect="auto")
        bare(axes)
        for position, label in zip((0.0, 0.5, 1.0), labels, strict=True):
            self.line(x + position * width, top + 0.15, label, size=7.5, align="center")

    def finish(self, bottom: float) -> Figure:
        """Return the figure, which ends at ``bottom``."""
        self._figure.set_size_inches(self.width, bottom)
        for axes, (x, top, width, height) in self._axes:
            axes.set_position((x / self.width, 1 - (top + height) / bottom, width / self.width, height / bottom))
        for x, top, text, style in self._texts:
            self._figure.text(x / self.width, 1 - top / bottom, text, va="top", parse_math=False, **style)
        return self._figure


class FrameColumns:
    """Rows of video frames on a sheet: a label at the left, then one cell for each of at most ``most`` frames.

    ``frames`` is (frames, C, H, W); ``label`` is the width of the label and ``right`` the free width at the right,
    both in inches.
    """

    def __init__(self, sheet: Sheet, frames: Tensor, most: int, label: float, right: float = 0.0) -> None:
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

    def row(self, top: float) -> list[tuple[Axes, int]]:
        """Add one cell per frame, and return the cells with the numbers of their frames."""
        lefts = [MARGIN + self.label + i * self.cell + 0.02 for i in range(len(self.indices))]
        return [
            (self.sheet.axes(x, top, self.cell - 0.04, self.height), t)
            for x, t in zip(lefts, self.indices, strict=True)
        ]


def even_indices(count: int, most: int) -> list[int]:
    """Return at most ``most`` indices from 0 to ``count`` - 1, evenly spaced, including both ends."""
    return torch.linspace(0, count - 1, min(count, most)).round().long().tolist()


def check_axes(sizes: Mapping[str, int] | None = None, /, **entries: tuple[Tensor | Sized | None, str]) -> None:
    """Raise ValueError if a named axis has two different lengths, or length 0.

    Each entry is a tensor, a sequence or None (not checked), with its axes, such as "N, C, H, W" or "N, 2"; ``sizes``
    are lengths known from elsewhere. Sequences have one axis.
    """
    lengths = dict(sizes or {})
    for name, (entry, axes) in entries.items():
        if entry is None:
            continue
        names, shape = axes.split(", "), tuple(entry.shape) if isinstance(entry, Tensor) else (len(entry),)
        known = ", ".join(f"{axis} = {lengths[axis]}" for axis in dict.fromkeys(names) if axis in lengths)
        fits = len(shape) == len(names)
        for axis, length in zip(names, shape, strict=False):
            size = int(axis) if axis.isdigit() else max(lengths.setdefault(axis, length), 1)  # named axes are not empty
            fits &= length == size
        if not fits and isinstance(entry, Tensor):
            empty = ", and no length of 0" if 0 in shape else ""
            raise ValueError(f"{name} has shape {shape}; expected ({axes}){known and f' with {known}'}{empty}.")
        if not fits:
            raise ValueError(f"{name} has {shape[0]} entries; expected {known or 'at least one'}.")


def check_verdicts(*verdicts: str) -> None:
    """Raise ValueError if a verdict is not "holds", "weak" or "fails"."""
    unknown = set(verdicts) - set(VERDICTS)
    if unknown:
        raise ValueError(f"verdict {min(unknown)!r} is not known; expected {', '.join(VERDICTS)}.")


@lru_cache(8192)  # figures repeat the same texts
def text_width(text: str, size: float = 9, *, bold: bool = False) -> float:
    """Return the width of a line in inches, the largest over several resolutions, which round letters differently."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return max(
        float(_renderer(dots).get_text_width_height_descent(text, font, ismath=False)[0]) / dots for dots in DOTS
    )


@cache
def _renderer(dots: int) -> RendererAgg:
    renderer: RendererAgg = FigureCanvasAgg(Figure(figsize=(1, 1), dpi=dots)).get_renderer()
    return renderer


def wrap(text: str, width: float, size: float = 9, *, bold: bool = False) -> list[str]:
    """Break text into lines of at most ``width`` inches, between words, or inside a word that is too long."""
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


def clip_text(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Return one line of at most about ``width`` inches, with "…" in place of the words that do not fit."""
    lines = wrap(text, width, size, bold=bold)
    return text if len(lines) < 2 else f"{wrap(text, width - size / 72, size, bold=bold)[0]} …"


def shorten(text: str, width: float, size: float) -> str:
    """Return the text, or as many of its first letters as fit, followed by "…"."""
    if text_width(text, size) <= width:
        return text
    count = max((n for n in range(len(text)) if text_width(text[:n] + "…", size) <= width), default=0)
    return text[:count].rstrip() + "…"


NAME_SIZES = (9.0, 8.5, 8.0, 7.5, 7.0)
NAME_LINES = 3
NAME_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[-_/.(])(?=[^-_/.(])")


def fit_names(names: Sequence[str], width: float) -> tuple[float, list[list[str]]]:
    """Break each name into at most three lines of at most ``width`` inches, in the largest size that fits most names.

    Long words are broken between their parts, as "InputX" and "Gradient"; names that do not fit end in "…".
    """
    lines_by_size = {size: [_name_lines(name, width, size) for name in names] for size in NAME_SIZES}
    size = max(NAME_SIZES, key=lambda size: sum(_name_fits(lines, width, size) for lines in lines_by_size[size]))
    return size, [_truncate(lines, width, size) for lines in lines_by_size[size]]


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


def number_duplicates(names: Sequence[str]) -> list[str]:
    """Append a running number, as in "a name (2)", to every name that occurs more than once."""
    counts, so_far, labels = Counter(names), Counter[str](), []
    for name in names:
        so_far[name] += 1
        labels.append(f"{name} ({so_far[name]})" if counts[name] > 1 else name)
    return labels


def predicate(trust: object) -> str:
    """Return a verdict and its reason as the end of a sentence: "holds" and "fails" are verbs, "weak" is not."""
    text = str(trust)
    return text if text.startswith(("holds", "fails")) else f"is {text}"


def decimals_for(largest: float) -> int:
    """Return the number of decimals that shows about three digits of the largest magnitude."""
    return 2 if not largest else min(4, max(0, 2 - max(math.floor(math.log10(largest)), 0)))


def decimals_over(span: float, largest: float) -> int:
    """Return the decimals of :func:`decimals_for`, or more, so that about two digits of ``span`` are shown."""
    needed = 1 - math.floor(math.log10(span)) if span > 0 and math.isfinite(span) else 0
    return min(6, max(decimals_for(largest), needed))


def finite_range(values: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest finite value, or 0 and 1 where there is none."""
    finite = values[values.isfinite()]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def number(value: float, decimals: int) -> str:
    """Format a number with a true minus sign, without a minus before zero, and as a dash where it is not finite."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if not float(text) else text.replace("-", "−")


def percent(probability: float) -> str:
    """Format a probability for readers, as "<1 %" or ">99 %" near the ends."""
    if 0 < probability < 0.01:
        return "<1 %"
    if 0.99 < probability < 1:
        return ">99 %"
    return f"{100 * probability:.0f} %"


def ordinal(position: int) -> str:
    """Return a position as an ordinal number, such as "43rd"."""
    suffix = "th" if position % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(position % 10, "th")
    return f"{position}{suffix}"
