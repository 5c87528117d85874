"""Workshop: implicit neural representations and how to fit them."""

from .checkpoint import Loaded, load, save
from .coordinates import coordinates
from .encodings import FourierFeatures, NerfFrequencies
from .fit import Fit, fit, psnr, render
from .mlp import FourierMLP, Sine, Siren

__all__ = [
    "Fit",
    "FourierFeatures",
    "FourierMLP",
    "Loaded",
    "NerfFrequencies",
    "Sine",
    "Siren",
    "coordinates",
    "fit",
    "load",
    "psnr",
    "render",
    "save",
]
