"""Style: colours, signed maps, heat."""

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


class Page(Figure):
    """A figure whose PDF and PostScript hold TrueType fonts: many journals refuse matplotlib's own Type 3."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As matplotlib's own."""
        with rc_context({"pdf.fonttype": 42, "ps.fonttype": 42}):
            super().savefig(*args, **kwargs)


def new_figure(width: float, height: float, dots: float | None = None) -> Figure:
    """An empty white figure of so many inches, and dots an inch, outside pyplot's global state."""
    figure = Page(figsize=(width, height), dpi=dots, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def array(tensor: Tensor) -> NDArray[np.float32]:
    """Any tensor as float32 on the host."""
    values: NDArray[np.float32] = torch.as_tensor(tensor).detach().float().cpu().numpy()
    return values


def limit_of(maps: Tensor, quantile: float = 0.995) -> float:
    """The magnitude at which a shared signed scale ends: a high quantile, so that one pixel cannot fade the rest."""
    magnitudes = array(maps).__abs__().ravel()
    if magnitudes.size > 1 << 20:
        magnitudes = magnitudes[:: magnitudes.size // (1 << 20) + 1]
    return float(np.quantile(magnitudes, quantile)) or 1.0


def bare(axes: Axes, title: str = "", *, note: str = "", size: float = 9) -> None:
    """No ticks and no frame; a title above and a quiet note below."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title, fontsize=size, color=INK, pad=3, parse_math=False)
    if note:
        axes.set_xlabel(note, fontsize=size - 1.5, color=QUIET, labelpad=2, parse_math=False)


def legend_of(place: Axes | Figure, handles: Sequence[Artist], names: Sequence[str], **kwargs: Any) -> None:
    """Add a legend that draws each name as it is.

    Matplotlib takes dollar signs for mathematics, and leaves out labels that begin with an underscore.
    """
    legend = place.legend(handles, [str(i) for i in range(len(names))], **kwargs)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def draw_photo(axes: Axes, photo: Tensor, *, grey: bool = False) -> None:
    """(C, H, W) in [0, 1], clipped; 1 and 3 channels as they are, others as their mean."""
    values = array(photo).clip(0, 1)
    values = values if values.shape[0] in (1, 3) else values.mean(0, keepdims=True)
    if grey or values.shape[0] == 1:
        axes.imshow(values.mean(0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(values.transpose(1, 2, 0), interpolation="nearest")


def draw_signed(axes: Axes, signed: Tensor, limit: float, **kwargs: Any) -> None:
    """(H, W) in red and blue with zero in the middle."""
    axes.imshow(array(signed), cmap=SIGNED, vmin=-limit, vmax=limit, interpolation="nearest", **kwargs)


def signed_bar(figure: Figure, axes: Any, limit: float, *, low: str, high: str, **kwargs: Any) -> None:
    """A colour bar whose ends are said in words."""
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), SIGNED), ax=axes, **kwargs)
    bar.set_ticks([-limit, 0, limit], labels=[low, "nothing", high])
    bar.ax.tick_params(labelsize=8, colors=INK, length=0)
    bar.outline.set_visible(False)


def heading(figure: Figure, title: str, subtitle: str = "") -> None:
    """What the picture is, and how to read it, in two lines above everything else."""
    inch = 1 / figure.get_figheight()
    style: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False}
    figure.text(0.5, 1 - 0.1 * inch, title, fontsize=13, color=INK, weight="bold", **style)
    if subtitle:
        figure.text(0.5, 1 - 0.36 * inch, subtitle, fontsize=9, color=QUIET, **style)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0, 1, 1 - (0.62 if subtitle else 0.4) * inch))  # type: ignore[call-arg]


HEAT = "inferno"  # from black to light, lighter with every step, so that readers who see no red can follow it
QUANTILE = 0.99
DIMMED = 0.45


def draw_heat(axes: Axes, photo: Tensor, values: Tensor, limit: float | None = None) -> None:
    """A map in colours of heat over the darkened grey photo, or a word that says why there is none.

    Over black as over white, what is stronger is lighter.

    Args:
        axes: where.
        photo: (C, H, W) in [0, 1].
        values: (H, W), large where strong; what is negative is not shown.
        limit: where the scale ends; None takes the map's own :func:`heat_limit`.
    """
    axes.imshow(heat_over(photo, values, limit))
    word = no_heat(values)
    axes.text(0.5, 0.5, word, color="white", fontsize=9, ha="center", va="center", transform=axes.transAxes)


def heat_over(photo: Tensor, values: Tensor, limit: float | None = None) -> NDArray[Any]:
    """What :func:`draw_heat` draws, (H, W, 3) in [0, 1]: the darkened photo alone where :func:`no_heat` says why."""
    grey = array(photo).clip(0, 1).mean(0)
    bare_photo = bool(no_heat(values))
    strength = np.zeros_like(grey) if bare_photo else (array(values) / (limit or heat_limit(values))).clip(0, 1)
    return _glow(grey, strength)


def no_heat(values: Tensor) -> str:
    """Why a map has nothing to show, "" where it has."""
    if not values.isfinite().all():
        return "not finite"
    return "constant" if bool(values.max() - values.min() <= 1e-6 * values.abs().max()) else ""


def draw_scale(axes: Axes) -> None:
    """The colours from nothing to the strongest, as they look over a photo of middle grey."""
    strength = np.linspace(0, 1, 256, dtype=np.float32)[None]
    axes.imshow(_glow(np.full_like(strength, 0.5), strength), aspect="auto")
    bare(axes)


def heat_limit(values: Tensor) -> float:
    """Where the scale of a map, or of several, ends: at the 99th percentile of what is finite and not negative."""
    values = values[values.isfinite()]
    return limit_of(values.clamp_min(0), QUANTILE) if (values > 0).any() else 1.0


def _glow(grey: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[Any]:
    """Light added to light. A blend would darken a bright photo under the dark end of the colours."""
    heat = colormaps[HEAT](strength)[..., :3]
    photo = DIMMED * grey * (1 - strength**2)  # gone where the map is strongest, so that all photos end alike
    return np.asarray(1 - (1 - heat) * (1 - photo[..., None]))
