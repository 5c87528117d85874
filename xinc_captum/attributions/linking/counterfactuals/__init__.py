"""Counterfactual methods: from one class to another through a link."""

from .methods import LatentWalk, LinkingInStyle, MinimalShift, Ray, Shortest, shift_losses, shortest_shift
from .search import LinearHead

__all__ = [
    "LatentWalk",
    "LinearHead",
    "LinkingInStyle",
    "MinimalShift",
    "Ray",
    "Shortest",
    "shift_losses",
    "shortest_shift",
]
