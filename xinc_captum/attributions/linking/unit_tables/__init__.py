"""Workshop: what thousands of linked units change, by class and part, measured or screened."""

from .quantify import quantify
from .screening import screen, shuffled_directions
from .table import Found, UnitTable

__all__ = [
    "Found",
    "UnitTable",
    "quantify",
    "screen",
    "shuffled_directions",
]
