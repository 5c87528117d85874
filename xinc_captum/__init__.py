"""Captum-compatible attributions for implicit neural representations and vision models.

What each neuron paints, what a feature sees in this very photo, what a unit means when a generator draws it.
"""

from .attributions import Canvas, LayerContribution, NeuronCanvas, as_explanation
from .hooks import LayerError, capture, patch, untouched
from .images import to_hwc
from .propagation import Ablation, CarryError, Secant, Tangent, Xinc

__version__ = "0.1.0"

__all__ = [
    "Ablation",
    "Canvas",
    "CarryError",
    "LayerContribution",
    "LayerError",
    "NeuronCanvas",
    "Secant",
    "Tangent",
    "Xinc",
    "__version__",
    "as_explanation",
    "capture",
    "patch",
    "to_hwc",
    "untouched",
]
