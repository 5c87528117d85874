"""A Gabor bank of 24 filters in floating point, and regions of like texture."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .._extra import needed
from .partitions import grouped
from .pictures import intensity

ANGLES = tuple(math.pi * i / 4 for i in range(4))
SIGMAS = (1.0, 3.0)  # pixels
FREQUENCIES = (0.05, 0.15, 0.25)  # cycles a pixel


def gabor_bank() -> list[Tensor]:
    r"""The 24 complex filters, angle by angle, then σ, then frequency (kernels of scikit-image, extra ``analysis``).

    .. math:: g(x) = e^{-|x|^2 / 2\sigma^2} \,(e^{2\pi i f x \cdot n_\theta} - m)

    Symbols: θ in {0, 45, 90, 135}°, n_θ its direction (0 along the columns), σ in {1, 3} pixels, f in {.05, .15, .25}
    cycles a pixel, m the mean under the envelope: without it the widest waves in the narrowest windows would answer
    to brightness, not to texture.

    Returns:
        complex128 kernels of odd sides, (h, w) each.

    Raises:
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> len(gabor_bank())
        24
    """
    filters = needed("skimage.filters", purpose="the Gabor bank", extra="analysis")
    bank = []
    for theta, sigma, frequency in itertools.product(ANGLES, SIGMAS, FREQUENCIES):
        kernel = torch.from_numpy(filters.gabor_kernel(frequency, theta, sigma_x=sigma, sigma_y=sigma))
        envelope = kernel.abs()
        bank.append(kernel - envelope * (kernel.sum() / envelope.sum()))
    return bank


def gabor_responses(picture: Tensor) -> Tensor:
    r"""How strongly each of the 24 filters answers at each pixel, whatever the wave's phase.

    .. math:: r_{k,p} = |(g_k * I)(p)|

    Symbols: g_k the filters of :func:`gabor_bank`, I the intensity; the border is repeated outwards. The released
    code filters 8-bit values and gets 8-bit answers, which wrap around; and stops after the first angle.

    Args:
        picture: (C, H, W), floats in [0, 1].

    Returns:
        (24, H, W), float64.

    Raises:
        ValueError: 8-bit values, or another number of dims.
        ModuleNotFoundError: scikit-image is missing.

    Example:
        >>> gabor_responses(torch.full((3, 8, 8), 0.5)).amax() < 1e-12
        tensor(True)
    """
    grey = intensity(picture).cpu().double()[None, None]
    answers = []
    for kernel in gabor_bank():
        h, w = kernel.shape
        around = F.pad(grey, [w // 2, w // 2, h // 2, h // 2], mode="replicate")
        both = torch.stack([kernel.real, kernel.imag])[:, None].flip(2, 3)  # a convolution, not a correlation
        answers.append(F.conv2d(around, both)[0].norm(dim=0))
    return torch.stack(answers).to(picture.device)


def gabor_regions(picture: Tensor, regions: int = 24, *, seed: int = 0) -> Tensor:
    """Pixels of like texture: k-means on the 24 responses, each divided by its standard deviation over the picture.

    Args:
        picture: (C, H, W), floats in [0, 1].
        regions: k.
        seed: of k-means' first centres.

    Returns:
        (H, W), int64 labels.

    Raises:
        ValueError: 8-bit values, another number of dims, or fewer different pixels than regions.
        ModuleNotFoundError: scikit-image or scikit-learn is missing.

    Example:
        >>> gabor_regions(torch.rand(3, 12, 16), 4).shape
        torch.Size([12, 16])
    """
    responses = gabor_responses(picture)
    spread = responses.flatten(1).std(1).clamp_min(1e-12)[:, None, None]
    return grouped((responses / spread).movedim(0, -1), regions, seed=seed)
