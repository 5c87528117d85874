"""Room: pictures. Functions of plain tensors that return a matplotlib Figure and never show it."""

from .accentuation import accentuation_rows
from .association import association_rows
from .canvas import brightness, build_up, canvas_grid, dominant_units, neuron_over_photo, order_by_total, who_paints
from .classes import class_bars
from .clusters import cluster_sheet
from .comparison import comparison_grid
from .counterfactual import counterfactual_rows
from .curve import score_curve
from .dose import dose_strip
from .explained import explained_bars
from .film import FilmRow, unit_film
from .flow import flow_beside_change
from .kernel_sheet import kernel_sheet, layer_profile_sheet
from .link_audit import Measured, link_audit
from .linked_unit import unit_filmstrips
from .patch_sheet import patch_sheet, route_sheet
from .reconstruction import frames_beside_drawn
from .regions import region_bars
from .selectivity import selectivity_table
from .spread import Spread, spread_curves
from .token_sheet import neurons_across, token_sheet
from .track import object_time
from .unit_sheet import unit_sheet
from .written_sheet import written_sheet

__all__ = [
    "FilmRow",
    "Measured",
    "Spread",
    "accentuation_rows",
    "association_rows",
    "brightness",
    "build_up",
    "canvas_grid",
    "class_bars",
    "cluster_sheet",
    "comparison_grid",
    "counterfactual_rows",
    "dominant_units",
    "dose_strip",
    "explained_bars",
    "flow_beside_change",
    "frames_beside_drawn",
    "kernel_sheet",
    "layer_profile_sheet",
    "link_audit",
    "neuron_over_photo",
    "neurons_across",
    "object_time",
    "order_by_total",
    "patch_sheet",
    "region_bars",
    "route_sheet",
    "score_curve",
    "selectivity_table",
    "spread_curves",
    "token_sheet",
    "unit_film",
    "unit_filmstrips",
    "unit_sheet",
    "who_paints",
    "written_sheet",
]
