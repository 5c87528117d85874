"""Room: the Captum-compatible attribution classes."""

from .accentuated import Accentuation
from .accentuation import FeatureAccentuation, NeuronFeatureAccentuation
from .canvas import Canvas
from .canvas_layout import CanvasStoreError
from .canvases import canvases
from .contract import as_explanation
from .contribution import LayerContribution
from .counterfactual import Counterfactual
from .feature_activation_map import FeatureActivationMap
from .frame_canvas import FrameCanvas
from .linked_unit import LinkedUnitVisualization
from .neuron_canvas import NeuronCanvas
from .stored_canvas import open_canvas
from .sweep import SweepTrust, UnitSweep
from .token_contribution import TokenContribution
from .weight_contribution import WeightContribution

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
