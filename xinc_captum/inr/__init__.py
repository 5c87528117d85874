"""Implicit neural representations of images and videos, and how to fit them."""

from .coordinates import (
    FourierFeatures,
    LogFrequencies,
    NerfFrequencies,
    coordinates,
    pixel_centres,
    ray_samples,
    ray_weights,
    times,
)
from .fit import Fit, Loaded, VideoFit, fit, fit_video, load, psnr, render, render_video, save
from .mlp import FourierMLP, HypoNet, Sine, Siren
from .nerv import HNeRV, NeRV, shrinking_widths
from .training import CheckpointError

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
    "render",
    "render_video",
    "save",
    "shrinking_widths",
    "times",
]
