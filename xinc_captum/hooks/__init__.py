"""Ground floor: read, edit and protect any model on any device, and put everything back."""

from .capture import Captured, capture
from .eager import eager
from .exchange import exchange
from .layer_value import floats_of, one_tensor, scripted
from .models import ForwardFunc, LayerError, find_layer, layer_name, modules_behind, unwrap
from .patch import patch
from .reach import reach
from .snapshot import snapshot
from .unit_axis import fits, has_places, image_size, unit_axis
from .untouched import untouched

__all__ = [
    "Captured",
    "ForwardFunc",
    "LayerError",
    "capture",
    "eager",
    "exchange",
    "find_layer",
    "fits",
    "floats_of",
    "has_places",
    "image_size",
    "layer_name",
    "modules_behind",
    "one_tensor",
    "patch",
    "reach",
    "scripted",
    "snapshot",
    "unit_axis",
    "untouched",
    "unwrap",
]
