"""Compare several attribution methods on the same images, in one figure and one table."""

from .compare import compare
from .maps import as_maps, quantus_explain_func
from .measures import (
    ALL,
    COLUMNS,
    Case,
    Column,
)
from .methods import centre_blob, edge_map, grad_cam, guided_grad_cam, integrated_gradients, random_map
from .peers import pytorch_grad_cam, torchcam_grad_cam
from .registry import last_map
from .result import Comparison, Row
from .runner import Counts, count_calls

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
