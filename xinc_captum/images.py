"""Read photos, crop images, and check that values lie in [0, 1]."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from torch import Tensor

TAG = 0x0112  # EXIF: the orientation
TURNS = {  # by value of the tag; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP = ("xmp", "XML:com.adobe.xmp")
_UNSIGNED = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}  # integer types of EXIF, by their number


def upright(opened: Image.Image) -> Image.Image:
    """Return the current frame of an opened image file, decoded, turned and mirrored as its orientation tag requires.

    Other metadata is neither decoded nor written again. Metadata that cannot be decoded counts as absent.
    ``PIL.ImageOps.exif_transpose`` rewrites every tag instead, and one odd tag makes it fail.
    """
    turn = _from_bytes(opened.info.get("exif"))
    turn = _from_pillow(opened) if turn is None else turn
    opened.load()
    if hasattr(opened, "tag_v2"):  # of a TIFF: recent versions of Pillow turn it in load() and drop the tag
        turn = _from_pillow(opened)
    return opened if turn not in TURNS else opened.transpose(TURNS[turn])


def _from_bytes(exif: object) -> int | None:
    """Return the orientation in a block of EXIF; None if there is none, or if the block is damaged before it."""
    if not isinstance(exif, bytes):
        return None
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return None
        (start,) = struct.unpack_from(f"{order}L", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, amount = struct.unpack_from(f"{order}HHL", block, place)
            if tag == TAG and kind in _UNSIGNED and amount == 1:
                (turn,) = struct.unpack_from(f"{order}{_UNSIGNED[kind]}", block, place + 8)
                return int(turn)
    except struct.error:  # the block ends before its last tag
        pass
    return None


def _from_pillow(opened: Image.Image) -> int | None:
    """Return the orientation that Pillow reads, also from TIFF tags, XMP and text chunks."""
    with _ignore_metadata_errors():
        opened.getexif()
    turn = None
    with _ignore_metadata_errors():
        exif = opened.getexif()  # after a failure the second call returns what the first one could decode
        with _ignore_metadata_errors():
            turn = exif.get(TAG)
        for tag in [tag for tag in exif if tag != TAG]:
            del exif[tag]  # or load() of a TIFF follows tags that point into the file
    if hasattr(opened, "tag_v2"):
        for name in _XMP:
            opened.info.pop(name, None)  # or load() of a TIFF edits it, of whatever type it is
    return int(turn) if isinstance(turn, int | float) and turn in TURNS else None


@contextmanager
def _ignore_metadata_errors() -> Iterator[None]:
    """Suppress warnings and errors in the block: decoders of metadata raise errors of nearly every type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception:  # the image can be read without its metadata
            return


_WHITE = (
    "the file does not define which value is white. Expected 8-bit or 16-bit unsigned integers, or floats in [0, 1]: "
    "scale the values, and save the image again."
)


class PhotoError(ValueError):
    """A file that cannot be read as a photo."""


class Stored(NamedTuple):
    """How a file stores its values."""

    file: str  # format of the file, as Pillow names it
    raw: str  # Pillow's name of the layout in the file, such as "RGB;16B"; empty where it is not known
    bits: int  # of a value
    signed: bool
    negative: bool  # 0 is white, and Pillow does not invert the values
    misread: bool  # channels are stored one after another in a way that Pillow reads wrongly

    @classmethod
    def of(cls, opened: Image.Image) -> "Stored":
        """Return the storage format of an opened file, before it is decoded."""
        raw = opened.tile[0][3] if isinstance(opened, ImageFile) and opened.tile else ""
        tags = getattr(opened, "tag_v2", {})
        bits, sample = (tags.get(tag, default) for tag, default in ((258, (16,)), (339, (1,))))
        deep = opened.mode.startswith("I") or opened.mode == "F"
        misread = False
        if tags.get(284) == 2 and len(bits) > 1:  # 284: PlanarConfiguration
            uncompressed = isinstance(opened, ImageFile) and bool(opened.tile) and opened.tile[0][0] == "raw"
            misread = opened.mode not in {"RGB", "RGBA", "CMYK"} or (uncompressed and max(bits) > 8)
        negative = deep and tags.get(262) == 0
        return cls(opened.format or "", str(raw), int(bits[0]), sample[0] == 2, negative, misread)


def rgb_or_float(photo: Image.Image, stored: Stored, path: str | Path) -> Image.Image:
    """Return an image of mode RGB with 8 bits, or of mode F in [0, 1] for grey photos with more bits."""
    if stored.misread:
        raise PhotoError(
            f"{path} stores the {len(photo.getbands())} channels of mode {photo.mode}, {stored.bits} bits each, one "
            "after another (PlanarConfiguration 2), which Pillow reads wrongly. Save the image again with its channels "
            "together, or as PNG."
        )
    if stored.signed or photo.mode.startswith("I") or photo.mode == "F":
        return Image.fromarray(_deep_grey(photo, stored, path))
    if photo.mode == "La":  # of a TIFF
        photo = photo.convert("LA")
    if isinstance(key := photo.info.get("transparency"), int | tuple):  # in the file's number of bits, not in 8
        bits = {"L;2": lambda k: 85 * k, "L;4": lambda k: 17 * k, "RGB;16B": lambda k: tuple(one >> 8 for one in k)}
        photo.info["transparency"] = bits.get(stored.raw, lambda k: k)(key)
    if {"A", "a"} & set(photo.getbands()) or "transparency" in photo.info:
        rgba = photo.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return photo.convert("RGB")


def _deep_grey(photo: Image.Image, stored: Stored, path: str | Path) -> NDArray[np.float32]:
    """Return the values of a grey photo with more than 8 bits, in [0, 1]; PhotoError if its white is unknown."""
    values = np.asarray(photo)
    if photo.mode == "F":
        finite = np.isfinite(values)
        if not finite.all():
            raise PhotoError(
                f"{path} holds NaN or infinity in {(~finite).sum():,} of {finite.size:,} pixels; expected finite "
                "values in [0, 1]. Replace them and save the image again."
            )
        low, high = float(values.min()), float(values.max())
        if low < -0.5 or high > 1.5:  # the limits of check_images; a filter's overshoots are clamped
            raise PhotoError(f"{path} holds floats from {low:.3g} to {high:.3g}; {_WHITE}")
        scaled = values.clip(0, 1)
    else:
        sixteen = photo.mode != "I" or stored.file in {"PNG", "PPM"}  # some Pillow versions read 16 bits in mode I
        if stored.signed or not sixteen or stored.file not in {"PNG", "PPM", "TIFF", "JPEG2000"}:
            dtype = {("I", False): np.uint32, ("L", True): np.int8}.get((photo.mode, stored.signed), values.dtype)
            values = values.view(dtype)
            sort = f"{'signed' if stored.signed else 'unsigned'} {stored.bits}-bit integers"
            raise PhotoError(f"{path} holds {sort} from {values.min():,} to {values.max():,}; {_WHITE}")
        scaled = values.astype(np.float32) / np.float32(2**stored.bits - 1)
    scaled = 1 - scaled if stored.negative else scaled
    key = photo.info.get("transparency")
    return np.where(values == key, 1, scaled).astype(np.float32) if isinstance(key, int) else scaled


def read_photo(path: str | Path, *, longer_side: int | None = None) -> Tensor:
    """Return a photo as floats in [0, 1]: (3, H, W).

    The first frame or page of the file is read, turned and mirrored as its orientation tag requires; other metadata is
    not decoded. Transparent pixels are blended with white, and grey is repeated to three channels. Values are divided
    by the file's white: 255, the largest value of its number of bits (65535 for 16-bit grey), or 1 for floats. Colours
    of 16 bits per channel are read as 8 bits. Embedded colour profiles (ICC) are ignored, as in torchvision: values in
    Display P3 or Adobe RGB are taken for sRGB, and CMYK is converted by Pillow's formula.

    Args:
        path: any still image that Pillow reads.
        longer_side: shrink the longer side to this many pixels; smaller photos keep their size.

    Raises:
        FileNotFoundError: no such file.
        PhotoError: not an image, a truncated or oversized one, or one whose white is unknown: integers of 32 bits or
            with signs, floats outside [0, 1], NaN or infinity.
        ValueError: a longer side below 1.
    """
    if longer_side is not None and not longer_side >= 1:
        raise ValueError(f"longer_side is {longer_side}; expected at least 1 pixel, or None for the photo's own size.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; expected a photo (PNG, JPEG, TIFF, WebP …).")
    try:
        with Image.open(path) as opened:
            stored = Stored.of(opened)
            photo = rgb_or_float(upright(opened), stored, path)
    except PhotoError:
        raise
    except Exception as error:  # decoders raise errors of nearly every type
        if isinstance(error, OSError) and error.strerror:  # the file system's: no permission, for example
            raise PhotoError(
                f"{path} cannot be read ({error.strerror}); expected a photo that you may read."
            ) from error
        raise PhotoError(
            f"{path} cannot be read as a photo ({error}); it may be truncated or of another kind. Open it in an image "
            "program and export it as PNG."
        ) from error
    if longer_side is not None and longer_side < max(photo.size):
        scale = longer_side / max(photo.size)
        size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
        photo = photo.resize(size, Image.Resampling.LANCZOS)
    values: NDArray[np.float32] = np.asarray(photo, dtype=np.float32)
    values = values / np.float32(255) if photo.mode == "RGB" else np.repeat(values[..., None], 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))).clamp(0, 1)


def centre_crop(image: Tensor, size: int, crop: float = 0.875) -> Tensor:
    """Return the central square of a photo, as in the evaluation of classifiers.

    The shorter side is resized to size / crop, by an antialiased bicubic filter whose overshoots are clamped to [0, 1];
    then the central size x size pixels are cut out. Small photos are enlarged. For masks: ``centre_crop(masks.float(),
    size) > 0.5``.

    Args:
        image: (C, H, W) or (N, C, H, W) floats in [0, 1]; ValueError for anything else.
        size: height and width of the result.
        crop: fraction of the shorter side that is kept, in (0, 1].

    Example:
        >>> centre_crop(torch.rand(3, 40, 60), 16).shape
        torch.Size([3, 16, 16])
    """
    if image.dim() not in {3, 4} or not image.numel() or not image.is_floating_point():
        raise ValueError(
            f"image is {image.dtype} of shape {tuple(image.shape)}; expected floats in [0, 1] of shape (C, H, W) or "
            "(N, C, H, W). Divide bytes by 255, and convert masks with .float()."
        )
    if size < 1 or not 0 < crop <= 1:
        raise ValueError(f"size is {size} and crop is {crop}; expected a size of at least 1 and a crop in (0, 1].")
    height, width = image.shape[-2:]
    scale = round(size / crop) / min(height, width)
    resized = torch.nn.functional.interpolate(
        image if image.dim() == 4 else image[None],
        (round(height * scale), round(width * scale)),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    first_row, first_column = (resized.shape[-2] - size) // 2, (resized.shape[-1] - size) // 2
    square = resized[..., first_row : first_row + size, first_column : first_column + size].clamp(0, 1)
    return square if image.dim() == 4 else square[0]


def to_hwc(maps: Tensor, index: int = 0) -> NDArray[np.float32]:
    """Return one map as float32 (H, W, C) for ``captum.attr.visualization.visualize_image_attr``.

    Args:
        maps: (H, W), (C, H, W) or (N, C, H, W), on any device; ValueError for a flat canvas, to be reshaped first.
        index: which of N.

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
            f"maps have shape {tuple(maps.shape)}; expected (H, W), (C, H, W) or (N, C, H, W). Reshape rows of pixels "
            "to (C, H, W) first."
        )
    array: NDArray[np.float32] = maps.detach().float().cpu().permute(1, 2, 0).contiguous().numpy()
    return array


def check_images(images: object) -> Tensor:
    """Return images (N, C, H, W) of floats in [0, 1], detached and checked.

    Values outside the range by at most .5, for example after adding noise, are clamped with a warning.
    """
    if isinstance(images, tuple) and len(images) == 1:
        images = images[0]
    if not isinstance(images, Tensor):
        raise TypeError(f"inputs are a {type(images).__name__}; expected one tensor of images (N, C, H, W).")
    if images.dim() != 4 or images.numel() == 0:
        empty = "no rows to explain; " if images.dim() == 4 else ""
        raise ValueError(f"images have shape {tuple(images.shape)}: {empty}expected (N, C, H, W) with nothing empty.")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}; expected floats in [0, 1], for example images.float() / 255.")
    images = images.detach().clone() if images.is_inference() else images.detach()
    low, high, finite = torch.stack(
        [images.min().float(), images.max().float(), images.isfinite().all().float()]
    ).tolist()
    if not finite:
        raise ValueError("images hold NaN or infinity; expected finite values in [0, 1].")
    if low < -0.5 or high > 1.5:
        raise ValueError(
            f"images lie in [{low:.3g}, {high:.3g}]; expected [0, 1]. Give images before normalisation, and give the "
            "normalisation as preprocess= (or inside forward_func); divide bytes by 255."
        )
    if low < 0 or high > 1:
        warnings.warn(f"images lie in [{low:.3g}, {high:.3g}] and are clamped to [0, 1].", stacklevel=3)
        images = images.clamp(0, 1)
    return images
