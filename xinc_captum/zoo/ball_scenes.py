"""Synthetic 3-D scenes with known geometry: coloured balls before white, viewed by cameras around them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attributions.trans_inr import camera_rays
from ..batch import chunks, random_generator

LIGHT = (0.302, 0.905, 0.302)  # unit vector towards the light
_FINE = 3  # rays per side of a pixel; the pixel is the mean of nine rays


@dataclass(frozen=True)
class BallScenes:
    """Scenes with their images, cameras and geometry.

    Attributes:
        views: (N, V, 3, H, W) in [0, 1], white where no ball is.
        poses: (N, V, 3, 4), from the camera to the world (:func:`~xinc_captum.attributions.trans_inr.camera_rays`).
        focal: focal length of all cameras, in pixels.
        depths: (N, V, H, W), along the camera's axis to the ball at the centre of a pixel; inf without a ball.
        ball_indices: (N, V, H, W), the index of that ball; -1 without a ball.
        centres: (N, balls, 3).
        radii: (N, balls).
        colours: (N, balls, 3), in full light.
    """

    views: Tensor
    poses: Tensor
    focal: float
    depths: Tensor
    ball_indices: Tensor
    centres: Tensor
    radii: Tensor
    colours: Tensor


def orbit(count: int, radius: float = 4.0, height: float = 0.5) -> Tensor:
    """Return cameras on a circle around the vertical axis, directed at the world's origin: (count, 3, 4).

    ``radius`` is the distance to the origin, ``height`` the angle above the horizontal plane in radians, below π / 2.
    """
    turn = torch.arange(count) * (2 * math.pi / count)
    flat, up = math.cos(height), math.sin(height)
    back = torch.stack([turn.sin() * flat, torch.full_like(turn, up), turn.cos() * flat], -1)  # the camera's own z
    right = torch.stack([turn.cos(), torch.zeros_like(turn), -turn.sin()], -1)
    return torch.stack([right, torch.linalg.cross(back, right), back, radius * back], -1)


def ball_scenes(
    scenes: int,
    poses: Tensor,
    size: tuple[int, int] = (16, 16),
    focal: float = 22.0,
    *,
    balls: int = 1,
    seed: int = 0,
) -> BallScenes:
    r"""Return scenes of balls with random positions, sizes and colours; equal arguments give equal scenes.

    .. math:: colour \cdot (0.65 + 0.35 \max(0, n \cdot l))

    Symbols: n the ball's outward normal; l the direction of the light. Centres are drawn from [-0.8, 0.8]³, radii from
    [0.35, 0.6], colours from [0, 0.9]³; a pixel is the mean of nine rays. For the cameras of :func:`orbit`, depths lie
    between 2 and 6, and a few balls reach over the edge of a view.

    Args:
        scenes: N.
        poses: (V, 3, 4), the cameras of every scene, or (N, V, 3, 4).
        size: (H, W) of a view.
        focal: focal length in pixels; scale it with ``size``.
        balls: number in each scene; they may overlap.
        seed: for positions, sizes and colours.

    Raises:
        ValueError: no scenes, no balls, or poses of another shape.

    Example:
        >>> scenes = ball_scenes(5, orbit(8))
        >>> scenes.views.shape, scenes.depths.shape
        (torch.Size([5, 8, 3, 16, 16]), torch.Size([5, 8, 16, 16]))
    """
    if scenes < 1 or balls < 1 or poses.dim() not in (3, 4) or (poses.dim() == 4 and len(poses) != scenes):
        raise ValueError(
            f"got {scenes} scenes, {balls} balls and poses of shape {tuple(poses.shape)}; expected at least one of "
            "each, and (V, 3, 4) or (N, V, 3, 4)."
        )
    generator = random_generator(seed)
    draw = torch.rand(scenes, balls, 7, generator=generator).to(poses)
    centres, radii, colours = draw[..., :3] * 1.6 - 0.8, draw[..., 3] * 0.25 + 0.35, draw[..., 4:] * 0.9
    poses = poses.expand(scenes, -1, -1, -1)
    views, depths, ball_indices = [], [], []
    for start, stop in chunks(scenes, 100):
        part = slice(start, stop)
        known = (poses[part], centres[part], radii[part])
        fine, ball, normal = _intersect(*known, focal * _FINE, (size[0] * _FINE, size[1] * _FINE))
        ball_colours = colours[part].gather(1, ball.flatten(1)[..., None].expand(-1, -1, 3)).reshape(*ball.shape, 3)
        lit = ball_colours * (0.65 + 0.35 * (normal @ poses.new_tensor(LIGHT)).clamp_min(0))[..., None]
        image = torch.where(fine.isfinite()[..., None], lit, 1.0).movedim(-1, 2)
        views.append(F.avg_pool2d(image.flatten(0, 1), _FINE).unflatten(0, image.shape[:2]))
        depth, ball, _ = _intersect(*known, focal, size)
        depths.append(depth)
        ball_indices.append(torch.where(depth.isfinite(), ball, -1))
    return BallScenes(
        torch.cat(views), poses, focal, torch.cat(depths), torch.cat(ball_indices), centres, radii, colours
    )


def _intersect(
    poses: Tensor, centres: Tensor, radii: Tensor, focal: float, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return depth, index and normal of the first ball on each ray: (N, V, H, W) twice, and (N, V, H, W, 3)."""
    origins, directions = camera_rays(poses, focal, size)
    nearest = torch.full_like(origins[..., 0], torch.inf)
    which = torch.zeros_like(nearest, dtype=torch.long)
    normal = torch.zeros_like(directions)
    for k in range(centres.shape[1]):
        away = origins - centres[:, k, None, None, None]
        radius = radii[:, k, None, None, None]
        a, b = directions.square().sum(-1), (away * directions).sum(-1)
        inside = b.square() - a * (away.square().sum(-1) - radius.square())
        depth = torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / a, torch.inf)
        first = depth < nearest
        nearest, which = torch.where(first, depth, nearest), torch.where(first, k, which)
        out = (away + torch.where(first, depth, 0.0)[..., None] * directions) / radius[..., None]
        normal = torch.where(first[..., None], out, normal)
    return nearest, which, normal
