"""Numbers and pictures as text that lies inside a page."""

import base64
import io
import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .pack import PackedUnits, delta

FLOATS, SHORTS = ("amounts", "extremes", "scale", "places"), ("top", "shares", "near")
LOSSLESS = 700_000  # bytes of PNG that a page may hold; beyond, JPEG


def blob(packed: PackedUnits) -> str:
    """A layer's numbers, little-endian, float32 first, then uint16, then the maps' differences; deflated, in base64.

    The page takes them apart in this order: amounts, extremes, scale, places; top, shares, near; maps.
    """
    parts = [getattr(packed, name).numpy().astype("<f4").tobytes() for name in FLOATS]
    parts += [getattr(packed, name).numpy().astype("<u2").tobytes() for name in SHORTS]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)  # without a header, as DecompressionStream("deflate-raw") reads
    return _text(squeezer.compress(b"".join([*parts, delta(packed.maps)])) + squeezer.flush())


def pictures(frames: Tensor, *, most: int = LOSSLESS) -> list[str]:
    """Pictures (N, C, H, W) in [0, 1] as data addresses: PNG while all of them take at most ``most`` bytes, else JPEG.

    Raises:
        ValueError: not pictures, or not of one or three channels.

    Example:
        >>> pictures(torch.rand(1, 3, 4, 6))[0][:22]
        'data:image/png;base64,'
    """
    if frames.dim() != 4 or frames.shape[1] not in (1, 3) or 0 in frames.shape:
        raise ValueError(f"pictures have shape {tuple(frames.shape)}; wanted (N, 1 or 3, H, W) in [0, 1].")
    held = (frames.detach().cpu().float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    opened = [Image.fromarray(np.ascontiguousarray(one.expand(3, -1, -1).permute(1, 2, 0).numpy())) for one in held]
    plain = [_encoded(one, "PNG", optimize=True) for one in opened]
    if sum(map(len, plain)) <= most:
        return [f"data:image/png;base64,{_text(one)}" for one in plain]
    return [f"data:image/jpeg;base64,{_text(_encoded(one, 'JPEG', quality=88, subsampling=0))}" for one in opened]


def through(picture: Tensor, mask: Tensor) -> str:
    """A picture (C, H, W) seen through a mask (1, H, W) in [0, 1], as a data address of a PNG with transparency."""
    both = torch.cat([picture.cpu().float().expand(3, -1, -1), mask.cpu().float()]).clamp(0, 1)
    held = (both * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return f"data:image/png;base64,{_text(_encoded(Image.fromarray(held), 'PNG', optimize=True))}"


def _encoded(picture: Image.Image, kind: str, **how: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
