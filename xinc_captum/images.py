"""Photos in, pictures out: files to float tensors, and maps to the layout that plots want."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .orientation import upright
from .photo_values import PhotoError as PhotoError
from .photo_values import Stored, rgb_or_float


def read_photo(path: str | Path, *, longer_side: int | None = None) -> Tensor:
    """Return a photo as floats in [0, 1]: (3, H, W).

    The first frame or page of the file, turned and mirrored as its orientation tag requires; other metadata is not
    decoded. Transparency is laid on white, and grey is repeated to three channels. Values are divided by the white of
    the file: 255, or what its number of bits allows (65535 of 16-bit grey), or 1 of floats. Colours of 16 bits a
    channel are read with 8. Embedded colour profiles (ICC) are ignored, as torchvision ignores them: values of a photo
    in Display P3 or Adobe RGB are taken for sRGB, and CMYK is converted by Pillow's formula.

    Args:
        path: any still image that Pillow reads.
        longer_side: shrink to this many pixels on the longer side (never enlarged).

    Raises:
        FileNotFoundError: no such file.
        PhotoError: not an image, a truncated or oversized one, or one whose white is unknown: integers of 32 bits or
            with signs, floats outside [0, 1], NaN or infinity.
        ValueError: a longer side below 1.
    """
    if longer_side is not None and not longer_side >= 1:
        raise ValueError(f"longer_side is {longer_side}; wanted at least 1 pixel, or None for the photo's own size.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted a photo (PNG, JPEG, TIFF, WebP …).")
    try:
        with Image.open(path) as opened:
            stored = Stored.of(opened)
            photo = rgb_or_float(upright(opened), stored, path)
    except PhotoError:
        raise
    except Exception as error:  # decoders raise errors of nearly every type
        if isinstance(error, OSError) and error.strerror:  # the file system's: no permission, for example
            raise PhotoError(f"{path} cannot be read ({error.strerror}); wanted a photo that you may read.") from error
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


def _resized(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    return photo.resize(size, Image.Resampling.LANCZOS)


def centre_crop(image: Tensor, size: int, crop: float = 0.875) -> Tensor:
    """The middle square of a photo, as classifiers are tested: shorter side to size / crop, then size x size.

    Resized by an antialiased bicubic filter; its overshoots are clamped to [0, 1]. Small photos are enlarged. Masks go
    the same way: ``centre_crop(masks.float(), size) > 0.5``.

    Args:
        image: (C, H, W) or (N, C, H, W) floats in [0, 1], on any device.
        size: height and width of what comes out.
        crop: how much of the shorter side is kept, in (0, 1].

    Raises:
        ValueError: another shape, whole numbers, no size, or a crop out of range.

    Example:
        >>> centre_crop(torch.rand(3, 40, 60), 16).shape
        torch.Size([3, 16, 16])
    """
    if image.dim() not in {3, 4} or not image.numel() or not image.is_floating_point():
        raise ValueError(
            f"image is {image.dtype} of shape {tuple(image.shape)}; wanted floats in [0, 1] of shape (C, H, W) or "
            "(N, C, H, W). Bytes want / 255, masks want .float()."
        )
    if size < 1 or not 0 < crop <= 1:
        raise ValueError(f"size is {size} and crop is {crop}; wanted a size of at least 1 and a crop in (0, 1].")
    height, width = image.shape[-2:]
    scale = round(size / crop) / min(height, width)
    resized = torch.nn.functional.interpolate(
        image if image.dim() == 4 else image[None],
        (round(height * scale), round(width * scale)),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    top, left = (resized.shape[-2] - size) // 2, (resized.shape[-1] - size) // 2
    square = resized[..., top : top + size, left : left + size].clamp(0, 1)
    return square if image.dim() == 4 else square[0]


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


def check_images(images: object) -> Tensor:
    """Images as every ascent and comparison wants them: (N, C, H, W), floats in [0, 1].

    Values up to .5 outside, as noise makes them, are clamped with a warning.

    Raises:
        TypeError: no tensor, or a tuple of several.
        ValueError: another number of dims, no rows, no floats, NaN or infinity, or values further out.

    Example:
        >>> check_images(torch.rand(2, 1, 5, 7)).shape
        torch.Size([2, 1, 5, 7])
    """
    if isinstance(images, tuple) and len(images) == 1:
        images = images[0]
    if not isinstance(images, Tensor):
        raise TypeError(f"inputs are a {type(images).__name__}; wanted one tensor of images (N, C, H, W).")
    if images.dim() != 4 or images.numel() == 0:
        empty = "no rows to explain; " if images.dim() == 4 else ""
        raise ValueError(f"images have shape {tuple(images.shape)}: {empty}wanted (N, C, H, W) with nothing empty.")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; wanted floats in [0, 1], for example images.float() / 255.")
    images = images.detach().clone() if images.is_inference() else images.detach()
    low, high, finite = torch.stack(
        [images.min().float(), images.max().float(), images.isfinite().all().float()]
    ).tolist()
    if not finite:
        raise ValueError("images hold NaN or infinity; wanted finite values in [0, 1].")
    if low < -0.5 or high > 1.5:
        raise ValueError(
            f"images lie in [{low:.3g}, {high:.3g}]; wanted [0, 1]. Give them before normalisation, and the "
            "normalisation as preprocess= (or inside forward_func); divide bytes by 255."
        )
    if low < 0 or high > 1:
        warnings.warn(f"images lie in [{low:.3g}, {high:.3g}] and are clamped to [0, 1].", stacklevel=3)
        images = images.clamp(0, 1)
    return images
