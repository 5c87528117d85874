"""Workshop: ways from one class to another through a link."""

from .latent_walk import LatentWalk
from .linear_head import LinearHead
from .minimal_shift import MinimalShift, Shortest, shortest_shift
from .paper_update import LinkingInStyle, shift_losses
from .ray import Ray

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
