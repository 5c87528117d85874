"""Pictures that share the room of a page: as they are where they fit, else compressed, else smaller."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SMALLEST = 32  # pixels of a longer side; a picture that is smaller says little
Encode = Callable[[Tensor], str]


class Album(NamedTuple):
    """Pictures as data addresses, and what had to be done to them.

    Attributes:
        addresses: one a picture.
        size: (H, W) of the largest, as shown.
        own: (H, W) of the largest, as given.
        exact: whether every number is as it was given.
    """

    addresses: list[str]
    size: tuple[int, int]
    own: tuple[int, int]
    exact: bool

    @property
    def said(self) -> str:
        """What a reader should know of it; nothing where the pictures are as they were given."""
        if self.exact:
            return ""
        (height, width), (h, w) = self.own, self.size
        less = f" and reduced from {width} x {height} to {w} x {h} pixels" if self.own != self.size else ""
        return f"Its pictures are compressed{less}, to keep the file small enough to send; the result has them whole."


def album(pictures: Sequence[Tensor], room: int, *, longest: int | None = None) -> Album:
    """All pictures in ``room`` characters: as PNG, else as JPEG, else no longer than so many pixels.

    Args:
        pictures: (C, H, W) each, in [0, 1], 1 or 3 channels; sizes may differ.
        room: characters for all data addresses together.
        longest: pixels of a longer side that the page shows at most.

    Raises:
        ValueError: other shapes, or more pictures than fit even at 32 pixels.

    Example:
        >>> album([torch.zeros(3, 4, 6)], 10_000).addresses[0][:22]
        'data:image/png;base64,'
    """
    shapes = [tuple(one.shape) for one in pictures]
    if not shapes or any(len(one) != 3 or one[0] not in (1, 3) or 0 in one for one in shapes):
        raise ValueError(f"pictures have shapes {sorted(set(shapes))}; expected (1 or 3, H, W), in [0, 1].")
    height, width = max((one[1:] for one in shapes), key=max)
    whole = max(height, width)
    if (longest is None or whole <= longest) and isinstance(found := encoded(pictures, png, room, whole), list):
        return Album(found, (height, width), (height, width), True)
    found, most = _fitted(pictures, jpeg, room, min(whole, longest or whole))
    return Album(found, _size(height, width, most), (height, width), False)


def masks_of(masks: Sequence[Tensor], room: int) -> list[str]:
    """Masks (1, H, W) in [0, 1] as transparency, in ``room`` characters: PNG, no longer than so many pixels.

    Raises:
        ValueError: as :func:`album`.
    """
    return _fitted(masks, transparency, room, max(max(one.shape[1:]) for one in masks))[0]


def encoded(pictures: Sequence[Tensor], encode: Encode, room: int, longest: int) -> list[str] | float:
    """Their addresses; or, as soon as it is seen that these take more than the room, how many times more, about."""
    found: list[str] = []
    taken, seen, all_ = 0, 0, sum(one.numel() for one in pictures)
    for one in pictures:
        found.append(encode(smaller(one, longest)))
        taken, seen = taken + len(found[-1]), seen + one.numel()
        if taken > room:
            return taken * all_ / seen / room
    return found


def smaller(picture: Tensor, longest: int) -> Tensor:
    """(C, H, W) on the host, in [0, 1], no side above ``longest`` pixels: means over what falls together."""
    here = picture.detach().cpu().float().nan_to_num()
    size = _size(here.shape[1], here.shape[2], longest)
    if size != tuple(here.shape[1:]):
        here = torch.nn.functional.interpolate(here[None], size, mode="bilinear", antialias=True)[0]
    return here.clamp(0, 1)


def png(picture: Tensor) -> str:
    """The data address of a picture, (1 or 3, H, W), without loss."""
    return f"data:image/png;base64,{_text(picture.expand(3, -1, -1), 'PNG', optimize=True)}"


def jpeg(picture: Tensor) -> str:
    """The data address of a picture, (1 or 3, H, W), with little loss, colours as sharp as the rest."""
    text = _text(picture.expand(3, -1, -1), "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{text}"


def transparency(mask: Tensor) -> str:
    """The data address of a mask, (1, H, W): a black picture, which is seen through where the mask is 0."""
    return f"data:image/png;base64,{_text(torch.cat([torch.zeros_like(mask), mask]), 'PNG', optimize=True)}"


def _fitted(pictures: Sequence[Tensor], encode: Encode, room: int, longest: int) -> tuple[list[str], int]:
    """Their addresses, and how long their longer sides are at most."""
    failed = longest
    while not isinstance(found := encoded(pictures, encode, room, longest), list):
        if longest <= SMALLEST:
            raise ValueError(
                f"{len(pictures):,} pictures do not fit into {room / 1e6:.1f} MB, not even at {longest} pixels; make "
                "several pages of fewer."
            )
        failed, longest = longest, max(SMALLEST, int(longest * min(0.9, 0.97 / math.sqrt(found))))
    for _ in range(3):  # half the length need not be a quarter of the bytes: there may be room for more
        middle = round(math.sqrt(longest * failed))
        if sum(map(len, found)) > 0.8 * room or not longest < middle < failed:
            break
        if isinstance(again := encoded(pictures, encode, room, middle), list):
            found, longest = again, middle
        else:
            failed = middle
    return found, longest


def _size(height: int, width: int, longest: int) -> tuple[int, int]:
    """No side longer than so."""
    share = min(1.0, longest / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _text(picture: Tensor, kind: str, **how: int) -> str:
    """Two channels are grey and opacity."""
    numbers = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(numbers)).save(file, kind, **how)
    return base64.b64encode(file.getvalue()).decode("ascii")
