"""Measures: functions of plain tensors."""

from .completeness import completeness_error, condition_number
from .deletion import DeletionInsertion, blurred, deletion_insertion, probabilities, target_score
from .localization import energy_in_mask
from .rank import Agreement, Correlations, average_ranks, canvas_agreement, spearman

__all__ = [
    "Agreement",
    "Correlations",
    "DeletionInsertion",
    "average_ranks",
    "blurred",
    "canvas_agreement",
    "completeness_error",
    "condition_number",
    "deletion_insertion",
    "energy_in_mask",
    "probabilities",
    "spearman",
    "target_score",
]
