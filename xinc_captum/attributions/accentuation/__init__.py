"""Workshop: climb a score in image space, from a seed or from noise."""

from . import objectives
from .activations import layer_to_grid
from .objectives import Objective
from .optimize import Steepest
from .parameterizations import Fourier, Phase, Pixel, natural_magnitude
from .result import opacity
from .score import Ball, FeatureDistance
from .settings import Options, Settings, faccent
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
