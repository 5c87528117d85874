"""Workshop: a transformer that reads pictures and writes the networks that draw them."""

from .shares import patch_masks
from .training import TransFit, mean_psnr
from .trans_inr import PatchTokens, Routing, TransINR
from .tuning import Tuned, neuron_canvases, own_starts, shared_start, tuned
from .views import RayTokens, RayTransINR, camera_rays, ray_colours, ray_depths
from .writer import Groups, Modulations, Weights, WeightWriter, as_module, painted, stacked

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
