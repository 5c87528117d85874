"""Room: the Captum-compatible attribution classes."""

from .accentuated import Accentuation
from .accentuation import FeatureAccentuation, NeuronFeatureAccentuation
from .canvas import Canvas
from .canvas_layout import CanvasStoreError
from .canvases import canvases
from .contract import as_explanation
from .contribution import LayerContribution
from .frame_canvas import FrameCanvas
from .neuron_canvas import NeuronCanvas
from .stored_canvas import open_canvas

__all__ = [
    "Accentuation",
    "Canvas",
    "CanvasStoreError",
    "FeatureAccentuation",
    "FrameCanvas",
    "LayerContribution",
    "NeuronCanvas",
    "NeuronFeatureAccentuation",
    "as_explanation",
    "canvases",
    "open_canvas",
]
