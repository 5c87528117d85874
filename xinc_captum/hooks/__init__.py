"""Read, edit and protect a model on any device; its state is restored afterwards."""

from .capture import Captured, capture
from .distributed import is_sharded, refuse_sharded, unsynchronised
from .eager import eager
from .exchange import exchange
from .guarded import guarded
from .lock import exclusive
from .models import ForwardFunc, LayerError, find_layer, layer_name, modules_behind, unwrap
from .patch import patch
from .reach import reach
from .snapshot import snapshot
from .threads import of_this_thread
from .untouched import untouched

__all__ = [
    "Captured",
    "ForwardFunc",
    "LayerError",
    "capture",
    "eager",
    "exchange",
    "exclusive",
    "find_layer",
    "guarded",
    "is_sharded",
    "layer_name",
    "modules_behind",
    "of_this_thread",
    "patch",
    "reach",
    "refuse_sharded",
    "snapshot",
    "unsynchronised",
    "untouched",
    "unwrap",
]
