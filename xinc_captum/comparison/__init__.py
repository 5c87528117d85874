"""Roof: several attribution methods on the same images, in one figure and one table."""

from .baselines import centre_blob, edge_map, random_map
from .columns import ALL, COLUMNS, Case, Column
from .compare import compare
from .counting import Counts, counted
from .last_map import last_map
from .maps import as_maps
from .methods import grad_cam, guided_grad_cam, integrated_gradients
from .peers import pytorch_grad_cam, torchcam_grad_cam
from .quantus_function import quantus_explain_func
from .result import Comparison, Row

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
    "counted",
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
