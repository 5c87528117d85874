"""Colours and drawing on axes: photos, signed maps, heat maps, legends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

SIGNED = "RdBu_r"  # red adds, white is zero, blue removes
INK, QUIET = "#1d1d1f", "#6e6e73"
BLUE, ORANGE = "#1f5fa8", "#c4561a"
CONTROL, PALE_CONTROL, EDGE = "#9a9aa2", "#b5b5bd", "#d8d8de"  # greys of controls and of frames
LINE_COLOURS = (BLUE, ORANGE, "#3a7d44", "#8a4a9e", "#6b6b6b", "#b08900")


class Page(Figure):
    """A figure whose PDF and PostScript files contain TrueType fonts, because many journals refuse Type 3 fonts."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save the figure like matplotlib's ``Figure.savefig``."""
        with rc_context({"pdf.fonttype": 42, "ps.fonttype": 42}):
            super().savefig(*args, **kwargs)


def new_figure(width: float, height: float, dots: float | None = None) -> Figure:
    """Return an empty white figure, size in inches and dots per inch, outside pyplot's global state."""
    figure = Page(figsize=(width, height), dpi=dots, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor as a float32 array on the CPU."""
    values: NDArray[np.float32] = torch.as_tensor(tensor).detach().float().cpu().numpy()
    return values


def limit_of(maps: Tensor, quantile: float = 0.995) -> float:
    """Return the end of a signed colour scale: a high quantile of the magnitudes, so that no single pixel sets it."""
    magnitudes = array(maps).__abs__().ravel()
    if magnitudes.size > 1 << 20:
        magnitudes = magnitudes[:: magnitudes.size // (1 << 20) + 1]
    return float(np.quantile(magnitudes, quantile)) or 1.0


def bare(axes: Axes, title: str = "", *, note: str = "", size: float = 9) -> None:
    """Remove ticks and frame; add a title above and a grey note below."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=size, color=INK, pad=3, parse_math=False)
    if note:
        axes.set_xlabel(note, fontsize=size - 1.5, color=QUIET, labelpad=2, parse_math=False)


def frame(axes: Axes, colour: str = EDGE, width: float = 0.8) -> None:
    """Remove ticks and title, and draw a frame around the axes."""
    bare(axes)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(width)
        spine.set_edgecolor(colour)


def add_legend(target: Axes | Figure, handles: Sequence[Artist], names: Sequence[str], **kwargs: Any) -> None:
    """Add a legend with the names as they are.

    Matplotlib itself reads dollar signs as mathematics and leaves out labels that begin with an underscore.
    """
    legend = target.legend(handles, [str(i) for i in range(len(names))], **kwargs)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def draw_photo(axes: Axes, photo: Tensor, *, grey: bool = False) -> None:
    """Draw a photo (C, H, W), clipped to [0, 1]; of other than 1 or 3 channels the mean is drawn."""
    values = array(photo).clip(0, 1)
    values = values if values.shape[0] in (1, 3) else values.mean(0, keepdims=True)
    if grey or values.shape[0] == 1:
        axes.imshow(values.mean(0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(values.transpose(1, 2, 0), interpolation="nearest")


def draw_signed(axes: Axes, signed: Tensor, limit: float, **kwargs: Any) -> None:
    """Draw a map (H, W) in red and blue, zero in white."""
    axes.imshow(array(signed), cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest", **kwargs)


def add_signed_colorbar(figure: Figure, axes: Any, limit: float, *, low: str, high: str, **kwargs: Any) -> None:
    """Add a red-and-blue colour bar with words at its ends."""
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), SIGNED), ax=axes, **kwargs)
    bar.set_ticks([-limit, 0, limit], labels=[low, "nothing", high])
    bar.ax.tick_params(labelsize=8, colors=INK, length=0)
    bar.outline.set_visible(False)


def heading(figure: Figure, title: str, subtitle: str = "") -> None:
    """Add the title and how to read the figure, in two lines above everything else."""
    inch = 1 / figure.get_figheight()
    style: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False}
    figure.text(0.5, 1 - 0.1 * inch, title, fontsize=13, color=INK, weight="bold", **style)
    if subtitle:
        figure.text(0.5, 1 - 0.36 * inch, subtitle, fontsize=9, color=QUIET, **style)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0, 1, 1 - (0.62 if subtitle else 0.4) * inch))  # type: ignore[call-arg]


HEAT = "inferno"  # brightness grows monotonically, so that colour-blind readers can follow it
HEAT_QUANTILE = 0.99
DIM = 0.45  # brightness of the photo under a heat map


def draw_heat(axes: Axes, photo: Tensor, values: Tensor, limit: float | None = None) -> None:
    """Draw a heat map over the darkened grey photo, or the reason of :func:`no_heat` why there is none.

    Larger values are lighter, over black and over white.

    Args:
        axes: where to draw.
        photo: (C, H, W) in [0, 1].
        values: (H, W); negative values are not shown.
        limit: value at the end of the scale; None uses :func:`heat_limit` of the map.
    """
    axes.imshow(heat_over(photo, values, limit))
    reason = no_heat(values)
    axes.text(0.5, 0.5, reason, color="white", fontsize=9, ha="center", va="center", transform=axes.transAxes)


def heat_over(photo: Tensor, values: Tensor, limit: float | None = None) -> NDArray[Any]:
    """Return the image of :func:`draw_heat`, (H, W, 3) in [0, 1]; without a map it is the darkened photo alone."""
    grey = array(photo).clip(0, 1).mean(0)
    empty = bool(no_heat(values))
    strength = np.zeros_like(grey) if empty else (array(values) / (limit or heat_limit(values))).clip(0, 1)
    return _glow(grey, strength)


def no_heat(values: Tensor) -> str:
    """Return why a map cannot be drawn ("not finite" or "constant"), or ""."""
    if not values.isfinite().all():
        return "not finite"
    return "constant" if bool(values.max() - values.min() <= 1e-6 * values.abs().max()) else ""


def draw_scale(axes: Axes) -> None:
    """Draw the colour scale of a heat map over middle grey."""
    strength = np.linspace(0, 1, 256, dtype=np.float32)[None]
    axes.imshow(_glow(np.full_like(strength, 0.5), strength), aspect="auto")
    bare(axes)


def heat_limit(values: Tensor) -> float:
    """Return the end of the heat scale: the 99th percentile of the finite, non-negative values."""
    values = values[values.isfinite()]
    return limit_of(values.clamp_min(0), HEAT_QUANTILE) if (values > 0).any() else 1.0


def _glow(grey: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[Any]:
    """Add the heat map to the photo; alpha blending would darken a bright photo at the low end of the scale."""
    heat = colormaps[HEAT](strength)[..., :3]
    photo = DIM * grey * (1 - strength**2)  # 0 at the maximum, so that all photos end alike
    return np.asarray(1 - (1 - heat) * (1 - photo[..., None]))
