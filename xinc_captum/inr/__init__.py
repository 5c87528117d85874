"""Workshop: implicit neural representations and how to fit them."""

from .checkpoint import Loaded, load, save
from .coordinates import coordinates, pixel_centres, times
from .encodings import FourierFeatures, LogFrequencies, NerfFrequencies
from .fit import Fit, fit, psnr, render
from .fit_video import VideoFit, fit_video, render_video
from .hnerv import HNeRV
from .hyponet import HypoNet
from .mlp import FourierMLP, Sine, Siren
from .nerv import NeRV
from .rendering import ray_samples, ray_weights
from .resume import CheckpointError
from .upsampling import reduced

__all__ = [
    "CheckpointError",
    "Fit",
    "FourierFeatures",
    "FourierMLP",
    "HNeRV",
    "HypoNet",
    "Loaded",
    "LogFrequencies",
    "NeRV",
    "NerfFrequencies",
    "Sine",
    "Siren",
    "VideoFit",
    "coordinates",
    "fit",
    "fit_video",
    "load",
    "pixel_centres",
    "psnr",
    "ray_samples",
    "ray_weights",
    "reduced",
    "render",
    "render_video",
    "save",
    "times",
]
