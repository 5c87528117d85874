"""Photos in, pictures out: files to float tensors, and maps to the layout that plots want."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


class PhotoError(ValueError):
    """A file that cannot be read as a photo."""


def read_photo(path: str | Path, *, longer_side: int | None = None) -> Tensor:
    """A photo as floats in [0, 1]: (3, H, W).

    Turned upright by its EXIF tag; transparency is laid on white; 16-bit and grey photos are scaled and repeated to
    three channels.

    Args:
        path: any still image that Pillow reads.
        longer_side: shrink to this many pixels on the longer side (never enlarged).

    Raises:
        FileNotFoundError: no such file.
        PhotoError: not an image, or a truncated or oversized one.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted a photo (PNG, JPEG, TIFF, WebP …).")
    try:
        with Image.open(path) as opened:
            photo = ImageOps.exif_transpose(opened)
            photo.load()
            photo = _eight_bit_or_float(photo)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise PhotoError(
            f"{path} cannot be read as a photo ({error}); it may be truncated or of another kind. Open it in an image "
            "program and export it as PNG."
        ) from error
    if longer_side is not None and longer_side < max(photo.size):
        scale = longer_side / max(photo.size)
        size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
        photo = _resized(photo, size)
    values: NDArray[np.float32] = np.asarray(photo, dtype=np.float32)
    values = values / np.float32(255) if photo.mode == "RGB" else np.repeat(values[..., None], 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))).clamp(0, 1)


def _eight_bit_or_float(photo: Image.Image) -> Image.Image:
    """Mode RGB with 8 bits, or mode F in [0, 1] for deeper grey photos."""
    if photo.mode.startswith("I") or photo.mode == "F":
        values = np.asarray(photo, dtype=np.float32)
        top = 65535.0 if photo.mode.startswith("I") else max(float(values.max()), 1.0)
        return Image.fromarray(np.clip(values / top, 0, 1))
    if "A" in photo.getbands() or "transparency" in photo.info:
        rgba = photo.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return photo.convert("RGB")


def _resized(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    return photo.resize(size, Image.Resampling.LANCZOS)


def to_hwc(maps: Tensor, index: int = 0) -> NDArray[np.float32]:
    """One map as float32 (H, W, C) for ``captum.attr.visualization.visualize_image_attr``.

    Args:
        maps: (H, W), (C, H, W) or (N, C, H, W), any float dtype, on any device, attached or not.
        index: which of N.

    Raises:
        ValueError: another number of dims (a flat canvas wants ``.reshape(C, H, W)`` first).

    Example:
        >>> to_hwc(torch.rand(2, 3, 4, 5)).shape
        (4, 5, 3)
    """
    if maps.dim() == 4:
        maps = maps[index]
    if maps.dim() == 2:
        maps = maps[None]
    if maps.dim() != 3:
        raise ValueError(
            f"maps have shape {tuple(maps.shape)}; wanted (H, W), (C, H, W) or (N, C, H, W). Rows that are pixels want "
            "a reshape to (C, H, W) first."
        )
    array: NDArray[np.float32] = maps.detach().float().cpu().permute(1, 2, 0).contiguous().numpy()
    return array
