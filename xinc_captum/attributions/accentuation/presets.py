"""Whole sets of choices under a name."""

import torch

from .parameterizations import Fourier
from .reading import Layer
from .regularizers import FeatureDistance
from .settings import Options
from .transforms import Crops, Noise

_NOISE = (0.02**2 + 0.02**2 / 12) ** 0.5  # N(0, .02) and U(-.01, .01) on every value


def faccent(layer: Layer | None = None, weight: float = 1.0) -> Options:
    """What the paper's released library does, as keywords of ``accentuate``; no feature distance without a layer.

    Sixteen crops with sides U(.05, .99) a step, noise, 99 steps of Adam at .05 on Fourier coefficients, and the plain
    L2 norm, whose gradient at the seed is rounding noise.

    What differs from the original, measured on six photos of scikit-image, in units of [0, 1]:

    - Its antialiased resizing shifts a crop by (s - 1) / 2 pixels of the image, s being image pixels per view pixel;
      here crops keep their corners. The mean difference of a pixel is .011 for images of 224 and .008 for images of
      512 pixels in views of 224.
    - Beside that shift and the edges, crops agree within .00004 where the image is not larger than the view. Crops that
      are shrunk are averaged over whole pixels here and with a triangle there: .005 for images of 512, and .008 for
      images of 1024 pixels.
    - Boxes have the model's aspect, lie at fractions of a pixel and are stratified over the crops of a step; the
      original's have the image's aspect and whole pixels. Noise is added to the views, and not to the crops before
      they are resized, with the standard deviation of the original's two kinds of noise together.

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
        transforms=(Crops(16, side=(0.05, 0.99), edge=0.0), Noise(std=_NOISE)),
        regularizer=None if layer is None else FeatureDistance(layer, weight, smooth=0.0),
        n_draws=99,
        mask_every=1,
    )
