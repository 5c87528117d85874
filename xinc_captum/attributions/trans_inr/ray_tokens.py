"""Tokens of views: patches, each with the ray through its middle."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...inr import LogFrequencies
from ...inr.layers import seeded
from .rays import camera_rays
from .tokens import PatchTokens

_GAIN = 3.0  # times torch's own range: sums of standard deviation about 1


class RayTokens(nn.Module):
    r"""Patches of views with Plücker coordinates of the rays through their middles, made tokens by a small network.

    .. math:: t = W_2\, \mathrm{GELU}\bigl(W_1 [1 - x,\ q,\ \gamma(q)] + b_1\bigr) + b_2, \qquad
        q = \Bigl[\hat d,\ \frac{o \times \hat d}{s}\Bigr]

    Symbols: x the patch's colours, in [0, 1]; o where its ray begins, d̂ the ray's direction, of length 1; s the
    ``extent``; γ sines and cosines of frequencies 1, 2, 4 … . Wherever on its ray a camera stands, q is the same; o × d̂
    says how the ray passes the world's origin, around which the scene should lie.

    Args:
        size: (H, W) of a view.
        patch: side of a patch in pixels.
        dim: numbers a token.
        width: of the network's hidden layer.
        count: frequencies of each of the six numbers.
        extent: half the scene's width, in the world's units.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: a size that does not tile, or no frequencies.

    Example:
        >>> views, poses = torch.rand(2, 3, 3, 8, 8), torch.eye(3, 4).expand(2, 3, 3, 4)
        >>> RayTokens((8, 8), patch=4, dim=16, width=32)(views, poses, 8.0).shape
        torch.Size([2, 12, 16])

    Source: own. Chen & Wang (ECCV 2022) give every pixel its colour, o and d, and make a patch a token by one Linear.
    Rays in Fourier features are Sajjadi et al.'s, "Scene Representation Transformer" (CVPR 2022); Plücker coordinates
    Sitzmann et al.'s, "Light Field Networks" (NeurIPS 2021).
    """

    def __init__(
        self,
        size: tuple[int, int],
        patch: int,
        dim: int,
        width: int,
        *,
        count: int = 4,
        extent: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(patch, int):
            raise ValueError(
                f"patch is {patch!r}; wanted one number, such as 4: a patch of a view is a pixel of a coarser camera, "
                "and pixels are square."
            )
        PatchTokens.tiled(size, patch, 0)
        self.size, self.patch, self.extent = size, patch, extent
        self.encoding = LogFrequencies(6, count, 2.0 ** (count - 1), unit=1.0)
        with seeded(seed):
            self.hidden = nn.Linear(3 * patch * patch + 6 + self.encoding.out_features, width)
            self.out = nn.Linear(width, dim)
        with torch.no_grad():  # with torch's own weights a token hardly depends on what its patch shows
            for layer in (self.hidden, self.out):
                layer.weight.mul_(_GAIN)

    def forward(self, views: Tensor, poses: Tensor, focal: float) -> Tensor:
        """Tokens of all views of a scene as one sequence: (B, V · patches, dim).

        Args:
            views: (B, V, 3, H, W).
            poses: (B, V, 3, 4).
            focal: of the cameras, in pixels.
        """
        grid = (self.size[0] // self.patch, self.size[1] // self.patch)
        origins, directions = camera_rays(poses, focal / self.patch, grid)  # patches are pixels of a coarser camera
        directions = F.normalize(directions, dim=-1)
        ray = torch.cat([directions, torch.linalg.cross(origins, directions) / self.extent], -1).flatten(2, 3)
        patches = F.unfold(1 - views.flatten(0, 1), self.patch, stride=self.patch).mT.unflatten(0, views.shape[:2])
        made: Tensor = self.out(F.gelu(self.hidden(torch.cat([patches, ray, self.encoding(ray)], -1))))
        return made.flatten(1, 2)
