"""Workshop: a transformer that reads pictures and writes the networks that draw them."""

from .painting import as_module, painted, stacked
from .paths import patch_masks
from .ray_tokens import RayTokens
from .ray_trans_inr import RayTransINR
from .rays import camera_rays, ray_colours, ray_depths
from .tokens import PatchTokens
from .training import TransFit, mean_psnr
from .trans_inr import Routing, TransINR
from .tuning import Tuned, neuron_canvases, own_starts, shared_start, tuned
from .writer import Groups, Modulations, Weights, WeightWriter

__all__ = [
    "Groups",
    "Modulations",
    "PatchTokens",
    "RayTokens",
    "RayTransINR",
    "Routing",
    "TransFit",
    "TransINR",
    "Tuned",
    "WeightWriter",
    "Weights",
    "as_module",
    "camera_rays",
    "mean_psnr",
    "neuron_canvases",
    "own_starts",
    "painted",
    "patch_masks",
    "ray_colours",
    "ray_depths",
    "shared_start",
    "stacked",
    "tuned",
]
