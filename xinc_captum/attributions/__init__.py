"""The Captum-compatible attribution classes.

==========================================  ============  ====================  =====================
Paper                                       Folder        Documentation         Main class
==========================================  ============  ====================  =====================
Feature Accentuation                        accentuation  docs/accentuation.md  FeatureAccentuation
Explaining the Implicit Neural Canvas       canvas        docs/canvases.md      NeuronCanvas
Linking in Style                            linking       docs/linking.md       LatentLink
NeRN: Learning Neural Representations for   nern          docs/nern.md          NeRN
Neural Networks
Transformers as Meta-Learners for Implicit  trans_inr     docs/trans_inr.md     TokenContribution
Neural Representations
==========================================  ============  ====================  =====================
"""

from .accentuation.feature_accentuation import FeatureAccentuation, NeuronFeatureAccentuation
from .accentuation.result import Accentuation
from .base import as_explanation
from .canvas.canvas import Canvas
from .canvas.frames import FrameCanvas
from .canvas.neuron_canvas import NeuronCanvas, canvases
from .canvas.reader import open_canvas
from .canvas.writer import CanvasStoreError
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
