"""MACO's parameterization: the magnitudes of the spectrum stay natural, only the phases move."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...store import read_tensors
from .color import decorrelate, recorrelate
from .parameterizations import Decode, Params, logits_of

_PHOTOS = Path(__file__).with_name("natural_magnitude.safetensors")  # docs/make_natural_magnitude.py wrote it


@dataclass(frozen=True)
class Phase:
    r"""Free phases on a fixed magnitude spectrum.

    .. math:: x = \sigma(C^\top\, \mathrm{irfft2}(m \odot \sigma(g)\, e^{i \varphi}) / d)

    Symbols: m the magnitude, the seed's own or a given one, φ the free phases, g the gate of every frequency (left
    out, that factor is one), d desaturation, C the colour matrix.

    Args:
        magnitude: (C, h, w//2+1) of decorrelated logits, resized to the picture, for pictures that start from
            noise; seeds bring their own. :func:`natural_magnitude` measures one; None is that of scikit-image's photos.
        gate: the initial g; the original has 5, which already takes .7 % off every magnitude.
        desaturation: d.
        margin: as in Pixel.

    Raises:
        ValueError: a magnitude with other channels than the picture, or a seed of one flat colour.

    Example:
        >>> (phases,), decode = Phase().at(torch.rand(1, 3, 4, 4))
        >>> phases.shape
        torch.Size([1, 3, 4, 3])

    Source: Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization"
    (NeurIPS 2023).
    """

    magnitude: Tensor | None = None
    gate: float | None = None
    desaturation: float = 1.0
    margin: float = 0.02

    def at(self, images: Tensor) -> tuple[Params, Decode]:
        """The phases of images (and the gates, where there are any), and the function that reads them back."""
        spectrum = torch.fft.rfft2(decorrelate(logits_of(images, self.margin)) * self.desaturation)
        flat = images.flatten(2).std(2).amax(1) == 0
        if bool(flat.any()):
            raise ValueError(
                f"image {int(flat.nonzero()[0])} is one flat colour: its spectrum is all mean, and phases move nothing "
                "in it. Use Fourier() or Pixel(), or start from noise (inputs=None)."
            )
        return self._start(spectrum.angle(), spectrum.abs(), (images.shape[-2], images.shape[-1]))

    def random(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Params, Decode]:
        """Uniform phases on the given magnitude."""
        magnitude = _photos() if self.magnitude is None else self.magnitude
        rows, channels, height, width = shape
        if magnitude.shape[0] != channels:
            raise ValueError(
                f"the magnitude has {magnitude.shape[0]} channels, but the picture has {channels}; measure one from "
                "photos with as many channels: Phase(magnitude=natural_magnitude(photos))."
            )
        resized = resize_magnitude(magnitude.float().cpu(), (height, width))
        phase = torch.rand((rows, *resized.shape), generator=generator) * (2 * math.pi) - math.pi
        return self._start(phase, resized, (height, width))

    def _start(self, phase: Tensor, magnitude: Tensor, size: tuple[int, int]) -> tuple[Params, Decode]:
        gates = () if self.gate is None else (torch.full_like(phase, self.gate),)

        def decode(params: Params) -> Tensor:
            held = magnitude.to(params[0], non_blocking=True)
            if self.gate is not None:
                held = held * torch.sigmoid(params[1])
            spectrum = torch.complex(held * params[0].cos(), held * params[0].sin())
            return torch.sigmoid(recorrelate(torch.fft.irfft2(spectrum, s=size) / self.desaturation))

        return (phase, *gates), decode


def _photos() -> Tensor:
    writer = "docs/make_natural_magnitude.py"
    return read_tensors(_PHOTOS, kind="magnitude", writer=writer).tensors["magnitude"]


def natural_magnitude(photos: Tensor, margin: float = 0.02) -> Tensor:
    r"""The mean magnitude spectrum of photos, in decorrelated logits.

    .. math:: m_k = \frac{1}{n} \sum_i |\mathrm{rfft2}(C^{-\top} \mathrm{logit}(x_i))_k|

    Args:
        photos: (n, C, H, W) in [0, 1].
        margin: as in Pixel.

    Returns:
        (C, H, W//2+1).

    Example:
        >>> natural_magnitude(torch.rand(4, 3, 8, 8)).shape
        torch.Size([3, 8, 5])
    """
    magnitudes: Tensor = torch.fft.rfft2(decorrelate(logits_of(photos, margin))).abs()
    return magnitudes.mean(0)


def resize_magnitude(magnitude: Tensor, size: tuple[int, int]) -> Tensor:
    """A spectrum (C, h, w//2+1) for pictures of another size: frequencies are matched, energy a pixel is kept."""
    height, width = size
    rows, columns = magnitude.shape[-2:]
    centred = torch.fft.fftshift(magnitude, dim=-2)[None]
    resized = interpolate(centred, (height, width // 2 + 1), mode="bilinear", align_corners=True, antialias=True)[0]
    back: Tensor = torch.fft.ifftshift(resized, dim=-2)
    return back * (height * (width // 2 + 1) / (rows * columns))
