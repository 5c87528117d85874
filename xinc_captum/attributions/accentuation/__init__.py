"""Workshop: climb a score in image space, from a seed or from noise."""

from . import objectives
from .grid import layer_to_grid
from .objectives import Objective
from .opacity import opacity
from .parameterizations import Fourier, Pixel
from .phase import Phase, natural_magnitude
from .presets import faccent
from .regularizers import Ball, FeatureDistance
from .settings import Options, Settings
from .steepest import Steepest
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
