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
def test_whatever_a_decoder_raises_is_one_kind_of_error(error, tmp_path, monkeypatch):
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
        with pytest.raises(ValueError, match="longer_side is .*; wanted at least 1 pixel"):
            read_photo(file, longer_side=side)


def test_files_that_are_no_photos(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.png is not a file; wanted a photo"):
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
    with pytest.raises(ValueError, match=r"maps have shape \(5,\).*reshape to \(C, H, W\)"):
        to_hwc(torch.zeros(5))


def test_centre_crop_keeps_the_middle():
    photo = torch.zeros(3, 4, 8)
    photo[:, :, 2:6] = torch.arange(1.0, 5.0) / 8  # columns 2 to 5 are the middle square
    torch.testing.assert_close(centre_crop(photo, 4, crop=1), photo[:, :, 2:6], rtol=0, atol=1e-6)
    torch.testing.assert_close(centre_crop(photo.mT, 4, crop=1), photo[:, :, 2:6].mT, rtol=0, atol=1e-6)
    torch.testing.assert_close(centre_crop(photo, 2, crop=0.5), photo[:, 1:3, 3:5], rtol=0, atol=1e-6)


def test_centre_crop_is_pillows_bicubic(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 91, 3), np.uint8)
    wanted = Image.fromarray(pixels).resize((49, 32), Image.Resampling.BICUBIC).crop((10, 2, 38, 30))
    photo = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    wanted = torch.from_numpy(np.array(wanted)).permute(2, 0, 1) / 255
    difference = (centre_crop(photo, 28) - wanted).abs() * 255
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


def test_centre_crop_says_what_it_wants():
    for wrong in (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4), torch.zeros(3, 0, 4)):
        with pytest.raises(
            ValueError, match=r"image is torch.\w+ of shape .*; wanted floats in \[0, 1\].*masks want .float"
        ):
            centre_crop(wrong, 2)
    for size, crop in ((0, 1.0), (2, 0.0), (2, 1.5)):
        with pytest.raises(
            ValueError, match=f"size is {size} and crop is {crop}; wanted a size of at least 1 and a crop in"
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
        ([torch.rand(1, 3, 2, 2)], TypeError, "inputs are a list; wanted one tensor of images"),
        ((torch.rand(1, 3, 2, 2),) * 2, TypeError, "inputs are a tuple; wanted one tensor"),
        (np.zeros((1, 3, 2, 2)), TypeError, "inputs are a ndarray; wanted one tensor"),
        (torch.rand(3, 2, 2), ValueError, r"images have shape \(3, 2, 2\): wanted \(N, C, H, W\)"),
        (torch.rand(0, 3, 2, 2), ValueError, r"shape \(0, 3, 2, 2\): no rows to explain"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), ValueError, r"images are torch.uint8; .*images.float\(\) / 255"),
        (torch.full((1, 3, 2, 2), float("nan")), ValueError, "images hold NaN or infinity; wanted finite values"),
        (torch.full((1, 3, 2, 2), float("inf")), ValueError, "images hold NaN or infinity; wanted finite values"),
        (torch.full((1, 3, 2, 2), -0.6), ValueError, r"images lie in \[-0.6, -0.6\]; wanted \[0, 1\].*preprocess="),
        (torch.full((1, 3, 2, 2), 255.0), ValueError, r"images lie in \[255, 255\]; .*divide bytes by 255"),
    ],
)
def test_what_no_image_is(images, error, text):
    with pytest.raises(error, match=text):
        check_images(images)
