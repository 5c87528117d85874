"""Read and edit a model's activations and weights, and restore its state."""

from .capture import Captured, capture, eager, floats_of, one_tensor, patch, reach
from .functional import (
    exchange,
    is_sharded,
    no_synchronization,
    refuse_sharded,
    snapshot,
)
from .gradients import GradientError, gradient_errors, leads_to, no_gradient
from .layers import (
    ForwardFunc,
    LayerError,
    check_preprocess,
    crop_of,
    find_layer,
    is_scripted,
    layer_name,
    modules_behind,
    preprocesses,
    unwrap,
    warn_of_crop,
)
from .restore import (
    exclusive,
    of_this_thread,
    protect,
    untouched,
)
from .unit_axis import fits, has_places, image_size, unit_axis

__all__ = [
    "Captured",
    "ForwardFunc",
    "GradientError",
    "LayerError",
    "capture",
    "check_preprocess",
    "crop_of",
    "eager",
    "exchange",
    "exclusive",
    "find_layer",
    "fits",
    "floats_of",
    "gradient_errors",
    "has_places",
    "image_size",
    "is_scripted",
    "is_sharded",
    "layer_name",
    "leads_to",
    "modules_behind",
    "no_gradient",
    "no_synchronization",
    "of_this_thread",
    "one_tensor",
    "patch",
    "preprocesses",
    "protect",
    "reach",
    "refuse_sharded",
    "snapshot",
    "unit_axis",
    "untouched",
    "unwrap",
    "warn_of_crop",
]
