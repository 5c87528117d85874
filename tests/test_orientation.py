import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.images import read_photo

PIXELS = (np.arange(4 * 6 * 3) % 251).astype(np.uint8).reshape(4, 6, 3)
TURNED = {  # what the tag demands of the stored rows and columns
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}
HALF_A_TURN = (0x112, 3, 1, struct.pack("<H", 3))
ODD = {
    "resolution 1/0": (0x11A, 10, 1, struct.pack("<ll", -1, 0)),
    "resolution NaN": (0x11A, 11, 1, struct.pack("<f", float("nan"))),
    "resolution in bytes": (0x11A, 7, 4, b"abcd"),
    "a negative width": (0x100, 9, 1, struct.pack("<l", -5)),
    "text of floats": (0x10E, 11, 1, struct.pack("<f", 1e30)),
    "data behind the end": (0x10E, 2, 2000, struct.pack("<L", 60_000)),
    "more data than there can be": (0x10E, 2, 2**31, b""),
    "an unknown type": (0x10E, 99, 1, b"ab"),
    "a folder of tags that is none": (0x8769, 4, 1, struct.pack("<L", 3)),
    "a folder of tags before the file": (0x8825, 9, 1, struct.pack("<l", -50)),
    "a folder of tags in words": (0x8769, 2, 4, b"abc\0"),
    "XMP of numbers": (0x2BC, 11, 1, struct.pack("<f", 2.5)),
    "XMP with another turn": (0x2BC, 1, 25, b'<tiff:Orientation="6"/>..'),
}


def directory(entries, start, after=b""):
    """TIFF tags, which begin at ``start``; values of more than four bytes follow them."""
    tags, values = struct.pack("<H", len(entries)), after
    behind = start + 2 + 12 * len(entries) + 4
    for tag, kind, count, data in sorted(entries):
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<L", behind + len(values))
        values += data if len(data) > 4 else b""
        tags += struct.pack("<HHL", tag, kind, count) + place
    return tags + struct.pack("<L", 0) + values


def exif(*entries):
    return b"Exif\0\0II*\0" + struct.pack("<L", 8) + directory(entries, 8)


def tiff(*entries):
    """An uncompressed TIFF of PIXELS with additional tags."""
    shape = [(0x100, 6), (0x101, 4), (0x103, 1), (0x106, 2), (0x111, 8), (0x115, 3), (0x116, 4), (0x117, 72)]
    needed = [(tag, 4, 1, struct.pack("<L", value)) for tag, value in shape]
    needed.append((0x102, 3, 3, struct.pack("<3H", 8, 8, 8)))
    kept = {one[0]: one for one in (*entries, *needed)}
    return b"II*\0" + struct.pack("<L", 80) + PIXELS.tobytes() + directory(list(kept.values()), 80)


def shows(path, wanted):
    read = read_photo(path)
    torch.testing.assert_close(read, torch.from_numpy(wanted.copy()).permute(2, 0, 1).float() / 255)


@pytest.mark.parametrize("turn", TURNED)
@pytest.mark.parametrize("kind", [3, 4, 9])
def test_each_turn_and_mirror(turn, kind, tmp_path):
    code = {3: "<H", 4: "<L", 9: "<l"}[kind]
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif((0x112, kind, 1, struct.pack(code, turn))))
    shows(tmp_path / "a.png", TURNED[turn](PIXELS))
    (tmp_path / "a.tif").write_bytes(tiff((0x112, 3, 1, struct.pack("<H", turn))))
    shows(tmp_path / "a.tif", TURNED[turn](PIXELS))


def test_the_other_byte_order(tmp_path):
    block = b"Exif\0\0MM\0*" + struct.pack(">LHHHLHHL", 8, 1, 0x112, 3, 1, 8, 0, 0)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=block)
    shows(tmp_path / "a.png", TURNED[8](PIXELS))


def test_one_odd_tag_beside_it_in_a_tiff(tmp_path):
    of_the_picture = {"a negative width", "data behind the end", "more data than there can be"}
    for name in set(ODD) - of_the_picture:
        (tmp_path / "a.tif").write_bytes(tiff(HALF_A_TURN, ODD[name]))
        shows(tmp_path / "a.tif", TURNED[3](PIXELS))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_one_odd_tag_beside_it(odd, kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(PIXELS).save(path, exif=exif(HALF_A_TURN, ODD[odd]), lossless=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shows(path, TURNED[3](PIXELS))


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0XX*\0" + bytes(40),
        exif(HALF_A_TURN)[:20],
        exif((0x112, 3, 1, struct.pack("<H", 9))),
        exif((0x112, 2, 3, b"up\0")),
        exif((0x112, 5, 1, struct.pack("<LL", 3, 0))),
        exif((0x112, 12, 1, struct.pack("<d", float("nan")))),
    ],
)
def test_no_orientation_that_can_be_read_is_none(block, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shows(tmp_path / "a.png", PIXELS)


def test_the_orientation_of_xmp_counts_where_there_is_no_other(tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(PIXELS).save(tmp_path / "a.webp", xmp=xmp, lossless=True)
    shows(tmp_path / "a.webp", TURNED[6](PIXELS))
    Image.fromarray(PIXELS).save(tmp_path / "a.webp", xmp=xmp, exif=exif(HALF_A_TURN), lossless=True)
    shows(tmp_path / "a.webp", TURNED[3](PIXELS))
    (tmp_path / "a.tif").write_bytes(tiff((0x2BC, 1, len(xmp), xmp)))
    shows(tmp_path / "a.tif", TURNED[6](PIXELS))
