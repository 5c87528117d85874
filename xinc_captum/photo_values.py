"""Which values of an image file are white: its pixels as 8-bit colours, or as grey floats in [0, 1]."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

_WHITE = (
    "the file does not say which value is white. Wanted 8-bit or 16-bit unsigned integers, or floats in [0, 1]: scale "
    "the values, and save the picture again."
)


class PhotoError(ValueError):
    """A file that cannot be read as a photo."""


class Stored(NamedTuple):
    """How a file stores its values.

    Attributes:
        file: format of the file, as Pillow names it.
        raw: Pillow's name of the layout in the file, such as "RGB;16B"; empty where it is not known.
        bits: of a value.
        signed: whether its integers have a sign.
        negative: whether 0 is white, and Pillow does not invert the values.
        misread: whether channels are stored one after another in a way that Pillow reads wrongly.
    """

    file: str
    raw: str
    bits: int
    signed: bool
    negative: bool
    misread: bool

    @classmethod
    def of(cls, opened: Image.Image) -> "Stored":
        """Of an opened file, before it is decoded."""
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
    """Mode RGB with 8 bits, or mode F in [0, 1] of deeper grey photos.

    Raises:
        PhotoError: channels one after another that Pillow reads wrongly, or as :func:`_deep_grey`.
    """
    if stored.misread:
        raise PhotoError(
            f"{path} stores the {len(photo.getbands())} channels of mode {photo.mode}, {stored.bits} bits each, one "
            "after another (PlanarConfiguration 2), which Pillow reads wrongly. Save the picture again with its "
            "channels together, or as PNG."
        )
    if stored.signed or photo.mode.startswith("I") or photo.mode == "F":
        return Image.fromarray(_deep_grey(photo, stored, path))
    if photo.mode == "La":  # of a TIFF
        photo = photo.convert("LA")
    if isinstance(key := photo.info.get("transparency"), int | tuple):  # Pillow leaves it in the bits of the file
        bits = {"L;2": lambda k: 85 * k, "L;4": lambda k: 17 * k, "RGB;16B": lambda k: tuple(one >> 8 for one in k)}
        photo.info["transparency"] = bits.get(stored.raw, lambda k: k)(key)
    if {"A", "a"} & set(photo.getbands()) or "transparency" in photo.info:
        rgba = photo.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return photo.convert("RGB")


def _deep_grey(photo: Image.Image, stored: Stored, path: str | Path) -> NDArray[np.float32]:
    """Values of a grey photo with more than 8 bits, in [0, 1].

    Raises:
        PhotoError: the file does not say which value is white, or has values that are no brightness.
    """
    values = np.asarray(photo)
    if photo.mode == "F":
        finite = np.isfinite(values)
        if not finite.all():
            raise PhotoError(
                f"{path} holds NaN or infinity in {(~finite).sum():,} of {finite.size:,} pixels; wanted finite values "
                "in [0, 1]. Replace them and save the picture again."
            )
        low, high = float(values.min()), float(values.max())
        if low < -0.5 or high > 1.5:  # as check_images: overshoots of a filter are clamped
            raise PhotoError(f"{path} holds floats from {low:.3g} to {high:.3g}; {_WHITE}")
        scaled = values.clip(0, 1)
    else:
        sixteen = photo.mode != "I" or stored.file in {"PNG", "PPM"}  # which versions of Pillow read in mode I
        if stored.signed or not sixteen or stored.file not in {"PNG", "PPM", "TIFF", "JPEG2000"}:
            whole = {("I", False): np.uint32, ("L", True): np.int8}.get((photo.mode, stored.signed), values.dtype)
            values = values.view(whole)
            sort = f"{'signed' if stored.signed else 'unsigned'} {stored.bits}-bit integers"
            raise PhotoError(f"{path} holds {sort} from {values.min():,} to {values.max():,}; {_WHITE}")
        scaled = values.astype(np.float32) / np.float32(2**stored.bits - 1)
    scaled = 1 - scaled if stored.negative else scaled
    key = photo.info.get("transparency")
    return np.where(values == key, 1, scaled).astype(np.float32) if isinstance(key, int) else scaled
