"""Tables of what linked units change, by class, part and measure: measured, or screened by gradients."""

from .quantify import quantify
from .screening import screen, shuffled_directions
from .table import Discoveries, UnitTable

__all__ = [
    "Discoveries",
    "UnitTable",
    "quantify",
    "screen",
    "shuffled_directions",
]
