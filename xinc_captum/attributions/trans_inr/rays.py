"""Rays through the pixels of a camera, and the colours that a radiance field gives them on white."""

import torch
from torch import Tensor

from ...inr import ray_weights


def camera_rays(poses: Tensor, focal: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    r"""Where each pixel's ray begins, and which way it goes: two (…, H, W, 3).

    .. math:: o = t, \qquad d = R\, \bigl(\tfrac{j + 1/2 - W/2}{f},\ -\tfrac{i + 1/2 - H/2}{f},\ -1\bigr)^T

    Symbols: i a row, j a column; the camera looks along its own -z, y up. d is not of length 1: depth is measured along
    the camera's axis.

    Args:
        poses: (…, 3, 4), [R | t], from the camera to the world.
        focal: f, in pixels.
        size: (H, W).

    Raises:
        ValueError: poses of another shape, or a focal length at or below 0.

    Example:
        >>> pose = torch.eye(3, 4)
        >>> camera_rays(pose, 1.0, (1, 1))[1]
        tensor([[[ 0.,  0., -1.]]])

    Source: Mildenhall et al., "NeRF" (ECCV 2020), released code, with rays through pixels' centres as Chen & Wang's.
    """
    if poses.shape[-2:] != (3, 4) or focal <= 0:
        raise ValueError(f"poses have shape {tuple(poses.shape)} and focal is {focal}; wanted (…, 3, 4), and above 0.")
    rows, columns = (torch.arange(n, dtype=poses.dtype, device=poses.device) + 0.5 - n / 2 for n in size)
    y, x = torch.meshgrid(-rows / focal, columns / focal, indexing="ij")
    local = torch.stack([x, y, -torch.ones_like(x)], -1)
    directions = (poses[..., None, None, :, :3] @ local[..., None])[..., 0]
    return poses[..., None, None, :, 3].expand_as(directions), directions


def ray_depths(samples: int, near: float, far: float, like: Tensor) -> Tensor:
    """Depths of the samples along a ray, evenly spaced with both ends: (samples,).

    Example:
        >>> ray_depths(3, 2.0, 6.0, torch.zeros(()))
        tensor([2., 4., 6.])
    """
    return torch.linspace(near, far, samples, dtype=like.dtype, device=like.device)


def ray_colours(raw: Tensor, depths: Tensor) -> Tensor:
    r"""Colours of rays, laid on white: (…, samples, 4) to (…, 3).

    .. math:: \Sigma_i w_i\, \mathrm{sigmoid}(rgb_i) + 1 - \Sigma_i w_i, \qquad
        w_i = e^{-\Sigma_{j<i} \sigma_j \delta_j} (1 - e^{-\sigma_i \delta_i})

    Symbols: σ = relu of the last number; δ the distance in depth to the next sample, 0.001 after the last.

    Args:
        raw: what the field answers, colour and density before their limits.
        depths: (samples,), rising.

    Raises:
        ValueError: other shapes.

    Example:
        >>> ray_colours(torch.tensor([[0.0, 0.0, 0.0, -1.0]]), torch.tensor([2.0]))  # empty: white
        tensor([1., 1., 1.])

    Source: Max (1995); Mildenhall et al., "NeRF" (ECCV 2020), eq. 3, as Chen & Wang's released code ends it.
    """
    if raw.dim() < 2 or raw.shape[-1] != 4 or tuple(depths.shape) != (raw.shape[-2],):
        raise ValueError(
            f"raw has shape {tuple(raw.shape)} and depths {tuple(depths.shape)}; wanted (…, samples, 4) and (samples,)."
        )
    spacing = torch.cat([depths.diff(), depths.new_full((1,), 1e-3)])
    flat = raw.reshape(-1, *raw.shape[-2:])
    weights = ray_weights(flat[..., 3:].relu(), spacing[:, None].expand(len(flat), -1, 1))
    colours = (weights * flat[..., :3].sigmoid()).sum(1) + 1 - weights.sum(1)
    return colours.reshape(*raw.shape[:-2], 3)
