"""Tables of what linked units change, by class, part and measure: measured, or screened by gradients."""

from .quantify import quantify, screen
from .table import Discoveries, UnitTable, shuffled_directions

__all__ = [
    "Discoveries",
    "UnitTable",
    "quantify",
    "screen",
    "shuffled_directions",
]
