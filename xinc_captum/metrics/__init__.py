"""Metrics of contribution maps, links and accentuations: functions of tensors."""

from .clusters import (
    Explained,
    cluster_mixing,
    cluster_rows,
    rand_index,
    stability,
    umap_positions,
    unit_responses,
    unit_vectors,
    verdict,
    what_dominates,
)
from .dissection import (
    Concepts,
    Correspondence,
    ablate,
    concept_overlap,
    correspondence,
    dissect,
    region_agreement,
    region_use,
)
from .faithfulness import (
    DeletionInsertion,
    blur_images,
    deletion_insertion,
    energy_in_mask,
    gini,
    noisy_linear_imputation,
    pointing_game,
    removal_order,
    road,
    target_score,
    top_overlap,
)
from .fidelity import Fidelity, fidelity
from .links import (
    Selectivity,
    SemanticOrder,
    class_means,
    duplicates,
    leaks,
    r2,
    r2_within,
    row_hashes,
    selectivity,
    semantic_order,
    tolerance,
    unit_agreement,
)
from .motion import (
    MotionAgreement,
    Track,
    contribution_change,
    control_tracks,
    motion_agreement,
    object_track,
    optical_flow,
)
from .parts import (
    MEASURES,
    Measure,
    Movement,
    lab,
    local_entropy,
    part_area,
    part_centroid,
    part_ellipse,
    part_entropy,
    part_lab,
    part_luminance,
    part_means,
    part_motion,
    part_rgb,
    part_smooth_entropy,
    resolve_measures,
    smooth_entropy,
    turn,
    without_affine,
)
from .regions import (
    Association,
    RegionTest,
    as_masks,
    association,
    colour_regions,
    edges,
    gabor_regions,
    gabor_responses,
    grid_cells,
    intensity,
    opponents,
    outside,
    preference,
    region_test,
)
from .spread import (
    completeness_error,
    condition_number,
    cumulative_share,
    magnitudes,
    participation,
    pixels_per_unit,
    pool_cells,
    share,
    units_for,
    units_per_pixel,
)
from .statistics import (
    PROBABILITIES,
    Agreement,
    Interval,
    Probability,
    canvas_agreement,
    chance_of,
    complement,
    false_discovery_rate,
    mean_interval,
    predict_classes,
    probabilities,
    probability_kind,
    rank_vectors,
    ratio_interval,
    shifts,
    shuffle_pixels,
    shuffle_units,
    shuffle_within,
    spearman,
)
from .trust import LinkTrust, judge_link

__all__ = ["Explained", "cluster_mixing", "cluster_rows", "rand_index", "stability"]
__all__ += ["umap_positions", "unit_responses", "unit_vectors", "verdict", "what_dominates"]
__all__ += ["Concepts", "Correspondence", "ablate", "concept_overlap"]
__all__ += ["correspondence", "dissect", "region_agreement", "region_use"]
__all__ += ["DeletionInsertion", "blur_images", "deletion_insertion", "energy_in_mask"]
__all__ += ["gini", "noisy_linear_imputation", "pointing_game", "removal_order"]
__all__ += ["road", "target_score", "top_overlap"]
__all__ += ["Fidelity", "fidelity"]
__all__ += ["Selectivity", "SemanticOrder", "class_means", "duplicates", "leaks", "r2"]
__all__ += ["r2_within", "row_hashes", "selectivity", "semantic_order", "tolerance", "unit_agreement"]
__all__ += ["MotionAgreement", "Track", "contribution_change", "control_tracks"]
__all__ += ["motion_agreement", "object_track", "optical_flow"]
__all__ += ["MEASURES", "Measure", "Movement", "lab", "local_entropy", "part_area", "part_centroid"]
__all__ += ["part_ellipse", "part_entropy", "part_lab", "part_luminance", "part_means", "part_motion", "part_rgb"]
__all__ += ["part_smooth_entropy", "resolve_measures", "smooth_entropy", "turn", "without_affine"]
__all__ += ["Association", "RegionTest", "as_masks", "association", "colour_regions", "edges", "gabor_regions"]
__all__ += ["gabor_responses", "grid_cells", "intensity", "opponents", "outside", "preference", "region_test"]
__all__ += ["completeness_error", "condition_number", "cumulative_share", "magnitudes", "participation"]
__all__ += ["pixels_per_unit", "pool_cells", "share", "units_for", "units_per_pixel"]
__all__ += ["PROBABILITIES", "Agreement", "Interval", "Probability", "canvas_agreement"]
__all__ += ["chance_of", "complement", "false_discovery_rate", "mean_interval", "predict_classes"]
__all__ += ["probabilities", "probability_kind", "rank_vectors", "ratio_interval", "shifts"]
__all__ += ["shuffle_pixels", "shuffle_units", "shuffle_within", "spearman"]
__all__ += ["LinkTrust", "judge_link"]
