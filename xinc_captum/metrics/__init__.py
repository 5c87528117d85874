"""Measures: functions of plain tensors."""

from .completeness import completeness_error, condition_number
from .rank import Agreement, Correlations, average_ranks, canvas_agreement, spearman

__all__ = [
    "Agreement",
    "Correlations",
    "average_ranks",
    "canvas_agreement",
    "completeness_error",
    "condition_number",
    "spearman",
]
