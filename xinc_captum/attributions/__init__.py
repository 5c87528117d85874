"""Room: the Captum-compatible attribution classes."""

from .accentuated import Accentuation
from .accentuation import FeatureAccentuation, NeuronFeatureAccentuation
from .canvas import Canvas
from .contract import as_explanation
from .contribution import LayerContribution
from .frame_canvas import FrameCanvas
from .neuron_canvas import NeuronCanvas

__all__ = [
    "Accentuation",
    "Canvas",
    "FeatureAccentuation",
    "FrameCanvas",
    "LayerContribution",
    "NeuronCanvas",
    "NeuronFeatureAccentuation",
    "as_explanation",
]
