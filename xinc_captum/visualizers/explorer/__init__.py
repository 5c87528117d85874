"""Room: results as one HTML file that a reader asks questions; plain tensors in, no network, no build step."""

from .canvases import explore_canvases
from .pack import PackedUnits, pack_units
from .pages import Strip, explore_accentuations, explore_sweeps, explore_table

__all__ = [
    "PackedUnits",
    "Strip",
    "explore_accentuations",
    "explore_canvases",
    "explore_sweeps",
    "explore_table",
    "pack_units",
]
