"""Feature accentuation: raise a score in image space, from a seed image or from noise."""

from ..token_grid import layer_to_grid
from . import objectives
from .feature_accentuation import FeatureAccentuation, NeuronFeatureAccentuation
from .objectives import Objective
from .parameterizations import Fourier, Phase, Pixel, natural_magnitude
from .result import Accentuation, opacity
from .settings import Ball, FeatureDistance, Options, Settings, Steepest, faccent
from .transforms import Crops, Jitter, Noise, Rotation, Schedule

__all__ = [
    "Accentuation",
    "Ball",
    "Crops",
    "FeatureAccentuation",
    "FeatureDistance",
    "Fourier",
    "Jitter",
    "NeuronFeatureAccentuation",
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
