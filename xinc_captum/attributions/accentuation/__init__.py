"""Feature accentuation: raise a score in image space, from a seed image or from noise."""

from ..token_grid import layer_to_grid
from . import objectives
from .objectives import Objective
from .parameterizations import Fourier, Phase, Pixel, natural_magnitude
from .result import opacity
from .settings import Ball, FeatureDistance, Options, Settings, Steepest, faccent
from .transforms import Crops, Jitter, Noise, Rotation, Schedule

__all__ = [
    "Ball",
    "Crops",
    "FeatureDistance",
    "Fourier",
    "Jitter",
    "Noise",
    "Objective",
    "Options",
    "Phase",
    "Pixel",
    "Rotation",
    "Schedule",
    "Settings",
    "Steepest",
    "faccent",
    "layer_to_grid",
    "natural_magnitude",
    "objectives",
    "opacity",
]
