"""Ground floor: read, edit and protect any model on any device, and put everything back."""

from .capture import Captured, capture
from .eager import eager
from .exchange import exchange
from .models import ForwardFunc, LayerError, find_layer, layer_name, modules_behind, unwrap
from .patch import patch
from .reach import reach
from .snapshot import snapshot
from .untouched import untouched

__all__ = [
    "Captured",
    "ForwardFunc",
    "LayerError",
    "capture",
    "eager",
    "exchange",
    "find_layer",
    "layer_name",
    "modules_behind",
    "patch",
    "reach",
    "snapshot",
    "untouched",
    "unwrap",
]
