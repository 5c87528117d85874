"""Measures: functions of plain tensors."""

from .amounts import magnitudes
from .association import Association, association
from .clusters import Mixing, Stability, UnitVectors, clustered, mixing, rand_index, stability, unit_vectors
from .completeness import completeness_error, condition_number
from .deletion import DeletionInsertion, blurred, deletion_insertion, probabilities, target_score
from .embedding import umap_positions
from .explained import Explained, share_explained, verdict, what_dominates
from .fidelity import Fidelity, fidelity
from .gabor import gabor_bank, gabor_regions, gabor_responses
from .localization import energy_in_mask
from .motion import MotionAgreement, contribution_change, motion_agreement, optical_flow
from .partitions import as_masks, colour_regions, grid_cells, outside
from .pictures import edges, intensity, opponents
from .rank import Agreement, Correlations, average_ranks, canvas_agreement, rank_vectors, spearman
from .regions import RegionTest, preference, region_test
from .responses import unit_responses
from .share import pooled, share
from .shuffles import shifts, shuffled_pixels, shuffled_units
from .spread import participation, pixels_per_unit, running_share, units_for, units_per_pixel
from .tracks import Track, carried_elsewhere, object_track

__all__ = [
    "Agreement",
    "Association",
    "Correlations",
    "DeletionInsertion",
    "Explained",
    "Fidelity",
    "Mixing",
    "MotionAgreement",
    "RegionTest",
    "Stability",
    "Track",
    "UnitVectors",
    "as_masks",
    "association",
    "average_ranks",
    "blurred",
    "canvas_agreement",
    "carried_elsewhere",
    "clustered",
    "colour_regions",
    "completeness_error",
    "condition_number",
    "contribution_change",
    "deletion_insertion",
    "edges",
    "energy_in_mask",
    "fidelity",
    "gabor_bank",
    "gabor_regions",
    "gabor_responses",
    "grid_cells",
    "intensity",
    "magnitudes",
    "mixing",
    "motion_agreement",
    "object_track",
    "opponents",
    "optical_flow",
    "outside",
    "participation",
    "pixels_per_unit",
    "pooled",
    "preference",
    "probabilities",
    "rand_index",
    "rank_vectors",
    "region_test",
    "running_share",
    "share",
    "share_explained",
    "shifts",
    "shuffled_pixels",
    "shuffled_units",
    "spearman",
    "stability",
    "target_score",
    "umap_positions",
    "unit_responses",
    "unit_vectors",
    "units_for",
    "units_per_pixel",
    "verdict",
    "what_dominates",
]
