"""Ground floor: read, edit and protect any model on any device, and put everything back."""

from .capture import Captured, capture
from .eager import eager
from .exchange import exchange
from .gradients import GradientError, gradient_errors, leads_to, no_gradient
from .models import ForwardFunc, LayerError, find_layer, layer_name, modules_behind, unwrap
from .patch import patch
from .preprocessed import check_preprocess, preprocesses
from .reach import reach
from .snapshot import snapshot
from .untouched import untouched

__all__ = [
    "Captured",
    "ForwardFunc",
    "GradientError",
    "LayerError",
    "capture",
    "check_preprocess",
    "eager",
    "exchange",
    "find_layer",
    "gradient_errors",
    "layer_name",
    "leads_to",
    "modules_behind",
    "no_gradient",
    "patch",
    "preprocesses",
    "reach",
    "snapshot",
    "untouched",
    "unwrap",
]
