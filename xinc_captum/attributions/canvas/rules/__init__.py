"""Workshop: rules that carry each unit's part of a layer to the output."""

from .ablation import Ablation
from .carried import CarryError
from .rule import Rule, as_rule
from .secant import Secant
from .tail import Tail
from .tangent import Tangent
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
