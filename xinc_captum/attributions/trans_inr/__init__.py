"""TransINR: a transformer that generates coordinate networks for images, and analyses of it."""

from .token_contribution import TokenContribution, patch_masks
from .training import TransFit, mean_psnr
from .trans_inr import PatchTokens, Routing, TransINR
from .tuning import FineTuned, fine_tune, identical_inits, independent_inits, neuron_canvases
from .views import RayTokens, RayTransINR, camera_rays, ray_colours, ray_depths
from .writer import Groups, Modulations, Weights, WeightWriter, as_module, run_networks, stack_weights
from .written_weights import WrittenWeights

__all__ = [
    "FineTuned",
    "Groups",
    "Modulations",
    "PatchTokens",
    "RayTokens",
    "RayTransINR",
    "Routing",
    "TokenContribution",
    "TransFit",
    "TransINR",
    "WeightWriter",
    "Weights",
    "WrittenWeights",
    "as_module",
    "camera_rays",
    "fine_tune",
    "identical_inits",
    "independent_inits",
    "mean_psnr",
    "neuron_canvases",
    "patch_masks",
    "ray_colours",
    "ray_depths",
    "run_networks",
    "stack_weights",
]
