"""Pixel grids, rays through pixels, times of frames, and encodings of coordinates."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def coordinates(
    size: tuple[int, ...], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    r"""Return the coordinates of every pixel, row-major: (pixels, dims).

    .. math:: x_d = 2 i_d / (\max(size) - 1) - 1

    Symbols: i_d the pixel's index along axis d. Every axis is divided by the *longer* side, so that pixels are square:
    the longer axis spans [-1, 1], the shorter one starts at -1 and ends early (as XINC's released code does). The same
    image at twice the size covers the same range.

    Args:
        size: (H, W), (L,) or (D, H, W), the order of the axes of a coordinate.
        dtype: float dtype; None is torch's default.
        device: of the result.

    Raises:
        ValueError: a side below 1.

    Example:
        >>> coordinates((2, 3))[-1]
        tensor([0., 1.])
    """
    dtype = dtype or torch.get_default_dtype()
    return _grid(size, lambda s: torch.arange(s, dtype=dtype, device=device) / max(max(size) - 1, 1) * 2 - 1)


def pixel_centres(
    size: tuple[int, ...], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    r"""Return the centre of every pixel of an image whose edges are at -1 and 1: (pixels, dims), row-major.

    .. math:: x_d = (2 i_d + 1) / size_d - 1

    Arguments and errors as :func:`coordinates`, but every axis spans [-1, 1], whatever the shape of the image. This is
    the grid of :class:`xinc_captum.attributions.trans_inr.TransINR`.

    Example:
        >>> pixel_centres((2, 4))[-1]
        tensor([0.5000, 0.7500])

    Source: Chen & Wang (ECCV 2022), released code.
    """
    dtype = dtype or torch.get_default_dtype()
    return _grid(size, lambda s: (2 * torch.arange(s, dtype=dtype, device=device) + 1) / s - 1)


def _grid(size: tuple[int, ...], axis: Callable[[int], Tensor]) -> Tensor:
    if not size or min(size) < 1:
        raise ValueError(f"size is {size}; expected at least one side, each of at least 1 pixel.")
    return torch.stack(torch.meshgrid(*map(axis, size), indexing="ij"), dim=-1).reshape(-1, len(size))


def times(frames: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    r"""Return the times of the frames of a video: (frames, 1), from 0 for the first to 1 for the last.

    .. math:: t_i = i / (frames - 1)

    ``dtype`` and ``device`` as in :func:`coordinates`.

    Raises:
        ValueError: no frames.

    Example:
        >>> times(5).flatten()
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}; expected at least 1.")
    index = torch.arange(frames, dtype=dtype or torch.get_default_dtype(), device=device)
    return (index / max(frames - 1, 1))[:, None]


def ray_samples(
    size: tuple[int, int],
    samples: int,
    *,
    turn: float = 0.0,
    half: float = 1.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Return sample points on parallel rays through the pixels of an image: (H·W, samples, 3), as (y, x, z).

    .. math:: p_{r,i} = R(turn) \, (y_r, x_r, z_i), \qquad z_i = half \, (2 (i + 1/2) / samples - 1)

    Symbols: r a ray, one a pixel, row-major; i a sample, nearest first; R turns the camera about the vertical axis.
    The shorter side of the image and the depth span [-half, half]; samples are 2 half / samples apart.

    Args:
        size: (H, W).
        samples: along each ray.
        turn: angle of the camera, in radians.
        half: half the side of the rendered cube.
        dtype: float dtype; None is torch's default.
        device: of the result.

    Raises:
        ValueError: no pixels or no samples.

    Example:
        >>> ray_samples((2, 2), 1)[0]
        tensor([[-0.5000, -0.5000,  0.0000]])
    """
    if min(*size, samples) < 1:
        raise ValueError(f"size is {size} with {samples} samples a ray; expected at least one of each.")
    dtype = dtype or torch.get_default_dtype()
    pixel = 2 * half / min(size)
    y, x = ((torch.arange(n, dtype=dtype, device=device) + 0.5 - n / 2) * pixel for n in size)
    z = ((torch.arange(samples, dtype=dtype, device=device) + 0.5) / samples * 2 - 1) * half
    y, x, z = (axis.reshape(-1, samples) for axis in torch.meshgrid(y, x, z, indexing="ij"))
    angle = torch.tensor(turn, dtype=dtype, device=device)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([y, cos * x - sin * z, sin * x + cos * z], -1)


def ray_weights(density: Tensor, spacing: float | Tensor) -> Tensor:
    r"""Return the weight of each sample in its pixel: (rays, samples, 1), between 0 and 1, at most 1 along a ray.

    .. math:: w_i = e^{-\sum_{j<i} \sigma_j \delta} \, (1 - e^{-\sigma_i \delta})

    A pixel is Σ_i w_i · colour_i, plus the background. The formula consists of sums, exponentials and one product, so
    every rule supports it; ``Secant`` needs ``products="halves"`` or a detached density.

    Args:
        density: σ >= 0, (rays, samples, 1), nearest sample first.
        spacing: δ, distance between samples; a number or (rays, samples, 1).

    Raises:
        ValueError: density of another shape.

    Example:
        >>> ray_weights(torch.full((1, 2, 1), 0.6931472), 1.0).flatten()
        tensor([0.5000, 0.2500])

    Source: Max, "Optical models for direct volume rendering" (1995); Mildenhall et al., "NeRF" (ECCV 2020), eq. 3.
    """
    if density.dim() != 3 or density.shape[-1] != 1:
        raise ValueError(f"density has shape {tuple(density.shape)}; expected (rays, samples, 1).")
    depth = density * spacing
    return torch.exp(depth - depth.cumsum(1)) * (1 - torch.exp(-depth))


class FourierFeatures(nn.Module):
    r"""Random Fourier features of coordinates.

    .. math:: \gamma(x) = [\sin(2\pi x B^T), \cos(2\pi x B^T)], \quad B_{ij} \sim N(0, scale^2)

    Symbols: x (rows, in_features) coordinates in [-1, 1]; B (features, in_features), a buffer.

    Args:
        scale: standard deviation of B, in half cycles over the range [-1, 1]; larger values fit finer detail.
        generator: for B; None takes torch's global one.

    Example:
        >>> FourierFeatures(2, 16, scale=5.0)(torch.rand(4, 2)).shape
        torch.Size([4, 32])

    Source: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions" (NeurIPS 2020), sec. 6.
    """

    B: Tensor

    def __init__(
        self, in_features: int = 2, features: int = 104, scale: float = 10.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.scale = scale
        device = None if generator is None else generator.device
        self.register_buffer("B", torch.randn(features, in_features, generator=generator, device=device) * scale)
        self.out_features = 2 * features

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, in_features) to (rows, 2 * features)."""
        angle = (2 * math.pi) * x @ self.B.T
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def extra_repr(self) -> str:
        """Return shape and scale."""
        return f"in_features={self.B.shape[1]}, features={self.B.shape[0]}, scale={self.scale}"


class NerfFrequencies(nn.Module):
    r"""Sines and cosines at octaves, or closer steps, of each coordinate.

    .. math:: \gamma(x) = [\sin(b^k \pi x), \cos(b^k \pi x)]_{k < octaves}

    Symbols: x (rows, in_features) in [-1, 1]; b the ``base``, 2 for octaves, 1.25 in NeRV. The frequencies are b^0 to
    b^(octaves - 1) half cycles a unit; all sines come before all cosines.

    Example:
        >>> NerfFrequencies(2, 6)(torch.rand(4, 2)).shape
        torch.Size([4, 24])

    Source: Mildenhall et al., "NeRF" (ECCV 2020), sec. 5.1; Chen et al., "NeRV" (NeurIPS 2021), sec. 3.
    """

    frequencies: Tensor

    def __init__(self, in_features: int = 2, octaves: int = 8, base: float = 2.0) -> None:
        super().__init__()
        self.in_features, self.octaves, self.base = in_features, octaves, base
        self.register_buffer("frequencies", math.pi * base ** torch.arange(octaves))
        self.out_features = 2 * octaves * in_features

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, in_features) to (rows, 2 * octaves * in_features)."""
        angle = (x[..., None] * self.frequencies).flatten(-2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def extra_repr(self) -> str:
        """Return dims, octaves and base."""
        return f"in_features={self.in_features}, octaves={self.octaves}, base={self.base:g}"


class LogFrequencies(nn.Module):
    r"""Cosines and sines at frequencies that are evenly spaced on a logarithmic scale.

    .. math:: \gamma(x) = [\cos(u w_k x_d), \sin(u w_k x_d)], \quad w_k = highest^{k / (count - 1)}

    Symbols: x (rows, in_features) in [-1, 1]; d a coordinate, k < count a frequency, the faster index; all cosines come
    before all sines.

    Args:
        count: number of frequencies, from 1 to ``highest``.
        highest: the last frequency, in units of u / 2π cycles.
        unit: u, in radians; π for images, 1 for radiance fields.

    Raises:
        ValueError: no frequencies, or a highest one that is not positive.

    Example:
        >>> LogFrequencies(2, 4, highest=16.0)(torch.rand(5, 2)).shape
        torch.Size([5, 16])

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022), released code.
    """

    frequencies: Tensor

    def __init__(self, in_features: int = 2, count: int = 64, highest: float = 1024.0, unit: float = math.pi) -> None:
        super().__init__()
        if count < 1 or highest <= 0:
            raise ValueError(f"count is {count} and highest is {highest}; expected at least 1, and more than 0.")
        self.in_features, self.count, self.highest, self.unit = in_features, count, highest, unit
        self.register_buffer("frequencies", torch.linspace(0, math.log(highest), count).exp())
        self.out_features = 2 * count * in_features

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in_features) to (…, 2 * count * in_features)."""
        angle = (x[..., None] * self.frequencies).flatten(-2) * self.unit
        return torch.cat([angle.cos(), angle.sin()], dim=-1)

    def extra_repr(self) -> str:
        """Return dims, count, highest frequency and unit."""
        return f"in_features={self.in_features}, count={self.count}, highest={self.highest:g}, unit={self.unit:g}"
