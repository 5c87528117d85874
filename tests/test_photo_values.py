import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.images import PhotoError, read_photo


def planes(values, *, photometric=2, extra=None, packed=False):
    """A TIFF of (H, W, C) whose channels are stored one after another, in strips of their own."""
    height, width, channels = values.shape
    pack = zlib.compress if packed else bytes
    strips = [pack(values[..., c].astype(values.dtype.newbyteorder("<")).tobytes()) for c in range(channels)]
    places = [8 + sum(len(strip) for strip in strips[:c]) for c in range(channels)]
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8 * values.dtype.itemsize] * channels)}
    tags |= {259: (3, [8 if packed else 1]), 262: (3, [photometric]), 273: (4, places), 277: (3, [channels])}
    tags |= {278: (4, [height]), 279: (4, [len(strip) for strip in strips]), 284: (3, [2])}
    tags |= {} if extra is None else {338: (3, [extra])}
    start = 8 + sum(len(strip) for strip in strips)
    beyond, entries = start + 2 + 12 * len(tags) + 4, b""
    more = b""
    for tag, (kind, numbers) in sorted(tags.items()):
        value = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'L'}", *numbers)
        if len(value) > 4:
            value, more = struct.pack("<L", beyond + len(more)), more + value
        entries += struct.pack("<HHL", tag, kind, len(numbers)) + value.ljust(4, b"\0")
    return (
        struct.pack("<2sHL", b"II", 42, start)
        + b"".join(strips)
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
        + more
    )


def tiff(values, *, photometric=1, signed=False, extra=None, order="<"):
    """An uncompressed TIFF of (H, W) or (H, W, C), stored as the dtype says."""
    values = values if values.ndim == 3 else values[..., None]
    bits, channels = 8 * values.dtype.itemsize, values.shape[2]
    sample = {"f": 3, "i": 2, "u": 1}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    many = struct.pack(f"{order}{channels}H", *[bits] * channels)
    tags = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, channels), (278, 4, values.shape[0]), (279, 4, len(data))]
    tags += [(338, 3, extra)] if extra is not None else []
    tags += [(339, 3, sample)]
    start = 8 + len(data)
    content = struct.pack(f"{order}2sHL", b"II" if order == "<" else b"MM", 42, start) + data
    content += struct.pack(f"{order}H", len(tags))
    for tag, kind, value in tags:
        if tag == 258 and len(many) > 4:
            place = struct.pack(f"{order}L", start + 2 + 12 * len(tags) + 4)
        elif tag == 258:
            place = many.ljust(4, b"\0")
        else:
            place = struct.pack(f"{order}{'H' if kind == 3 else 'L'}", value).ljust(4, b"\0")
        content += struct.pack(f"{order}HHL", tag, kind, channels if tag == 258 else 1) + place
    return content + bytes(4) + many


def grey(tmp_path, values, **kind):
    (tmp_path / "grey.tif").write_bytes(tiff(values, **kind))
    photo = read_photo(tmp_path / "grey.tif")
    assert torch.equal(photo[0], photo[1]) and torch.equal(photo[0], photo[2])
    return photo[0, 0].tolist()


def test_deep_grey_is_divided_by_its_white(tmp_path):
    deep = np.array([[0, 13107, 65535]], np.uint16)
    for order in "<>":
        assert grey(tmp_path, deep, order=order) == pytest.approx([0, 0.2, 1])
    assert grey(tmp_path, np.array([[0, 51, 255]], np.uint8)) == pytest.approx([0, 0.2, 1])
    assert grey(tmp_path, np.array([[0, 0.2, 0.75]], np.float32)) == pytest.approx([0, 0.2, 0.75])
    (tmp_path / "grey.pgm").write_bytes(b"P5 3 1 1000\n" + struct.pack(">3H", 0, 200, 1000))
    assert read_photo(tmp_path / "grey.pgm")[0, 0].tolist() == pytest.approx([0, 0.2, 1], abs=1e-4)


def test_twelve_bits_have_their_own_white(tmp_path):
    whole = bytearray(tiff(np.zeros((1, 3), np.uint8)))
    whole[8:11] = bytes([0x00, 0x00, 0xCC])  # two values of 12 bits in three bytes: 0 and 204
    whole = whole.replace(struct.pack("<HHLL", 256, 4, 1, 3), struct.pack("<HHLL", 256, 4, 1, 2))
    whole = whole.replace(struct.pack("<HHLL", 258, 3, 1, 8), struct.pack("<HHLL", 258, 3, 1, 12))
    (tmp_path / "grey.tif").write_bytes(whole)
    assert read_photo(tmp_path / "grey.tif")[0, 0].tolist() == pytest.approx([0, 204 / 4095])


def test_where_zero_is_white(tmp_path):
    assert grey(tmp_path, np.array([[0, 51, 255]], np.uint8), photometric=0) == pytest.approx([1, 0.8, 0])
    assert grey(tmp_path, np.array([[0, 13107, 65535]], np.uint16), photometric=0) == pytest.approx([1, 0.8, 0])
    assert grey(tmp_path, np.array([[0, 0.2, 1]], np.float32), photometric=0) == pytest.approx([1, 0.8, 0])


def test_floats_that_overshoot_are_clamped(tmp_path):
    assert grey(tmp_path, np.array([[-0.1, 0.5, 1.2]], np.float32)) == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([[0.0, np.nan, 1]], np.float32), "holds NaN or infinity in 1 of 3 pixels; wanted finite values"),
        (np.array([[0.0, -np.inf, np.inf]], np.float32), "holds NaN or infinity in 2 of 3 pixels"),
        (np.array([[0, 100, 255]], np.float32), "holds floats from 0 to 255; the file does not say which value is"),
        (np.array([[-1, 0, 1]], np.float32), "holds floats from -1 to 1; the file"),
        (np.array([[0, 100, 255]], np.int32), "holds signed 32-bit integers from 0 to 255; the file does not say"),
        (np.array([[0, 1, 4294967295]], np.uint32), "holds unsigned 32-bit integers from 0 to 4,294,967,295; the file"),
        (np.array([[-7, 0, 1200]], np.int16), "holds signed 16-bit integers from -7 to 1,200; the file"),
        (np.array([[-7, 0, 100]], np.int8), "holds signed 8-bit integers from -7 to 100; the file"),
    ],
)
def test_a_white_that_is_not_known_is_an_error(values, says, tmp_path):
    with pytest.raises(PhotoError, match=f"grey.tif {says}"):
        grey(tmp_path, values)


def png(bits, colour, values, transparent):
    def chunk(name, data):
        return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">LLBBBBB", 2, 1, bits, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + values))
    ) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "colour", "values", "transparent", "other"),
    [
        (1, 0, bytes([0b00000000]), b"\0\1", 0.0),
        (2, 0, bytes([0b01100000]), b"\0\1", 170 / 255),
        (4, 0, bytes([0x53]), b"\0\5", 51 / 255),
        (8, 0, bytes([5, 51]), b"\0\5", 51 / 255),
        (16, 0, struct.pack(">2H", 100, 13107), struct.pack(">H", 100), 0.2),
        (8, 2, bytes([5, 5, 5, 51, 51, 51]), b"\0\5\0\5\0\5", 51 / 255),
        (16, 2, struct.pack(">6H", *[30000] * 3, *[13107] * 3), struct.pack(">3H", *[30000] * 3), 51 / 255),
    ],
)
def test_a_transparent_colour_of_any_depth_is_white(bits, colour, values, transparent, other, tmp_path):
    (tmp_path / "keyed.png").write_bytes(png(bits, colour, values, transparent))
    photo = read_photo(tmp_path / "keyed.png")
    hidden = 0 if bits == 1 else 1  # of one bit the other value is the transparent one
    torch.testing.assert_close(photo[:, 0, 0], torch.full((3,), float(hidden)))
    torch.testing.assert_close(photo[:, 0, 1], torch.full((3,), other))


def test_grey_with_alpha_straight_and_premultiplied(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(np.array([[[100, 102], [9, 0], [51, 255]]], np.uint8), extra=2))
    straight = read_photo(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(tiff(np.array([[[40, 102], [0, 0], [51, 255]]], np.uint8), extra=1))
    premultiplied = read_photo(tmp_path / "a.tif")
    wanted = torch.tensor([0.4 * 100 / 255 + 0.6, 1, 0.2])
    for photo in (straight, premultiplied):
        torch.testing.assert_close(photo[1, 0], wanted, atol=0.5 / 255, rtol=0)
    colours = np.array([[[40, 0, 0, 102], [0, 0, 0, 0]]], np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(colours, photometric=2, extra=1))
    torch.testing.assert_close(
        read_photo(tmp_path / "a.tif")[:, 0], torch.tensor([[wanted[0], 1], [0.6, 1], [0.6, 1]]), atol=0.5 / 255, rtol=0
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB", "I;16", "F"])
def test_one_colour_in_every_mode_of_a_file(mode, tmp_path):
    bright = Image.new("RGB", (3, 2), (255, 255, 255))
    if mode == "F":
        image = Image.new("F", (3, 2), 1.0)
    elif mode == "I;16":
        image = Image.fromarray(np.full((2, 3), 65535, np.uint16))
    else:
        image = bright.convert("LA").convert("PA") if mode == "PA" else bright.convert(mode)
    image.save(tmp_path / "a.tif")
    torch.testing.assert_close(read_photo(tmp_path / "a.tif"), torch.ones(3, 2, 3), atol=1.5 / 255, rtol=0)


def test_colours_that_are_stored_otherwise(tmp_path):
    red = Image.new("RGB", (16, 16), (230, 40, 40))
    red.convert("LAB").save(tmp_path / "lab.tif")
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    red.convert("CMYK").save(tmp_path / "cmyk.tif")
    red.save(tmp_path / "colours.jp2")
    for name in ("lab.tif", "cmyk.jpg", "cmyk.tif", "colours.jp2"):
        torch.testing.assert_close(
            read_photo(tmp_path / name)[:, 8, 8], torch.tensor([230, 40, 40]) / 255, atol=3 / 255, rtol=0
        )


@pytest.mark.parametrize("packed", [False, True])
def test_channels_one_after_another_are_read_right_or_refused(packed, tmp_path):
    colour = np.full((4, 5, 3), [64, 128, 192], np.uint8)
    file = tmp_path / "planes.tif"
    file.write_bytes(planes(colour, packed=packed))
    assert torch.allclose(read_photo(file)[:, 0, 0] * 255, torch.tensor([64.0, 128.0, 192.0]))
    deep = colour.astype(np.uint16) * 257
    file.write_bytes(planes(deep, packed=packed))
    if packed:
        assert torch.allclose(read_photo(file) * 255, torch.tensor([64.0, 128.0, 192.0]).view(3, 1, 1).expand(3, 4, 5))
    else:
        with pytest.raises(PhotoError, match="planes.tif stores the 3 channels of mode RGB, 16 bits each, one after"):
            read_photo(file)
    for values, kind in ((colour[..., :2], {"photometric": 1, "extra": 2}), (colour, {"photometric": 8})):
        file.write_bytes(planes(values, packed=packed, **kind))
        with pytest.raises(PhotoError, match="channels of mode LAB?, 8 bits each|cannot be read"):
            read_photo(file)
