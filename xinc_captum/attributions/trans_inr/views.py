"""RayTransINR: a TransINR that maps views of a scene to its radiance field."""

from collections.abc import Iterator
from itertools import count as count_from
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batch import python_index
from ...images import check_images
from ...inr.coordinates import LogFrequencies, ray_weights
from ...inr.mlp import HypoNet, arguments_of, seeded
from ...inr.training import check_finite, digest
from .training import TransFit, WeightGenerator, fit_model, mean_psnr
from .trans_inr import PatchTokens
from .writer import Groups, Weights, WeightWriter, as_module, run_networks


def camera_rays(poses: Tensor, focal: float, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    r"""Return the origin and the direction of each pixel's ray: two (…, H, W, 3).

    .. math:: o = t, \qquad d = R\, \bigl(\tfrac{j + 1/2 - W/2}{f},\ -\tfrac{i + 1/2 - H/2}{f},\ -1\bigr)^T

    Symbols: poses [R | t] (…, 3, 4), from the camera to the world; f the focal length in pixels; (H, W) the size; i a
    row, j a column. The camera looks along its own -z, y up. d is not of length 1: depth is measured along the camera's
    axis.

    Raises:
        ValueError: poses of another shape, or a focal length at or below 0.

    Example:
        >>> pose = torch.eye(3, 4)
        >>> camera_rays(pose, 1.0, (1, 1))[1]
        tensor([[[ 0.,  0., -1.]]])

    Source: Mildenhall et al., "NeRF" (ECCV 2020), released code; rays through pixel centres as in Chen & Wang.
    """
    if poses.shape[-2:] != (3, 4) or focal <= 0:
        raise ValueError(
            f"poses have shape {tuple(poses.shape)} and focal is {focal}; expected (…, 3, 4), and focal > 0."
        )
    rows, columns = (torch.arange(n, dtype=poses.dtype, device=poses.device) + 0.5 - n / 2 for n in size)
    y, x = torch.meshgrid(-rows / focal, columns / focal, indexing="ij")
    local = torch.stack([x, y, -torch.ones_like(x)], -1)
    directions = (poses[..., None, None, :, :3] @ local[..., None])[..., 0]
    return poses[..., None, None, :, 3].expand_as(directions), directions


def ray_depths(samples: int, near: float, far: float, like: Tensor) -> Tensor:
    """Return the depths of the samples along a ray, evenly spaced, both ends included: (samples,).

    Example:
        >>> ray_depths(3, 2.0, 6.0, torch.zeros(()))
        tensor([2., 4., 6.])
    """
    return torch.linspace(near, far, samples, dtype=like.dtype, device=like.device)


def ray_colours(raw: Tensor, depths: Tensor) -> Tensor:
    r"""Return the colours of rays on a white background: (…, samples, 4) to (…, 3).

    .. math:: \Sigma_i w_i\, \mathrm{sigmoid}(rgb_i) + 1 - \Sigma_i w_i, \qquad
        w_i = e^{-\Sigma_{j<i} \sigma_j \delta_j} (1 - e^{-\sigma_i \delta_i})

    Symbols: rgb the first three numbers of ``raw``, the field's outputs, σ the relu of the fourth; δ_i the distance
    from sample i to the next, by the increasing ``depths`` (samples,), and 0.001 for the last.

    Raises:
        ValueError: other shapes.

    Example:
        >>> ray_colours(torch.tensor([[0.0, 0.0, 0.0, -1.0]]), torch.tensor([2.0]))  # empty: white
        tensor([1., 1., 1.])

    Source: Max (1995); Mildenhall et al., "NeRF" (ECCV 2020), eq. 3; the last sample as in Chen & Wang's code.
    """
    if raw.dim() < 2 or raw.shape[-1] != 4 or tuple(depths.shape) != (raw.shape[-2],):
        raise ValueError(
            f"raw has shape {tuple(raw.shape)} and depths {tuple(depths.shape)}; expected (…, samples, 4) and "
            "(samples,)."
        )
    spacing = torch.cat([depths.diff(), depths.new_full((1,), 1e-3)])
    flat = raw.reshape(-1, *raw.shape[-2:])
    weights = ray_weights(flat[..., 3:].relu(), spacing[:, None].expand(len(flat), -1, 1))
    colours = (weights * flat[..., :3].sigmoid()).sum(1) + 1 - weights.sum(1)
    return colours.reshape(*raw.shape[:-2], 3)


_GAIN = 3.0  # factor of torch's initial weights: outputs of standard deviation about 1


class RayTokens(nn.Module):
    r"""Tokens of patches of views: a small network of the pixels and the Plücker coordinates of the central ray.

    .. math:: t = W_2\, \mathrm{GELU}\bigl(W_1 [1 - x,\ q,\ \gamma(q)] + b_1\bigr) + b_2, \qquad
        q = \Bigl[\hat d,\ \frac{o \times \hat d}{s}\Bigr]

    Symbols: x the patch's colours, in [0, 1]; o the origin of its ray, d̂ the direction, of length 1; s the
    ``extent``; γ sines and cosines of frequencies 1, 2, 4 … . q does not depend on the position of the camera along the
    ray; o × d̂ is the position of the ray relative to the world's origin, the centre of the scene.

    Args:
        size: (H, W) of a view.
        patch: side of a patch in pixels.
        dim: width of a token.
        width: of the network's hidden layer.
        count: frequencies of each of the six numbers of q.
        extent: half the scene's width, in the world's units.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: a size that the patches do not tile, or no frequencies.

    Example:
        >>> views, poses = torch.rand(2, 3, 3, 8, 8), torch.eye(3, 4).expand(2, 3, 3, 4)
        >>> RayTokens((8, 8), patch=4, dim=16, width=32)(views, poses, 8.0).shape
        torch.Size([2, 12, 16])

    Source: ours. Chen & Wang (ECCV 2022) use colour, o and d of every pixel and one Linear for each patch. Fourier
    features of rays: Sajjadi et al., "Scene Representation Transformer" (CVPR 2022). Plücker coordinates: Sitzmann et
    al., "Light Field Networks" (NeurIPS 2021).
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
        patch = python_index(patch)
        if not isinstance(patch, int):
            raise ValueError(
                f"patch is {patch!r}; expected one number, such as 4: a patch of a view is a pixel of a coarser "
                "camera, and pixels are square."
            )
        PatchTokens.count_patches(size, patch, 0)
        self.size, self.patch, self.extent = size, patch, extent
        self.encoding = LogFrequencies(6, count, 2.0 ** (count - 1), unit=1.0)
        with seeded(seed):
            self.hidden = nn.Linear(3 * patch * patch + 6 + self.encoding.out_features, width)
            self.out = nn.Linear(width, dim)
        with torch.no_grad():  # with torch's initial weights a token hardly depends on its patch
            for layer in (self.hidden, self.out):
                layer.weight.mul_(_GAIN)

    def forward(self, views: Tensor, poses: Tensor, focal: float) -> Tensor:
        """Map views (B, V, 3, H, W), poses (B, V, 3, 4) and a focal length in pixels to (B, V · patches, dim)."""
        grid = (self.size[0] // self.patch, self.size[1] // self.patch)
        origins, directions = camera_rays(poses, focal / self.patch, grid)  # patches are pixels of a coarser camera
        directions = F.normalize(directions, dim=-1)
        ray = torch.cat([directions, torch.linalg.cross(origins, directions) / self.extent], -1).flatten(2, 3)
        patches = F.unfold(1 - views.flatten(0, 1), self.patch, stride=self.patch).mT.unflatten(0, views.shape[:2])
        made: Tensor = self.out(F.gelu(self.hidden(torch.cat([patches, ray, self.encoding(ray)], -1))))
        return made.flatten(1, 2)


class RayTransINR(WeightGenerator):
    r"""A transformer that maps views of a scene and their cameras to the weights of its radiance field.

    .. math:: \hat x(r) = \mathrm{render}\bigl(f_{W(views)}(\gamma(o_r + z\, d_r))\bigr)

    Symbols: f a :class:`~xinc_captum.inr.HypoNet` from (x, y, z) to colour and density; r a ray with origin o_r and
    direction d_r; z the depths between ``near`` and ``far``; γ the frequencies of f; rendering as in
    :func:`.ray_colours`, on white. A token is a patch of a view with its central ray (:class:`.RayTokens`), without
    position embeddings. Tokens of all views are one sequence, so the number of views is free. Colours do not depend on
    the viewing direction.

    Measured with two seeds on 4,000 scenes of one ball (:mod:`~xinc_captum.zoo`) of 16 x 16 pixels, after 3,000 steps
    of one or two views (187 CPU seconds): views of other scenes have 19.6 and 19.5 dB from one view, 22.5 and 22.4 dB
    from two. The mean of all views has 15.7 dB, a copy of the nearest view 14.1 or 15.0 dB
    (``benchmarks/trans_inr_views.py``). Balls are blurred, more so from one view, in which distance and size are hard
    to tell apart.

    Args:
        size: (H, W) of a view.
        patch: side of a patch in pixels.
        near: depth of the first sample.
        far: depth of the last.
        samples: number of samples along a ray.
        dim: width of a token; also ``depth``, ``heads``, ``head_dim``, ``ff`` and ``groups`` as for
            :class:`WeightWriter`.
        hidden: units of the field's hidden layers; ``layers``, ``count`` and ``highest`` as for :class:`.TransINR` (the
            paper has 1 to 256 radians a unit).
        ray_count: frequencies of a ray's coordinates, an octave apart, from 1 radian per half the range of depths.
        init_std: of the weight tokens.
        seed: for the weights; None takes torch's global generator.

    Raises:
        ValueError: a size that the patches do not tile, fewer than 2 samples, or near not below far.

    Example:
        >>> model, poses = RayTransINR((8, 8), patch=4, seed=0), torch.eye(3, 4).expand(2, 3, 3, 4)
        >>> model(torch.rand(2, 3, 3, 8, 8), poses, poses[:, :1], 8.0).shape
        torch.Size([2, 1, 3, 8, 8])

    Source: Chen & Wang, "Transformers as Meta-Learners for Implicit Neural Representations" (ECCV 2022), sec. 4.3;
    without their optional viewing directions, and with other tokens (RayTokens).
    """

    def __init__(
        self,
        size: tuple[int, int] = (16, 16),
        patch: int = 4,
        *,
        near: float = 2.0,
        far: float = 6.0,
        samples: int = 16,
        dim: int = 48,
        depth: int = 2,
        heads: int = 4,
        head_dim: int | None = None,
        ff: int = 96,
        hidden: int = 32,
        layers: int = 4,
        count: int = 6,
        highest: float = 8.0,
        groups: Groups = 8,
        ray_count: int = 4,
        init_std: float = 0.3,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if samples < 2 or not 0 < near < far:
            raise ValueError(
                f"near, far and samples are {near}, {far}, {samples}; expected 0 < near < far, and 2 or more samples."
            )
        self.config = arguments_of(locals(), "seed")
        self.config["size"] = self.size = (size[0], size[1])
        self.focus = (near, far, samples)
        seeds = (None, None, None) if seed is None else (seed, seed + 1, seed + 2)
        self.tokens = RayTokens(self.size, patch, dim, ff, count=ray_count, extent=(far - near) / 2, seed=seeds[0])
        base = HypoNet(3, 4, hidden, layers, count, highest, unit=1.0, seed=seeds[1])
        with torch.no_grad():
            base.get_parameter("output.bias")[3] += 1.0  # initial density: a density of 0 has no gradient
        self.writer = WeightWriter(
            base, dim, depth, heads, ff, groups, head_dim=head_dim, init_std=init_std, seed=seeds[2]
        )

    def forward(self, views: Tensor, poses: Tensor, target_poses: Tensor, focal: float) -> Tensor:
        """Return other views of the scenes: (B, T, 3, H, W).

        Views (B, V, 3, H, W) are in [0, 1], poses are (B, V, 3, 4), and ``target_poses`` of the output (B, T, 3, 4).
        """
        weights = self.weights(views, poses, focal)
        origins, directions = camera_rays(target_poses.to(self.writer.tokens), focal, self.size)
        outputs = self.render(weights, origins.flatten(1, 3), directions.flatten(1, 3))
        return outputs.reshape(len(outputs), target_poses.shape[1], *self.size, 3).movedim(-1, 2)

    def weights(self, views: Tensor, poses: Tensor, focal: float) -> Weights:
        """Return the fields' weights: (B, out, in) a layer, and biases that all scenes share."""
        shape = (len(views), views.shape[1], 3, *self.size)
        if tuple(views.shape) != shape or tuple(poses.shape) != (*shape[:2], 3, 4):
            raise ValueError(
                f"views have shape {tuple(views.shape)} and poses {tuple(poses.shape)}; expected (B, V, 3, "
                f"{self.size[0]}, {self.size[1]}) and (B, V, 3, 4)."
            )
        like = self.writer.tokens
        return self.writer.weights(self.writer.modulations(self.tokens(views.to(like), poses.to(like), focal)))

    def render(self, weights: Weights, origins: Tensor, directions: Tensor) -> Tensor:
        """Return the colours (B, rays, 3) of rays with these origins and directions, through B fields."""
        near, far, samples = self.focus
        depths = ray_depths(samples, near, far, origins)
        points = origins[:, :, None] + depths[:, None] * directions[:, :, None]
        raw = run_networks(self.writer.base.get_submodule("encoding")(points.flatten(1, 2)), weights)
        return ray_colours(raw.unflatten(1, (-1, samples)), depths)

    def generate(self, views: Tensor, poses: Tensor, focal: float) -> list[HypoNet]:
        """Return one radiance field for each scene, an independent module: (points, 3) to (points, 4)."""
        check_finite(self)
        with torch.no_grad():
            weights = self.weights(views, poses, focal)
        return [as_module(self.writer.base, weights, i) for i in range(len(views))]

    def fit(
        self,
        views: Tensor,
        poses: Tensor,
        focal: float,
        *,
        support: int | tuple[int, int] = 1,
        validation: int = 0,
        steps: int = 3000,
        lr: float = 3e-3,
        batch_size: int = 32,
        rays: int = 32,
        warmup: int = 50,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        every: int = 100,
        show_progress: bool = True,
    ) -> TransFit:
        """Train in place so that the field generated from ``support`` views renders another view of the same scene.

        Each step samples scenes, their support views, and rays of one other view. In the first fifth of the steps half
        of the rays go through pixels that are not white; otherwise fields often become empty.

        Args:
            views: (N, V, 3, H, W), floats in [0, 1], of N scenes.
            poses: (N, V, 3, 4).
            focal: of all cameras.
            support: number of input views, fewer than all views; or (fewest, most), and each step samples the number.
            validation: number of validation scenes, taken from the end. The last view of each is rendered from its
                first views, as many as the smallest number of ``support``.
            steps: optimizer steps.
            lr: the highest rate.
            batch_size: scenes a step.
            rays: number of rays of each scene a step.
            warmup: steps over which the rate rises.
            seed: for the scenes, views and rays.
            checkpoint: as for :meth:`TransINR.fit`.
            every: steps between two validations, each followed by a checkpoint.
            show_progress: a bar, where standard error is a terminal.

        Raises:
            ValueError, CheckpointError: views that are not finite or of another shape, or a checkpoint of another run.
        """
        views = check_images(views.flatten(0, 1)).unflatten(0, views.shape[:2]).to(self.writer.tokens)
        poses = poses.to(views)
        scenes, count = len(views) - validation, views.shape[1]
        support = python_index(support)
        fewest, most = (support, support) if isinstance(support, int) else support
        if not 1 <= fewest <= most < count or scenes < 1 or validation < 0:
            raise ValueError(
                f"{len(views)} scenes of {count} views, {validation} of them for validation, are too few for "
                f"support={support}; expected at least one training scene, and one view more than support."
            )
        origins, directions = (part.flatten(2, 3) for part in camera_rays(poses, focal, self.size))
        colours = views.flatten(3).mT
        filled = (colours < 1).any(-1).double().cpu()
        even = torch.full_like(filled, 1 / filled.shape[2])
        half_filled = even + filled / filled.sum(2, keepdim=True).clamp_min(1)  # half of the rays meet the object

        def batches(generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
            for step in count_from(0):
                scene = torch.randint(scenes, (min(batch_size, scenes), 1), generator=generator)
                order = torch.rand(len(scene), count, generator=generator).argsort(1)
                support_views = order[:, : int(torch.randint(fewest, most + 1, (), generator=generator))]
                target_view = order[:, -1:]
                chances = half_filled if step / steps < 0.2 else even
                chance = chances[scene[:, 0], target_view[:, 0]]
                ray = torch.multinomial(chance, rays, replacement=True, generator=generator)
                yield scene, support_views, target_view, ray

        def loss_of(batch: tuple[Tensor, Tensor, Tensor, Tensor], _: int) -> Tensor:
            scene, support_views, target_view, ray = batch
            weights = self.weights(views[scene, support_views], poses[scene, support_views], focal)
            pick = (scene, target_view, ray)
            return F.mse_loss(self.render(weights, origins[pick], directions[pick]), colours[pick])

        def validate() -> float:
            val = slice(scenes, None)
            predicted = self(views[val, :fewest], poses[val, :fewest], poses[val, -1:], focal)
            return mean_psnr(predicted, views[val, -1:])

        recipe = {"views": digest(views), "poses": digest(poses), "focal": focal, "support": (fewest, most)}
        recipe |= {"rays": rays, "validation": validation, "batch_size": batch_size}
        options: dict[str, Any] = {"steps": steps, "lr": lr, "warmup": warmup, "seed": seed, "checkpoint": checkpoint}
        options |= {"every": every, "show_progress": show_progress}
        return fit_model(self, loss_of, batches, validate if validation else None, recipe, **options)
