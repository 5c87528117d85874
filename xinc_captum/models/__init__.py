"""Load models by name, and list their layers."""

from .describe import ModelDescription, describe, list_models
from .layers import LayerRow, default_layer, last_map, list_layers
from .load import load_model
from .weights import ModelError

__all__ = [
    "LayerRow",
    "ModelDescription",
    "ModelError",
    "default_layer",
    "describe",
    "last_map",
    "list_layers",
    "list_models",
    "load_model",
]
