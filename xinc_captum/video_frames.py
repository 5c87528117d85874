"""Decoded frames of video files as they are to be shown: upright, not mirrored, on white."""

import struct
import warnings
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from av import VideoFrame

_LEVEL = 0.02  # about one degree, as FFmpeg; and pixels that are square but for rounding


def shown(frame: "VideoFrame", path: Path) -> Tensor:
    """Return a frame as a player shows it, (3, H, W) in [0, 1]; a warning names ``path``."""
    return _turned(_on_white(frame), frame, path)


def _on_white(frame: "VideoFrame") -> Tensor:
    """The colours of a frame as stored, (3, H, W) in [0, 1]; transparency is laid on white, as in photos."""
    if not frame.format.has_palette and not any(part.is_alpha for part in frame.format.components):
        return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float() / 255
    pixels = torch.from_numpy(frame.to_ndarray(format="rgba")).permute(2, 0, 1).float() / 255
    return pixels[:3] * pixels[3:] + (1 - pixels[3:])


def _turned(pixels: Tensor, frame: "VideoFrame", path: Path) -> Tensor:
    """A frame (C, H, W) as it is to be shown: FFmpeg's display matrix says how the camera was held, and mirrored.

    ``frame.rotation`` alone has the same value for different mirrored matrices.
    """
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return pixels
    a, b, _, c, d = struct.unpack("=9i", bytes(side))[:5]  # to the right: a x + c y; down: b x + d y
    if a and d and max(abs(b), abs(c)) < _LEVEL * min(abs(a), abs(d)):
        return pixels.flip([axis for axis, factor in ((2, a), (1, d)) if factor < 0])
    if b and c and max(abs(a), abs(d)) < _LEVEL * min(abs(b), abs(c)):
        return pixels.mT.flip([axis for axis, factor in ((2, c), (1, b)) if factor < 0])
    if a or b or c or d:  # of zeros alone FFmpeg shows frames as they are
        warnings.warn(f"{path} is to be shown at a slant; its frames are read as stored.", stacklevel=5)
    return pixels


def check_pixels(path: Path, ratio: Fraction | None) -> None:
    """Warn of pixels that are not square; ``ratio`` is their width by their height, None where the file has none."""
    if ratio and abs(ratio - 1) > _LEVEL:
        warnings.warn(
            f"{path} has pixels of {ratio.numerator} : {ratio.denominator} (wide : high), which are not square; its "
            "frames are read as stored. Give size=(H, W) to see them in the shape that a player shows.",
            stacklevel=4,
        )
