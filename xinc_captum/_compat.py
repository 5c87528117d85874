"""All private Captum imports of this package; tests/test_compat.py checks that each exists."""

from captum._utils.common import _select_targets as select_targets
from captum.attr._utils.attribution import GradientAttribution, InternalAttribution, LayerAttribution, NeuronAttribution

__all__ = ["GradientAttribution", "InternalAttribution", "LayerAttribution", "NeuronAttribution", "select_targets"]
