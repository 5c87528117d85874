"""Workshop: what thousands of linked units change, by class and part, measured or screened."""

from .quantify import quantify
from .screening import screen
from .unit_null import shuffled_directions
from .unit_query import Found
from .unit_table import UnitTable

__all__ = [
    "Found",
    "UnitTable",
    "quantify",
    "screen",
    "shuffled_directions",
]
