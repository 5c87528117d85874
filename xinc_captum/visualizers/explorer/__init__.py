"""Interactive HTML pages, one self-contained file each, made of plain tensors."""

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
