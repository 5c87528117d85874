"""Room: pictures. Functions of plain tensors that return a matplotlib Figure and never show it."""

from .accentuation import accentuation_rows
from .canvas import brightness, build_up, canvas_grid, dominant_units, neuron_over_photo, order_by_total, who_paints
from .classes import class_bars
from .comparison import comparison_grid
from .curve import score_curve
from .dose import dose_strip

__all__ = [
    "accentuation_rows",
    "brightness",
    "build_up",
    "canvas_grid",
    "class_bars",
    "comparison_grid",
    "dominant_units",
    "dose_strip",
    "neuron_over_photo",
    "order_by_total",
    "score_curve",
    "who_paints",
]
