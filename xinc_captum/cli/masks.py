"""Masks of the objects in a video, out of a folder: white where the object is."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from ..videos import VideoError, read_video
from .failures import UsageError


def read_masks(folder: Path, frames: Tensor, full: tuple[int, int], *, cut: bool) -> dict[str, Tensor]:
    """Masks by the name of their object: bool, (frames, H, W) as the frames are drawn.

    Args:
        folder: one picture a frame, of one object; or a folder of such pictures for each object.
        frames: (frames, C, H, W), as drawn.
        full: (H, W) of the video itself, which masks may have too.
        cut: the video may go on behind these frames, and so may the masks.

    Raises:
        UsageError: no folder, no masks, another number or size, or an object that is at no frame or everywhere.
    """
    if not folder.is_dir():
        raise UsageError(f"--masks {folder} is not a folder; wanted one picture a frame, white where the object is.")
    inside = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    return {f.name: _read(f, frames, full, cut) for f in inside or [folder.resolve()]}


def _read(folder: Path, frames: Tensor, full: tuple[int, int], cut: bool) -> Tensor:
    count, size = len(frames), tuple(frames.shape[2:])
    try:
        found = read_video(folder, None if not cut else count, least=1).mean(1, keepdim=True)
    except VideoError as error:
        raise UsageError(f"the masks of {folder.name!r} cannot be used: {error}") from error
    if len(found) != count:
        raise UsageError(
            f"{folder} has {len(found)} mask{'' if len(found) == 1 else 's'} for {count} frames; wanted one a frame, "
            "in the order of their names. Where an object is out of sight its mask is black."
        )
    seen = tuple(found.shape[2:])
    if seen not in (full, size):
        raise UsageError(
            f"the masks in {folder} are {seen[1]} x {seen[0]} pixels and the video is {full[1]} x {full[0]}; wanted "
            "the video's size."
        )
    drawn = F.interpolate(found, size, mode="area") if seen != size else found
    masks = drawn[:, 0] > 0.5
    if not masks.any():
        raise UsageError(
            f"the masks in {folder} are black at all {count} frames; wanted white (not 1 of 255) where the object is, "
            "and an object that is large enough to be seen."
        )
    if masks.all():
        raise UsageError(
            f"the masks in {folder} are white at all {count} frames; wanted white where the object is and black "
            "elsewhere, not transparent: transparency counts as white."
        )
    return masks
