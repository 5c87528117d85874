import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum import to_hwc
from xinc_captum.images import PhotoError, centre_crop, check_images, read_photo


def saved(tmp_path, image, name="photo.png", **kwargs):
    image.save(tmp_path / name, **kwargs)
    return tmp_path / name


def test_colours_and_layout(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 1] = (255, 51, 0)
    photo = read_photo(saved(tmp_path, Image.fromarray(pixels)))
    assert photo.shape == (3, 2, 3)
    assert photo[:, 0, 1].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert photo.dtype == torch.float32


def test_transparency_lies_on_white(tmp_path):
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    photo = read_photo(saved(tmp_path, image))
    assert photo[:, 0, 0].tolist() == [1, 1, 1]
    assert photo[:, 0, 1].tolist() == [1, 0, 0]


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (1, 1), 0)
    image.putpalette([10, 20, 30])
    assert read_photo(saved(tmp_path, image, transparency=0))[:, 0, 0].tolist() == [1, 1, 1]


def test_sixteen_bits_keep_their_range(tmp_path):
    deep = np.array([[0, 32768, 65535]], np.uint16)
    photo = read_photo(saved(tmp_path, Image.fromarray(deep)))
    assert photo[0, 0].tolist() == pytest.approx([0, 0.5, 1], abs=1e-4)
    assert torch.equal(photo[0], photo[2])


def test_grey_and_float_and_one_bit(tmp_path):
    assert read_photo(saved(tmp_path, Image.new("L", (2, 2), 128)))[:, 0, 0].tolist() == pytest.approx([128 / 255] * 3)
    assert read_photo(saved(tmp_path, Image.new("1", (2, 2), 1))).min() == 1
    assert read_photo(saved(tmp_path, Image.new("F", (2, 2), 0.5), "photo.tiff")).max() == 0.5


def test_exif_turns_it_upright(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    assert read_photo(saved(tmp_path, image, "photo.jpg", exif=exif)).shape == (3, 4, 2)


@pytest.mark.parametrize("kind", ["gif", "tif", "png", "webp"])
def test_of_several_frames_the_first_is_read(kind, tmp_path):
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], lossless=True)
    torch.testing.assert_close(read_photo(tmp_path / f"a.{kind}")[:, 0, 0], torch.tensor([1.0, 0, 0]))


def test_a_colour_profile_is_ignored(tmp_path):
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    plain = read_photo(saved(tmp_path, image))
    assert torch.equal(read_photo(saved(tmp_path, image, icc_profile=b"no profile at all")), plain)


@pytest.mark.parametrize(
    "error", [struct.error, TypeError, ValueError, OverflowError, IndexError, KeyError, EOFError, zlib.error, OSError]
)
def test_errors_of_decoders_become_one_error_type(error, tmp_path, monkeypatch):
    def fails(*_args, **_kwargs):
        raise error("odd bytes")

    path = saved(tmp_path, Image.new("RGB", (4, 2)))
    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(PhotoError, match=r"photo.png cannot be read as a photo \('?odd bytes'?\); it may be"):
        read_photo(path)


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def fails(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied", "photo.png")

    path = saved(tmp_path, Image.new("RGB", (4, 2)))
    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(PhotoError, match=r"photo.png cannot be read \(Permission denied\); "):
        read_photo(path)


def test_no_warnings_for_a_good_photo(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (4, 2)), "photo.jpg", exif=Image.Exif())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_photo(path)


def test_shrinks_but_never_enlarges(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (451, 300)))
    assert read_photo(path, longer_side=192).shape == (3, 128, 192)
    assert read_photo(path, longer_side=999).shape == (3, 300, 451)


def test_a_longer_side_below_one_pixel_is_an_error(tmp_path):
    file = saved(tmp_path, Image.new("RGB", (4, 2)))
    for side in (0, -3, float("nan")):
        with pytest.raises(ValueError, match="longer_side is .*; expected at least 1 pixel"):
            read_photo(file, longer_side=side)


def test_files_that_are_no_photos(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.png is not a file; expected a photo"):
        read_photo(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(PhotoError, match=r"text.png cannot be read as a photo .*export it as PNG"):
        read_photo(tmp_path / "text.png")
    noise = Image.fromarray(np.random.randint(0, 255, (64, 64, 3), np.uint8))
    for name in ("photo.png", "photo.jpg"):
        whole = saved(tmp_path, noise, name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(PhotoError, match="cannot be read as a photo .*truncated"):
            read_photo(tmp_path / name)


def test_an_oversized_photo_is_an_error(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PhotoError, match="cannot be read as a photo"):
        read_photo(path)


def test_to_hwc_takes_maps_as_they_come():
    maps = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    array = to_hwc(maps, 1)
    assert array.shape == (4, 5, 3)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[..., 2], maps[1, 2].detach().numpy(), rtol=1e-6)
    assert to_hwc(torch.zeros(4, 5)).shape == (4, 5, 1)
    with pytest.raises(ValueError, match=r"maps have shape \(5,\).*Reshape rows of pixels to \(C, H, W\)"):
        to_hwc(torch.zeros(5))


def test_centre_crop_keeps_the_middle():
    photo = torch.zeros(3, 4, 8)
    photo[:, :, 2:6] = torch.arange(1.0, 5.0) / 8  # columns 2 to 5 are the middle square
    torch.testing.assert_close(centre_crop(photo, 4, crop=1), photo[:, :, 2:6], rtol=0, atol=1e-6)
    torch.testing.assert_close(centre_crop(photo.mT, 4, crop=1), photo[:, :, 2:6].mT, rtol=0, atol=1e-6)
    torch.testing.assert_close(centre_crop(photo, 2, crop=0.5), photo[:, 1:3, 3:5], rtol=0, atol=1e-6)


def test_centre_crop_is_pillows_bicubic(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 91, 3), np.uint8)
    expected = Image.fromarray(pixels).resize((49, 32), Image.Resampling.BICUBIC).crop((10, 2, 38, 30))
    photo = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = torch.from_numpy(np.array(expected)).permute(2, 0, 1) / 255
    difference = (centre_crop(photo, 28) - expected).abs() * 255
    assert difference.max() < 4  # Pillow rounds and clips between its two passes, and noise overshoots
    assert difference.mean() < 0.5


@pytest.mark.parametrize("shape", [(3, 5, 300), (3, 300, 5), (1, 1, 1), (2, 3, 41, 77)])
def test_centre_crop_of_any_shape_lies_in_range(shape):
    photo = (torch.rand(shape) > 0.5).float()  # sharp edges overshoot
    square = centre_crop(photo, 17)
    assert square.shape == (*shape[:-2], 17, 17)
    assert 0 <= square.min() <= square.max() <= 1


def test_centre_crop_takes_masks_along():
    masks = torch.zeros(1, 40, 60, dtype=torch.bool)
    masks[:, 10:30, 20:40] = True
    assert (centre_crop(masks.float(), 20, crop=1) > 0.5).sum() == 100


def test_centre_crop_refuses_invalid_input():
    for wrong in (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4), torch.zeros(3, 0, 4)):
        with pytest.raises(
            ValueError, match=r"image is torch.\w+ of shape .*; expected floats in \[0, 1\].*convert masks with .float"
        ):
            centre_crop(wrong, 2)
    for size, crop in ((0, 1.0), (2, 0.0), (2, 1.5)):
        with pytest.raises(
            ValueError, match=f"size is {size} and crop is {crop}; expected a size of at least 1 and a crop in"
        ):
            centre_crop(torch.zeros(3, 4, 4), size, crop)


def test_images_are_checked_once():
    x = torch.rand(2, 1, 5, 7, requires_grad=True)
    checked = check_images((x,))
    assert torch.equal(checked, x) and not checked.requires_grad
    assert checked.data_ptr() == x.data_ptr(), "not copied"
    with torch.inference_mode():
        there = torch.rand(1, 3, 4, 4)
    assert not check_images(there).is_inference()
    assert check_images(x.detach().bfloat16()).dtype == torch.bfloat16


def test_a_little_outside_is_clamped_with_a_warning():
    x = torch.tensor([-0.1, 0.5, 1.2]).reshape(1, 1, 1, 3)
    with pytest.warns(UserWarning, match=r"images lie in \[-0.1, 1.2\] and are clamped to \[0, 1\]"):
        assert check_images(x).flatten().tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        ([torch.rand(1, 3, 2, 2)], TypeError, "inputs are a list; expected one tensor of images"),
        ((torch.rand(1, 3, 2, 2),) * 2, TypeError, "inputs are a tuple; expected one tensor"),
        (np.zeros((1, 3, 2, 2)), TypeError, "inputs are a ndarray; expected one tensor"),
        (torch.rand(3, 2, 2), ValueError, r"images have shape \(3, 2, 2\): expected \(N, C, H, W\)"),
        (torch.rand(0, 3, 2, 2), ValueError, r"shape \(0, 3, 2, 2\): no rows to explain"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), ValueError, r"images are torch.uint8; .*images.float\(\) / 255"),
        (torch.full((1, 3, 2, 2), float("nan")), ValueError, "images hold NaN or infinity; expected finite values"),
        (torch.full((1, 3, 2, 2), float("inf")), ValueError, "images hold NaN or infinity; expected finite values"),
        (torch.full((1, 3, 2, 2), -0.6), ValueError, r"images lie in \[-0.6, -0.6\]; expected \[0, 1\].*preprocess="),
        (torch.full((1, 3, 2, 2), 255.0), ValueError, r"images lie in \[255, 255\]; .*divide bytes by 255"),
    ],
)
def test_invalid_images_raise_errors(images, error, text):
    with pytest.raises(error, match=text):
        check_images(images)


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


def shows(path, expected):
    read = read_photo(path)
    torch.testing.assert_close(read, torch.from_numpy(expected.copy()).permute(2, 0, 1).float() / 255)


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


def test_an_odd_tag_of_a_tiff_is_ignored(tmp_path):
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


def photo_values_tiff(values, *, photometric=1, signed=False, extra=None, order="<"):
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
    (tmp_path / "grey.tif").write_bytes(photo_values_tiff(values, **kind))
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
    whole = bytearray(photo_values_tiff(np.zeros((1, 3), np.uint8)))
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
        (np.array([[0.0, np.nan, 1]], np.float32), "holds NaN or infinity in 1 of 3 pixels; expected finite values"),
        (np.array([[0.0, -np.inf, np.inf]], np.float32), "holds NaN or infinity in 2 of 3 pixels"),
        (np.array([[0, 100, 255]], np.float32), "holds floats from 0 to 255; the file does not define which value is"),
        (np.array([[-1, 0, 1]], np.float32), "holds floats from -1 to 1; the file"),
        (np.array([[0, 100, 255]], np.int32), "holds signed 32-bit integers from 0 to 255; the file does not define"),
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
    (tmp_path / "a.tif").write_bytes(photo_values_tiff(np.array([[[100, 102], [9, 0], [51, 255]]], np.uint8), extra=2))
    straight = read_photo(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(photo_values_tiff(np.array([[[40, 102], [0, 0], [51, 255]]], np.uint8), extra=1))
    premultiplied = read_photo(tmp_path / "a.tif")
    expected = torch.tensor([0.4 * 100 / 255 + 0.6, 1, 0.2])
    for photo in (straight, premultiplied):
        torch.testing.assert_close(photo[1, 0], expected, atol=0.5 / 255, rtol=0)
    colours = np.array([[[40, 0, 0, 102], [0, 0, 0, 0]]], np.uint8)
    (tmp_path / "a.tif").write_bytes(photo_values_tiff(colours, photometric=2, extra=1))
    torch.testing.assert_close(
        read_photo(tmp_path / "a.tif")[:, 0],
        torch.tensor([[expected[0], 1], [0.6, 1], [0.6, 1]]),
        atol=0.5 / 255,
        rtol=0,
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
