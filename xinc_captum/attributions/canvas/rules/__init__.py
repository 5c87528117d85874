"""Workshop: rules that carry each unit's part of a layer to the output."""

from .rules import Ablation, Rule, Secant, Tangent, as_rule
from .secant_tensor import CarryError
from .tail import Tail
from .xinc import Xinc

__all__ = [
    "Ablation",
    "CarryError",
    "Rule",
    "Secant",
    "Tail",
    "Tangent",
    "Xinc",
    "as_rule",
]
