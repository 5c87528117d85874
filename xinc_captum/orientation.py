"""How a photo was held: the orientation tag of image files, read so that no other tag matters."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

TAG = 0x0112
TURNS = {
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
    """Return the current frame of an image file, decoded, turned and mirrored as its orientation tag requires.

    Other metadata is neither decoded nor written again. Metadata that cannot be decoded counts as absent.
    ``PIL.ImageOps.exif_transpose`` rewrites every tag instead, and one odd tag makes it fail.

    Args:
        opened: what ``PIL.Image.open`` returned.

    Returns:
        A decoded image without an orientation: ``opened`` itself, or a turned copy.
    """
    turn = _from_bytes(opened.info.get("exif"))
    if turn is None:
        turn = _from_pillow(opened)
    opened.load()
    if hasattr(opened, "tag_v2"):  # of a TIFF: recent versions of Pillow turn it in load() and drop the tag
        turn = _from_pillow(opened)
    return opened if turn not in TURNS else opened.transpose(TURNS[turn])


def _from_bytes(exif: object) -> int | None:
    """The orientation in a block of EXIF; None where there is none, or where the block is damaged before it."""
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
    """The orientation as Pillow reads it: from TIFF tags, XMP and text chunks too."""
    with _undisturbed():
        opened.getexif()
    turn = None
    with _undisturbed():
        exif = opened.getexif()  # after a failure the second call returns what the first one could decode
        with _undisturbed():
            turn = exif.get(TAG)
        for tag in [tag for tag in exif if tag != TAG]:
            del exif[tag]  # or load() of a TIFF follows tags that point into the file
    if hasattr(opened, "tag_v2"):
        for name in _XMP:
            opened.info.pop(name, None)  # or load() of a TIFF edits it, of whatever type it is
    return int(turn) if isinstance(turn, int | float) and turn in TURNS else None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Decoders of metadata raise errors of nearly every type, and warn of what is ignored here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception:  # none of it is needed to show the picture
            return
