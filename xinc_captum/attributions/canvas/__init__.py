"""XINC: the contribution of each neuron to each output pixel."""

from .canvas import Canvas
from .frames import FrameCanvas
from .neuron_canvas import NeuronCanvas, canvases
from .storage import CanvasStoreError
from .stored import open_canvas

__all__ = [
    "Canvas",
    "CanvasStoreError",
    "FrameCanvas",
    "NeuronCanvas",
    "canvases",
    "open_canvas",
]
