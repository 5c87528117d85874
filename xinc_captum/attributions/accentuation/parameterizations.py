"""Parameterizations of images: decorrelated pixels, Fourier coefficients, and phases (MACO)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...store import read_tensors

# Square root of the colour covariance of natural photos, each axis one row (Lucent's matrix, transposed).
_AXES = (
    (0.56282854, 0.58447580, 0.58447580),
    (0.19482528, 0.0, -0.19482528),
    (0.04329450, -0.10823626, 0.06494176),
)


def recorrelate(values: Tensor) -> Tensor:
    r"""Return the red, green and blue values of decorrelated colours (N, 3, H, W); other images are returned unchanged.

    .. math:: \mathrm{rgb}_j = \sum_i v_i C_{ij}

    Symbols: v the decorrelated colours of a pixel, C the matrix.

    Source: Olah et al., "Feature Visualization" (Distill, 2017), preconditioning; the matrix C is Lucid's and Lucent's.
    """
    return values if values.shape[1] != 3 else _mix(values, torch.tensor(_AXES, dtype=values.dtype))


def decorrelate(values: Tensor) -> Tensor:
    """Invert :func:`recorrelate`."""
    inverse = torch.linalg.inv(torch.tensor(_AXES, dtype=torch.float64))
    return values if values.shape[1] != 3 else _mix(values, inverse.to(values.dtype))


def _mix(values: Tensor, columns: Tensor) -> Tensor:
    return torch.einsum("nihw,ij->njhw", values, columns.to(values.device, non_blocking=True))


Params = tuple[Tensor, ...]
Decode = Callable[[Params], Tensor]
ImageParameters = tuple[Params, Callable[[], Tensor]]  # with a function that returns their images, like Lucent's


class Parameterization(Protocol):
    """Encodes images (N, C, H, W) in [0, 1] as parameters with rows first, and decodes them."""

    def at(self, images: Tensor) -> tuple[Params, Decode]:
        """Return the parameters of images, and the differentiable function that decodes parameters."""

    def random(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Params, Decode]:
        """Return random parameters of images of ``shape`` (N, C, H, W), on the CPU, and their decoder."""


def is_lucent_param_f(parameterization: Any) -> bool:
    """Return whether this is a function such as Lucent's ``param_f``, which returns parameters and needs no image."""
    return not hasattr(parameterization, "at")


def start_from_images(parameterization: Parameterization, images: Tensor) -> ImageParameters:
    r"""Return parameters whose images are the given ones, and the function that returns their images.

    .. math:: x(p) = \mathrm{clamp}(D(p) + x_0 - D(E(x_0)), 0, 1)

    Symbols: E encode, D decode, x_0 the seed images. The constant term restores what encoding loses (saturated
    pixels, rounding, a fixed magnitude), so that the first image is the seed.
    """
    with torch.no_grad():
        params, decode = parameterization.at(images)
        residual = images - decode(params)
    leaves = tuple(p.detach().clone().requires_grad_() for p in params)
    return leaves, lambda: _clamp(decode(leaves) + residual)


def _clamp(values: Tensor) -> Tensor:
    """Clamp to [0, 1] with the gradient of the identity: that of clamp is 0 for saturated pixels."""
    return values + (values.clamp(0, 1) - values).detach()


def start_from_noise(
    parameterization: Parameterization, like: Tensor, generator: torch.Generator, start: int, total: int
) -> ImageParameters:
    """Return random parameters of images with the shape, dtype and device of ``like``, and what decodes them.

    Parameters of ``total`` images are drawn, and those of ``like`` begin at ``start``, so that cutting a batch does not
    change them.
    """
    params, decode = parameterization.random((total, *like.shape[1:]), generator)
    leaves = tuple(p[start : start + len(like)].to(like, copy=True).requires_grad_() for p in params)
    return leaves, lambda: decode(leaves)


@dataclass(frozen=True)
class Pixel:
    r"""Parameters are pixels, as logits of decorrelated colours.

    .. math:: x = \sigma(C^\top p / d)

    Symbols: p parameters (N, C, H, W); d = ``desaturation`` (a larger one changes colours less in each step); C the
    colour matrix; σ the logistic function. Images are clamped to [margin, 1 - margin], where the logit is finite and
    has a gradient.

    Example:
        >>> pixel = Pixel()
        >>> pixel.decode(pixel.encode(torch.full((1, 3, 2, 2), 0.5))).shape
        torch.Size([1, 3, 2, 2])
    """

    desaturation: float = 5.0
    margin: float = 0.02

    def encode(self, images: Tensor) -> Params:
        """Return the logits in decorrelated colours: one tensor (N, C, H, W)."""
        return (decorrelate(to_logits(images, self.margin)) * self.desaturation,)

    def decode(self, params: Params) -> Tensor:
        """Return the images of :meth:`encode`'s parameters."""
        return torch.sigmoid(recorrelate(params[0] / self.desaturation))

    def at(self, images: Tensor) -> tuple[Params, Decode]:
        """Return the parameters of images, and :meth:`decode`."""
        return self.encode(images), self.decode

    def random(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Params, Decode]:
        """Return normal noise with standard deviation .05 around grey, and :meth:`decode`."""
        return (0.05 * torch.randn(shape, generator=generator),), self.decode


@dataclass(frozen=True)
class Fourier:
    r"""Parameters are the image's spectrum, scaled up for low frequencies, so that changes are smooth.

    .. math:: x = \sigma(C^\top\, \mathrm{irfft2}(s \odot p) / d), \quad s_k = \max(|f_k|, 1/\max(h, w))^{-\alpha}

    Symbols: p coefficients (N, C, H, W//2+1, 2) as real and imaginary part; f_k frequency k in cycles per pixel; h, w
    the image's size; α = ``decay``: 0 treats all frequencies equally, 1 weights them as natural photos do; the others
    as in :class:`Pixel`.

    Example:
        >>> Fourier().encode(torch.rand(1, 3, 5, 7))[0].shape
        torch.Size([1, 3, 5, 4, 2])

    Source: Olah et al., "Feature Visualization" (Distill, 2017); the default of Hamblin et al. (arXiv 2402.10039).
    """

    decay: float = 1.0
    desaturation: float = 5.0
    margin: float = 0.02

    def encode(self, images: Tensor) -> Params:
        """Return the coefficients of the decorrelated logits."""
        logits = decorrelate(to_logits(images, self.margin)) * self.desaturation
        spectrum = torch.fft.rfft2(logits, norm="ortho")
        return (torch.view_as_real(spectrum / frequency_scale(images, self.decay)).contiguous(),)

    def decode(self, params: Params, size: tuple[int, int]) -> Tensor:
        """Return the images of :meth:`encode`'s coefficients; any height and width, odd ones too."""
        spectrum = torch.view_as_complex(params[0]) * frequency_scale(params[0], self.decay, size)
        values = torch.fft.irfft2(spectrum, s=size, norm="ortho") / self.desaturation
        return torch.sigmoid(recorrelate(values))

    def at(self, images: Tensor) -> tuple[Params, Decode]:
        """Return the coefficients of images, and :meth:`decode` for their size."""
        size = images.shape[-2], images.shape[-1]
        return self.encode(images), lambda params: self.decode(params, size)

    def random(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Params, Decode]:
        """Return normal coefficients with standard deviation .01, and :meth:`decode` for the size."""
        rows, channels, height, width = shape
        coefficients = 0.01 * torch.randn(rows, channels, height, width // 2 + 1, 2, generator=generator)
        return (coefficients,), lambda params: self.decode(params, (height, width))


def frequencies(size: tuple[int, int]) -> Tensor:
    """Return |f| of every coefficient of ``rfft2`` in cycles per pixel: (H, W//2+1), float64, on the CPU."""
    height, width = size
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)[None]
    length: Tensor = (rows**2 + columns**2).sqrt()
    return length


def frequency_scale(like: Tensor, decay: float, size: tuple[int, int] | None = None) -> Tensor:
    """Return Fourier's s_k, (H, W//2+1), for images of ``size`` (default: that of ``like``), in its dtype."""
    height, width = size or (like.shape[-2], like.shape[-1])
    scale: Tensor = frequencies((height, width)).clamp_min(1 / max(height, width)) ** -decay
    return scale.to(like.dtype).to(like.device, non_blocking=True)


def to_logits(images: Tensor, margin: float) -> Tensor:
    """Return the logits of images clamped to [margin, 1 - margin], where they are finite."""
    return torch.logit(images.clamp(margin, 1 - margin))


_PHOTOS, _WRITER = Path(__file__).with_name("natural_magnitude.safetensors"), "docs/make_natural_magnitude.py"


@dataclass(frozen=True)
class Phase:
    r"""Parameters are the phases of the spectrum; its magnitude is fixed (MACO).

    .. math:: x = \sigma(C^\top\, \mathrm{irfft2}(m \odot \sigma(g)\, e^{i \varphi}) / d)

    Symbols: m the magnitude, φ the phases, g the gate of every frequency (without gates that factor is 1); the others
    as in :class:`Pixel`.

    Args:
        magnitude: m for images from noise, (C, h, w//2+1), of decorrelated logits, resized to the image; seeds keep
            their own. :func:`natural_magnitude` measures one; None uses that of scikit-image's photos.
        gate: the initial g; the original has 5, which reduces every magnitude by .7 %.

    Raises:
        ValueError: a magnitude with other channels than the image, or a seed of one flat colour.

    Example:
        >>> (phases,), decode = Phase().at(torch.rand(1, 3, 4, 4))
        >>> phases.shape
        torch.Size([1, 3, 4, 3])

    Source: Fel et al., "Unlocking Feature Visualization [...] with MAgnitude Constrained Optimization" (NeurIPS 2023).
    """

    magnitude: Tensor | None = None
    gate: float | None = None
    desaturation: float = 1.0
    margin: float = 0.02

    def at(self, images: Tensor) -> tuple[Params, Decode]:
        """Return the phases of images (and the gates, where there are any), and the function that decodes them."""
        spectrum = torch.fft.rfft2(decorrelate(to_logits(images, self.margin)) * self.desaturation)
        flat = images.flatten(2).std(2).amax(1) == 0
        if bool(flat.any()):
            raise ValueError(
                f"image {int(flat.nonzero()[0])} is one flat colour: its spectrum is the mean alone, and phases do not "
                "change it. Use Fourier() or Pixel(), or start from noise (inputs=None)."
            )
        return self._start(spectrum.angle(), spectrum.abs(), (images.shape[-2], images.shape[-1]))

    def random(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Params, Decode]:
        """Return uniform phases for the fixed magnitude, and the function that decodes them."""
        magnitude = self.magnitude
        if magnitude is None:
            magnitude = read_tensors(_PHOTOS, kind="magnitude", writer=_WRITER).tensors["magnitude"]
        rows, channels, height, width = shape
        if magnitude.shape[0] != channels:
            raise ValueError(
                f"the magnitude has {magnitude.shape[0]} channels, but the image has {channels}; measure one from "
                "photos with as many channels: Phase(magnitude=natural_magnitude(photos))."
            )
        resized = resize_magnitude(magnitude.float().cpu(), (height, width))
        phase = torch.rand((rows, *resized.shape), generator=generator) * (2 * math.pi) - math.pi
        return self._start(phase, resized, (height, width))

    def _start(self, phase: Tensor, magnitude: Tensor, size: tuple[int, int]) -> tuple[Params, Decode]:
        gates = () if self.gate is None else (torch.full_like(phase, self.gate),)

        def decode(params: Params) -> Tensor:
            gated = magnitude.to(params[0], non_blocking=True)
            if self.gate is not None:
                gated = gated * torch.sigmoid(params[1])
            spectrum = torch.complex(gated * params[0].cos(), gated * params[0].sin())
            return torch.sigmoid(recorrelate(torch.fft.irfft2(spectrum, s=size) / self.desaturation))

        return (phase, *gates), decode


def natural_magnitude(photos: Tensor, margin: float = 0.02) -> Tensor:
    r"""Return the mean magnitude spectrum of photos (n, C, H, W) in decorrelated logits: (C, H, W//2+1).

    .. math:: m_k = \frac{1}{n} \sum_i |\mathrm{rfft2}(C^{-\top} \mathrm{logit}(x_i))_k|

    Example:
        >>> natural_magnitude(torch.rand(4, 3, 8, 8)).shape
        torch.Size([3, 8, 5])
    """
    return torch.mean(torch.fft.rfft2(decorrelate(to_logits(photos, margin))).abs(), 0)


def resize_magnitude(magnitude: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a spectrum (C, h, w//2+1) for images of another size, with the same energy per pixel."""
    height, width = size
    rows, columns = magnitude.shape[-2:]
    centred = torch.fft.fftshift(magnitude, dim=-2)[None]
    resized = interpolate(centred, (height, width // 2 + 1), mode="bilinear", align_corners=True, antialias=True)[0]
    back: Tensor = torch.fft.ifftshift(resized, dim=-2)
    return back * (height * (width // 2 + 1) / (rows * columns))
