"""The maps a link can be, by name."""

from typing import Literal

from torch import Tensor

from .fourier_map import FourierMap
from .linear_map import LinearMap
from .per_class_map import PerClassMap
from .regression import Ridge

Variant = Literal["linear", "per_class", "fourier_features"]
Map = LinearMap | PerClassMap | FourierMap
KINDS: dict[str, type[LinearMap] | type[PerClassMap] | type[FourierMap]] = {
    "linear": LinearMap,
    "per_class": PerClassMap,
    "fourier_features": FourierMap,
}


def new_map(variant: Variant, r: Tensor, w: Tensor, ridge: Ridge, *, features: int, seed: int) -> Map:
    """A map for pairs like these, the first chunk; it has not taken them in yet."""
    if variant == "linear":
        return LinearMap(r, w, ridge)
    if variant == "per_class":
        return PerClassMap(r, w, ridge)
    return FourierMap(r, w, ridge, features=features, seed=seed)
