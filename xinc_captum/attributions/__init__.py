"""The Captum-compatible attribution classes."""

from .accentuation.feature_accentuation import FeatureAccentuation, NeuronFeatureAccentuation
from .accentuation.result import Accentuation
from .base import as_explanation
from .canvas.canvas import Canvas
from .canvas.frames import FrameCanvas
from .canvas.neuron_canvas import NeuronCanvas, canvases
from .canvas.storage import CanvasStoreError
from .canvas.stored import open_canvas
from .feature_activation_map import FeatureActivationMap
from .layer_contribution import LayerContribution
from .linking.counterfactuals.counterfactual import Counterfactual
from .linking.linked_unit import LinkedUnitVisualization
from .linking.sweep import SweepTrust, UnitSweep
from .nern.weight_contribution import WeightContribution
from .trans_inr.token_contribution import TokenContribution

__all__ = [
    "Accentuation",
    "Canvas",
    "CanvasStoreError",
    "Counterfactual",
    "FeatureAccentuation",
    "FeatureActivationMap",
    "FrameCanvas",
    "LayerContribution",
    "LinkedUnitVisualization",
    "NeuronCanvas",
    "NeuronFeatureAccentuation",
    "SweepTrust",
    "TokenContribution",
    "UnitSweep",
    "WeightContribution",
    "as_explanation",
    "canvases",
    "open_canvas",
]
