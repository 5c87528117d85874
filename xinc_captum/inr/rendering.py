"""Rays through the pixels of an image, and volume rendering of samples along them."""

import torch
from torch import Tensor


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
        device: where to put it.

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
