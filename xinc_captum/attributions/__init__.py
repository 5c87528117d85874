"""Room: the Captum-compatible attribution classes."""

from .canvas import Canvas
from .contract import as_explanation
from .contribution import LayerContribution
from .neuron_canvas import NeuronCanvas

__all__ = ["Canvas", "LayerContribution", "NeuronCanvas", "as_explanation"]
