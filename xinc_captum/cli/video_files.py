"""Load the video and the masks that arguments name."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .. import store, zoo
from ..inr.training import digest
from ..videos import VideoError, frame_files, read_video
from ..zoo.photos import skimage_photo
from ..zoo.videos import Sprite, sprite_clip
from .errors import UsageError


def read_masks(folder: Path, frames: Tensor, full: tuple[int, int], *, cut: bool) -> dict[str, Tensor]:
    """Read the masks of objects: bool, (frames, H, W) in the size of the frames, by the object's name.

    Args:
        folder: one image per frame, of one object; or a folder of such images for each object.
        frames: (frames, C, H, W), resized.
        full: (H, W) of the original video, which masks may also have.
        cut: whether the video, and thus the masks, may be longer than these frames.

    Raises:
        UsageError: no folder, no masks, another number or size, or an object that is nowhere or everywhere.
    """
    if not folder.is_dir():
        raise UsageError(f"--masks {folder} is not a folder; expected one image per frame, white where the object is.")
    inside = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    return {f.name: _read_masks(f, frames, full, cut) for f in inside or [folder.resolve()]}


def _read_masks(folder: Path, frames: Tensor, full: tuple[int, int], cut: bool) -> Tensor:
    count, size = len(frames), tuple(frames.shape[2:])
    try:
        values = read_video(folder, None if not cut else count, least=1).mean(1, keepdim=True)
    except VideoError as error:
        raise UsageError(f"the masks of {folder.name!r} cannot be used: {error}") from error
    if len(values) != count:
        raise UsageError(
            f"{folder} has {len(values)} mask{'' if len(values) == 1 else 's'} for {count} frames; expected one a "
            "frame, in the order of their names. If an object is not visible, its mask is black."
        )
    mask_size = tuple(values.shape[2:])
    if mask_size not in (full, size):
        raise UsageError(
            f"the masks in {folder} are {mask_size[1]} x {mask_size[0]} pixels and the video is {full[1]} x "
            f"{full[0]}; expected the video's size."
        )
    resized = F.interpolate(values, size, mode="area") if mask_size != size else values
    masks = resized[:, 0] > 0.5
    if not masks.any():
        raise UsageError(
            f"the masks in {folder} are black in all {count} frames; expected white (not 1 of 255) where the object "
            "is, and an object of at least about one pixel after resizing."
        )
    if masks.all():
        raise UsageError(
            f"the masks in {folder} are white in all {count} frames; expected white where the object is and black "
            "elsewhere, not transparent: transparency counts as white."
        )
    return masks


FITTED, SPRITE = "carphone_nerv", "sprite"
SUFFIXES = set(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .ogv .y4m .wmv .flv .ts .3gp".split())
GRID = 8  # sides are multiples of it: each of three blocks doubles the size
_DISCS = (Sprite(9, (20, 12), (0, 4), (0.2, 0.85, 0.3)), Sprite(8, (52, 84), (-1, -5), (0.15, 0.35, 0.9)))
_SPRITE_SIZE = (64, 96)


@dataclass(frozen=True, eq=False)
class VideoInput:
    """The video to explain.

    Attributes:
        name: name for titles.
        frames: (frames, 3, H, W) in [0, 1].
        origin: its source, for the manifest.
        objects: names of the objects with masks.
        masks: (frames, objects, H, W), bool, or None.
        flow: (frames - 1, 2, H, W) if it is known exactly, or None.
    """

    name: str
    frames: Tensor = field(repr=False)
    origin: dict[str, Any]
    objects: tuple[str, ...] = ()
    masks: Tensor | None = field(default=None, repr=False)
    flow: Tensor | None = field(default=None, repr=False)


def video_names() -> list[str]:
    """Return the names of the zoo that ``xinc canvas`` takes as videos."""
    return [FITTED, *zoo.video_names(), SPRITE]


def is_video(source: str) -> bool:
    """Whether a name means a video: a folder, a file of such a kind, an animated GIF, or one of the zoo."""
    path = Path(source)
    if path.is_dir():
        return True
    if not path.is_file():
        return source in video_names()
    if path.suffix.lower() == ".gif":
        try:
            with Image.open(path) as image:
                return int(getattr(image, "n_frames", 1)) > 1
        except Exception:  # of nearly every type; read_photo() then raises a PhotoError
            return False
    return path.suffix.lower() in SUFFIXES


def load_video(source: str, limit: int, longer_side: int | None, masks: Path | None) -> VideoInput:
    """Load a video and the masks of its objects.

    Args:
        source: a file, a folder, or a name of the zoo.
        limit: maximum number of frames.
        longer_side: longer side in pixels after shrinking; None is 96. Sides become multiples of 8.
        masks: a folder of masks, or None.

    Raises:
        VideoError: not a video, or frames of different sizes.
        UsageError: a single frame, masks that do not match, a size for a clip of fixed size, or PyAV is missing.
        AssetError: the package of a video of the zoo is missing.
    """
    path = Path(source)
    known = not path.exists()
    if known and source in (FITTED, SPRITE) and longer_side is not None:
        raise UsageError(f"--size does not apply to {source}, whose size is fixed; leave it out.")
    if known and source == SPRITE:
        return _sprite(limit, masks)
    try:
        if known and source == FITTED:
            original, size = zoo.video("carphone_pristine", limit).frames, (72, 88)
            frames, full = _resize(original, size), original.shape[2:]
        elif known:
            original = zoo.video(source, limit).frames
            full = original.shape[2:]
            frames = _resize(original, network_size(full[0], full[1], longer_side or 96))
        else:
            full = read_video(path, 1, least=1).shape[2:]
            frames = read_video(path, limit, network_size(full[0], full[1], longer_side or 96), least=1)
    except ImportError as error:
        raise UsageError(str(error)) from error
    if len(frames) < 2:
        still = str(frame_files(path)[0]) if path.is_dir() else "frame.png"
        raise UsageError(
            f"{path} has a single frame; expected at least 2 for a video. For a photo: xinc canvas {still}"
        )
    origin = {"video of the zoo": source} if known else {path.name: _digest(path, frames)}
    video = VideoInput(source if known else path.resolve().stem, frames, origin)
    if masks is None:
        return video
    objects = read_masks(masks, frames, (full[0], full[1]), cut=len(frames) == limit)
    origin |= {f"masks of {name}": digest(objects[name]) for name in objects}
    return VideoInput(video.name, frames, origin, tuple(objects), torch.stack(list(objects.values()), 1))


def network_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Return the (H, W) of the resized video: multiples of 8, with nearly the same aspect ratio, hardly enlarged.

    Example:
        >>> network_size(144, 176, 88)
        (72, 88)
    """
    share = min(1.0, longer_side / max(height, width))
    return max(GRID, round(height * share / GRID) * GRID), max(GRID, round(width * share / GRID) * GRID)


def _sprite(limit: int, masks: Path | None) -> VideoInput:
    if masks is not None:
        raise UsageError(f"--masks does not apply to {SPRITE}, whose masks are known; leave it out.")
    photo = F.interpolate(skimage_photo("coffee").image[None], size=_SPRITE_SIZE, mode="area")[0]
    clip = sprite_clip(photo, _DISCS, max(2, min(limit, 12)))
    objects = ("the green disc", "the blue disc")
    return VideoInput(SPRITE, clip.frames, {"clip of the zoo": SPRITE}, objects, clip.masks, clip.flow)


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def _digest(path: Path, frames: Tensor) -> str:
    return digest(frames) if path.is_dir() else store.sha256(path)
