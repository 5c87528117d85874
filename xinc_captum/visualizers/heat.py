"""How a map of strengths looks over a photo: it glows where it is strong, and the rest is the dimmed photo."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from .figure import array, bare, limit_of

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
