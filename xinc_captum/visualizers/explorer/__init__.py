"""Interactive HTML pages, one self-contained file each, made of plain tensors.

Every page stays below 5 MB: images are exact if they fit, else compressed, else reduced in size, which the page
mentions. Each function returns the path of its page, and raises ValueError for shapes, lengths and verdicts that do not
match, for empty inputs, and for data that do not fit, even with images of 32 pixels.
"""

from .pack import PackedUnits, pack_units
from .pages import Strip, explore_accentuations, explore_canvases, explore_sweeps, explore_table

__all__ = [
    "PackedUnits",
    "Strip",
    "explore_accentuations",
    "explore_canvases",
    "explore_sweeps",
    "explore_table",
    "pack_units",
]
