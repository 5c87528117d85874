"""XINC: the contribution of each neuron to each output pixel."""

from .canvas import Canvas
from .frames import FrameCanvas
from .neuron_canvas import NeuronCanvas, canvases
from .reader import open_canvas
from .writer import CanvasStoreError

__all__ = ["Canvas", "CanvasStoreError", "FrameCanvas", "NeuronCanvas", "canvases", "open_canvas"]
