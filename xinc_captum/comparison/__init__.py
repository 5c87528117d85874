"""Compare several attribution methods on the same images, in one figure and one table."""

from ..models import last_map
from .compare import compare, count_calls
from .measures import ALL, COLUMNS, Case, Column, as_maps, quantus_explain_func
from .methods import (
    centre_blob,
    edge_map,
    grad_cam,
    guided_grad_cam,
    integrated_gradients,
    pytorch_grad_cam,
    random_map,
    torchcam_grad_cam,
)
from .result import Comparison, Counts, Row

__all__ = [
    "ALL",
    "COLUMNS",
    "Case",
    "Column",
    "Comparison",
    "Counts",
    "Row",
    "as_maps",
    "centre_blob",
    "compare",
    "count_calls",
    "edge_map",
    "grad_cam",
    "guided_grad_cam",
    "integrated_gradients",
    "last_map",
    "pytorch_grad_cam",
    "quantus_explain_func",
    "random_map",
    "torchcam_grad_cam",
]
