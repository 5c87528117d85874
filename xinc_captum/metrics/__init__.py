"""Measures: functions of plain tensors."""

from .amounts import magnitudes
from .association import Association, association
from .bootstrap import Interval, flipped, mean_interval, ratio_interval
from .clusters import Mixing, Stability, UnitVectors, clustered, mixing, rand_index, stability, unit_vectors
from .completeness import completeness_error, condition_number
from .concepts import Concepts, ConceptUnits, concept_overlap
from .correspondence import Correspondence, correspondence, region_agreement, region_use
from .deletion import DeletionInsertion, blurred, deletion_insertion, removal_order, target_score
from .discoveries import chance_of, false_discovery_rate
from .dissection import ablated, dissect
from .duplicates import duplicates, leaks
from .embedding import umap_positions
from .explained import Explained, share_explained, verdict, what_dominates
from .fidelity import Fidelity, fidelity
from .gabor import gabor_bank, gabor_regions, gabor_responses
from .identifiability import tolerance, unit_agreement
from .imputation import noisy_linear_imputation
from .link_fit import class_means, r2, r2_within
from .link_trust import LinkTrust, judged_link
from .localization import energy_in_mask, pointing_game
from .measures import MEASURES, Measure, Movement, chosen
from .motion import MotionAgreement, contribution_change, motion_agreement, optical_flow
from .overlap import top_overlap
from .part_colour import lab, part_lab, part_rgb
from .part_means import part_area, part_luminance, part_means
from .part_motion import part_motion, without_affine
from .part_shape import part_centroid, part_ellipse, turn
from .part_texture import local_entropy, part_entropy, part_smooth_entropy, smooth_entropy
from .partitions import as_masks, colour_regions, grid_cells, outside
from .pictures import edges, intensity, opponents
from .probability import PROBABILITIES, Probability, predicted_classes, probabilities, probability_kind
from .rank import Agreement, Correlations, average_ranks, canvas_agreement, rank_vectors, spearman
from .regions import RegionTest, preference, region_test
from .responses import unit_responses
from .road import road
from .row_hash import row_hashes
from .selectivity import Selectivity, selectivity
from .semantic_order import SemanticOrder, semantic_order
from .share import pooled, share
from .shuffles import shifts, shuffled_pixels, shuffled_units, shuffled_within
from .sparseness import gini
from .spread import participation, pixels_per_unit, running_share, units_for, units_per_pixel
from .tracks import Track, carried_elsewhere, object_track

__all__ = [
    "MEASURES",
    "PROBABILITIES",
    "Agreement",
    "Association",
    "ConceptUnits",
    "Concepts",
    "Correlations",
    "Correspondence",
    "DeletionInsertion",
    "Explained",
    "Fidelity",
    "Interval",
    "LinkTrust",
    "Measure",
    "Mixing",
    "MotionAgreement",
    "Movement",
    "Probability",
    "RegionTest",
    "Selectivity",
    "SemanticOrder",
    "Stability",
    "Track",
    "UnitVectors",
    "ablated",
    "as_masks",
    "association",
    "average_ranks",
    "blurred",
    "canvas_agreement",
    "carried_elsewhere",
    "chance_of",
    "chosen",
    "class_means",
    "clustered",
    "colour_regions",
    "completeness_error",
    "concept_overlap",
    "condition_number",
    "contribution_change",
    "correspondence",
    "deletion_insertion",
    "dissect",
    "duplicates",
    "edges",
    "energy_in_mask",
    "false_discovery_rate",
    "fidelity",
    "flipped",
    "gabor_bank",
    "gabor_regions",
    "gabor_responses",
    "gini",
    "grid_cells",
    "intensity",
    "judged_link",
    "lab",
    "leaks",
    "local_entropy",
    "magnitudes",
    "mean_interval",
    "mixing",
    "motion_agreement",
    "noisy_linear_imputation",
    "object_track",
    "opponents",
    "optical_flow",
    "outside",
    "part_area",
    "part_centroid",
    "part_ellipse",
    "part_entropy",
    "part_lab",
    "part_luminance",
    "part_means",
    "part_motion",
    "part_rgb",
    "part_smooth_entropy",
    "participation",
    "pixels_per_unit",
    "pointing_game",
    "pooled",
    "predicted_classes",
    "preference",
    "probabilities",
    "probability_kind",
    "r2",
    "r2_within",
    "rand_index",
    "rank_vectors",
    "ratio_interval",
    "region_agreement",
    "region_test",
    "region_use",
    "removal_order",
    "road",
    "row_hashes",
    "running_share",
    "selectivity",
    "semantic_order",
    "share",
    "share_explained",
    "shifts",
    "shuffled_pixels",
    "shuffled_units",
    "shuffled_within",
    "smooth_entropy",
    "spearman",
    "stability",
    "target_score",
    "tolerance",
    "top_overlap",
    "turn",
    "umap_positions",
    "unit_agreement",
    "unit_responses",
    "unit_vectors",
    "units_for",
    "units_per_pixel",
    "verdict",
    "what_dominates",
    "without_affine",
]
