"""Captum-compatible attributions for implicit neural representations and vision models.

Canvases map each neuron's contribution to each output pixel, feature accentuation shows what a feature responds to in
an image, and latent links generate images in which a unit of a classifier rises or falls.
"""

from .attributions import (
    Accentuation,
    Canvas,
    FeatureAccentuation,
    FeatureActivationMap,
    LayerContribution,
    LinkedUnitVisualization,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    TokenContribution,
    WeightContribution,
    as_explanation,
    canvases,
    open_canvas,
)
from .attributions.accentuation import layer_to_grid
from .attributions.canvas.rules import Ablation, CarryError, Secant, Tangent, Xinc
from .attributions.linking import LatentLink
from .attributions.nern import NeRN
from .attributions.trans_inr import TransINR
from .comparison import Comparison, compare
from .hooks import LayerError, capture, patch, untouched
from .image_model import ImageModel
from .images import to_hwc
from .models import load_model

__version__ = "0.1.0"

__all__ = [
    "Ablation",
    "Accentuation",
    "Canvas",
    "CarryError",
    "Comparison",
    "FeatureAccentuation",
    "FeatureActivationMap",
    "ImageModel",
    "LatentLink",
    "LayerContribution",
    "LayerError",
    "LinkedUnitVisualization",
    "NeRN",
    "NeuronCanvas",
    "NeuronFeatureAccentuation",
    "Secant",
    "Tangent",
    "TokenContribution",
    "TransINR",
    "WeightContribution",
    "Xinc",
    "__version__",
    "as_explanation",
    "canvases",
    "capture",
    "compare",
    "layer_to_grid",
    "load_model",
    "open_canvas",
    "patch",
    "to_hwc",
    "untouched",
]
