"""Numbers as text that lies inside a page."""

import base64
import zlib

from .pack import PackedUnits, delta

FLOATS, SHORTS = ("amounts", "extremes", "scale", "places"), ("top", "shares", "near")


def blob(packed: PackedUnits) -> str:
    """A layer's numbers, little-endian, float32 first, then uint16, then the maps' differences; deflated, in base64.

    The page takes them apart in this order: amounts, extremes, scale, places; top, shares, near; maps.
    """
    parts = [getattr(packed, name).numpy().astype("<f4").tobytes() for name in FLOATS]
    parts += [getattr(packed, name).numpy().astype("<u2").tobytes() for name in SHORTS]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)  # without a header, as DecompressionStream("deflate-raw") reads
    content = squeezer.compress(b"".join([*parts, delta(packed.maps)])) + squeezer.flush()
    return base64.b64encode(content).decode("ascii")
