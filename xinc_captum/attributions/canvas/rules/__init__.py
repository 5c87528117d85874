"""Contribution rules: how the contributions of a layer's units to the output are computed."""

from .rules import Ablation, Rule, Secant, Tangent, as_rule
from .secant_tensor import CarryError
from .tail import Tail
from .xinc import Xinc

__all__ = ["Ablation", "CarryError", "Rule", "Secant", "Tail", "Tangent", "Xinc", "as_rule"]
