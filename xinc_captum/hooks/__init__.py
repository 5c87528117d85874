"""Read, edit and protect a model on any device; its state is restored afterwards."""

from .capture import Captured, capture
from .distributed import is_sharded, refuse_sharded, unsynchronised
from .eager import eager
from .exchange import exchange
from .gradients import GradientError, gradient_errors, leads_to, no_gradient
from .guarded import guarded
from .layer_value import floats_of, one_tensor
from .lock import exclusive
from .models import ForwardFunc, LayerError, find_layer, is_scripted, layer_name, modules_behind, unwrap
from .patch import patch
from .preprocessed import check_preprocess, cropped_to, preprocesses, warn_of_crop
from .reach import reach
from .snapshot import snapshot
from .threads import of_this_thread
from .unit_axis import fits, has_places, image_size, unit_axis
from .untouched import untouched

__all__ = [
    "Captured",
    "ForwardFunc",
    "GradientError",
    "LayerError",
    "capture",
    "check_preprocess",
    "cropped_to",
    "eager",
    "exchange",
    "exclusive",
    "find_layer",
    "fits",
    "floats_of",
    "gradient_errors",
    "guarded",
    "has_places",
    "image_size",
    "is_scripted",
    "is_sharded",
    "layer_name",
    "leads_to",
    "modules_behind",
    "no_gradient",
    "of_this_thread",
    "one_tensor",
    "patch",
    "preprocesses",
    "reach",
    "refuse_sharded",
    "snapshot",
    "unit_axis",
    "unsynchronised",
    "untouched",
    "unwrap",
    "warn_of_crop",
]
