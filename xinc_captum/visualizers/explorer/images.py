"""Encode images as data addresses within a number of bytes: exact if they fit, else compressed, else smaller."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MIN_SIDE = 32  # pixels of the longer side, at least
Encode = Callable[[Tensor], str]


class Album(NamedTuple):
    """Images as data addresses, (H, W) of the largest on the page and before, and whether they are unchanged."""

    addresses: list[str]
    size: tuple[int, int]
    original_size: tuple[int, int]
    exact: bool

    @property
    def caption(self) -> str:
        """A sentence about compression and size for readers of the page, "" where the images are unchanged."""
        if self.exact:
            return ""
        (height, width), (h, w) = self.original_size, self.size
        resized = self.original_size != self.size
        size = f" and reduced from {width} x {height} to {w} x {h} pixels" if resized else ""
        return (
            f"Its pictures are compressed{size}, to keep the file small enough to send; the result has the "
            "original pictures."
        )


def album(pictures: Sequence[Tensor], room: int, *, longest: int | None = None) -> Album:
    """Encode all images, (1 or 3, H, W) each, in ``room`` characters: as PNG, else as JPEG, else as smaller JPEG.

    Sizes may differ; longer sides than ``longest`` pixels are reduced. Raise ValueError for other shapes, or for more
    images than fit at 32 pixels.
    """
    shapes = [tuple(image.shape) for image in pictures]
    if not shapes or any(len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape for shape in shapes):
        raise ValueError(f"pictures have shapes {sorted(set(shapes))}; expected (1 or 3, H, W), in [0, 1].")
    height, width = max((shape[1:] for shape in shapes), key=max)
    side = max(height, width)
    if longest is None or side <= longest:
        addresses = encode_all(pictures, png, room, side)
        if isinstance(addresses, list):
            return Album(addresses, (height, width), (height, width), True)
    addresses, side = _encode_smaller(pictures, jpeg, room, min(side, longest or side))
    return Album(addresses, _size(height, width, side), (height, width), False)


def masks_of(masks: Sequence[Tensor], room: int) -> list[str]:
    """Encode masks (1, H, W) in [0, 1] as transparent PNG in ``room`` characters, smaller where necessary."""
    return _encode_smaller(masks, transparency, room, max(max(mask.shape[1:]) for mask in masks))[0]


def encode_all(pictures: Sequence[Tensor], encode: Encode, room: int, longest: int) -> list[str] | float:
    """Return the addresses, or, if they have more than ``room`` characters, the estimated factor by which they do."""
    addresses: list[str] = []
    size, numbers, total = 0, 0, sum(image.numel() for image in pictures)
    for image in pictures:
        addresses.append(encode(smaller(image, longest)))
        size, numbers = size + len(addresses[-1]), numbers + image.numel()
        if size > room:
            return size * total / numbers / room
    return addresses


def smaller(picture: Tensor, longest: int) -> Tensor:
    """Return an image (C, H, W) on the CPU, clamped to [0, 1], with no side above ``longest`` pixels."""
    image = picture.detach().cpu().float().nan_to_num()
    size = _size(image.shape[1], image.shape[2], longest)
    if size != tuple(image.shape[1:]):
        image = torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return image.clamp(0, 1)


def png(picture: Tensor) -> str:
    """Return the data address of an image, (1 or 3, H, W), as PNG."""
    return f"data:image/png;base64,{_encode(picture.expand(3, -1, -1), 'PNG', optimize=True)}"


def jpeg(picture: Tensor) -> str:
    """Return the data address of an image, (1 or 3, H, W), as JPEG of high quality without colour subsampling."""
    text = _encode(picture.expand(3, -1, -1), "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{text}"


def transparency(mask: Tensor) -> str:
    """Return the data address of a mask, (1, H, W): a black PNG that is transparent where the mask is 0."""
    return f"data:image/png;base64,{_encode(torch.cat([torch.zeros_like(mask), mask]), 'PNG', optimize=True)}"


def _encode_smaller(pictures: Sequence[Tensor], encode: Encode, room: int, longest: int) -> tuple[list[str], int]:
    """Return the addresses, in at most ``room`` characters, and the longest side that they allow, in pixels."""
    too_long = longest
    while not isinstance(addresses := encode_all(pictures, encode, room, longest), list):
        if longest <= MIN_SIDE:
            raise ValueError(
                f"{len(pictures):,} pictures do not fit into {room / 1e6:.1f} MB, not even at {longest} pixels; make "
                "several pages with fewer pictures."
            )
        too_long, longest = longest, max(MIN_SIDE, int(longest * min(0.9, 0.97 / math.sqrt(addresses))))
    for _ in range(3):  # the number of bytes is not exactly proportional to the area: try larger images
        middle = round(math.sqrt(longest * too_long))
        if sum(map(len, addresses)) > 0.8 * room or not longest < middle < too_long:
            break
        if isinstance(larger := encode_all(pictures, encode, room, middle), list):
            addresses, longest = larger, middle
        else:
            too_long = middle
    return addresses, longest


def _size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return the size after a reduction to at most ``longest`` pixels per side."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _encode(picture: Tensor, kind: str, **options: int) -> str:
    """Return an image file in base64; two channels are grey and opacity."""
    numbers = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(numbers)).save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")
