"""Room: the Captum-compatible attribution classes."""

from .accentuation.accentuated import Accentuation
from .accentuation.accentuation import FeatureAccentuation, NeuronFeatureAccentuation
from .canvas.canvas import Canvas
from .canvas.canvas_layout import CanvasStoreError
from .canvas.canvases import canvases
from .canvas.frame_canvas import FrameCanvas
from .canvas.neuron_canvas import NeuronCanvas
from .canvas.stored_canvas import open_canvas
from .contract import as_explanation
from .contribution import LayerContribution
from .feature_activation_map import FeatureActivationMap
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
