"""Figures of plain tensors: functions return a matplotlib Figure without showing it; ``savefig`` writes it to a file.

All functions raise ValueError for shapes and lengths that do not match each other, for empty inputs, and for verdicts
other than "holds", "weak" and "fails".
"""

from .accentuation import accentuation_rows, class_bars, dose_strip, score_curve
from .canvas import (
    brightness,
    build_up,
    canvas_grid,
    dominant_units,
    neuron_over_photo,
    order_by_total,
    pixel_contributors,
)
from .canvas_statistics import (
    Spread,
    association_rows,
    cluster_sheet,
    cluster_variance_bars,
    region_bars,
    spread_curves,
)
from .comparison import comparison_grid
from .hypernetworks import (
    kernel_sheet,
    layer_profile_sheet,
    network_sheet,
    neurons_across,
    patch_sheet,
    route_sheet,
    token_sheet,
)
from .link import Measured, counterfactual_rows, link_audit
from .linked_unit import selectivity_table, unit_filmstrips, unit_sheet
from .video import FilmRow, flow_beside_change, frame_reconstructions, object_time, unit_film

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
    "cluster_variance_bars",
    "comparison_grid",
    "counterfactual_rows",
    "dominant_units",
    "dose_strip",
    "flow_beside_change",
    "frame_reconstructions",
    "kernel_sheet",
    "layer_profile_sheet",
    "link_audit",
    "network_sheet",
    "neuron_over_photo",
    "neurons_across",
    "object_time",
    "order_by_total",
    "patch_sheet",
    "pixel_contributors",
    "region_bars",
    "route_sheet",
    "score_curve",
    "selectivity_table",
    "spread_curves",
    "token_sheet",
    "unit_film",
    "unit_filmstrips",
    "unit_sheet",
]
