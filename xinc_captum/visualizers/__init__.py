"""Room: pictures. Functions of plain tensors that return a matplotlib Figure and never show it."""

from .canvas import brightness, build_up, canvas_grid, dominant_units, neuron_over_photo, order_by_total, who_paints
from .comparison import comparison_grid

__all__ = [
    "brightness",
    "build_up",
    "canvas_grid",
    "comparison_grid",
    "dominant_units",
    "neuron_over_photo",
    "order_by_total",
    "who_paints",
]
