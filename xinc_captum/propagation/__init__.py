"""Workshop: rules that carry each unit's part of a layer to the output."""

from .ablation import Ablation
from .batch import Batch, chunks
from .carried import CarryError
from .rule import Rule, as_rule
from .secant import Secant
from .tail import Tail, one_score_a_row, selected
from .tangent import Tangent
from .xinc import Xinc

__all__ = [
    "Ablation",
    "Batch",
    "CarryError",
    "Rule",
    "Secant",
    "Tail",
    "Tangent",
    "Xinc",
    "as_rule",
    "chunks",
    "one_score_a_row",
    "selected",
]
