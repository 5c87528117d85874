"""Roof: several attribution methods on the same images, in one figure and one table."""

from .compare import compare
from .last_map import last_map
from .maps import as_maps
from .methods import grad_cam, guided_grad_cam, integrated_gradients, random_map
from .result import Comparison, Row

__all__ = [
    "Comparison",
    "Row",
    "as_maps",
    "compare",
    "grad_cam",
    "guided_grad_cam",
    "integrated_gradients",
    "last_map",
    "random_map",
]
