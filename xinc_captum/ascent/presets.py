"""Whole sets of choices under a name."""

import torch

from .parameterizations import Fourier
from .reading import Layer
from .regularizers import FeatureDistance
from .settings import Options
from .transforms import Crops, Noise


def faccent(layer: Layer | None = None, weight: float = 1.0) -> Options:
    """What the paper's released library does, as keywords of ``accentuate``; no feature distance without a layer.

    Sixteen crops with sides U(.05, .99) a step, noise, 99 steps of Adam at .05 on Fourier coefficients, and the plain
    L2 norm, whose gradient at the seed is rounding noise.

    Example:
        >>> faccent("layer2")["n_steps"]
        99

    Source: faccent 1.0.3, by Hamblin et al. (arXiv 2402.10039).
    """
    return Options(
        n_steps=99,
        lr=0.05,
        optimizer=torch.optim.Adam,
        parameterization=Fourier(margin=1e-6),
        transforms=(Crops(16, side=(0.05, 0.99), edge=0.0), Noise(std=0.02, shift=0.02)),
        regularizer=None if layer is None else FeatureDistance(layer, weight, smooth=0.0),
        n_draws=99,
        mask_every=1,
    )
