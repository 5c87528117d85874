import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum import zoo
from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.small_pictures import small_called, with_channels
from xinc_captum.images import PhotoError
from xinc_captum.zoo import LabelledImages


def put(path, size=(12, 8), colour=(40, 200, 90)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_files_and_folders_in_order(tmp_path):
    put(tmp_path / "many" / "b.png", colour=(0, 0, 255))
    put(tmp_path / "many" / "deeper" / "a.png")
    (tmp_path / "many" / "note.txt").write_text("no picture")
    one = put(tmp_path / "c.png", colour=(255, 0, 0))
    found = small_called([str(tmp_path / "many"), str(one)], None)
    assert found.names == ("b", "a", "c") and found.images.shape == (3, 3, 8, 12) and found.size == (8, 12)
    assert found.images[2, :, 0, 0].tolist() == [1, 0, 0] and found.name == "3 pictures"
    assert small_called([str(tmp_path / "many")], None).name == "many"


def test_grey_pictures_have_one_channel(tmp_path):
    put(tmp_path / "a.png", colour=(51, 51, 51))
    put(tmp_path / "b.png", colour=(102, 102, 102))
    images = small_called([str(tmp_path)], None).images
    assert images.shape == (2, 1, 8, 12)
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([0.2, 0.4]))


def test_the_middle_square_of_each_in_one_size(tmp_path):
    put(tmp_path / "a.png", (90, 60))
    put(tmp_path / "b.png", (20, 30))
    assert small_called([str(tmp_path)], 16).images.shape == (2, 3, 16, 16)


def test_the_digits_of_the_zoo(monkeypatch):
    digits = LabelledImages("mnist", torch.rand(4, 1, 28, 28), torch.tensor([0, 0, 3, 9]), tuple("0123456789"))
    monkeypatch.setattr(zoo, "mnist_digits", lambda: digits)
    found = small_called(["mnist_digits"], None)
    assert found.images is digits.images and found.names == ("0, number 0", "0, number 1", "3, number 2", "9, number 3")
    with pytest.raises(UsageError, match="--size cannot be changed for mnist_digits, which are 28 x 28"):
        small_called(["mnist_digits"], 16)


def test_what_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere is no file or folder; wanted small pictures"):
        small_called(["nowhere"], None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty holds no pictures; give a folder that does, or mnist_digits"):
        small_called([str(tmp_path / "empty")], None)
    put(tmp_path / "a.png")
    put(tmp_path / "b.png", (10, 10))
    with pytest.raises(UsageError, match=r"several sizes \(high x wide\): a.png is 8 x 12, b.png 10 x 10; say --size"):
        small_called([str(tmp_path)], None)
    large = put(tmp_path / "large" / "c.png", (400, 300))
    with pytest.raises(UsageError, match=r"c.png is 300 x 400 pixels .* at most 64; say --size 32"):
        small_called([str(large)], None)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"broken.png cannot be read as a photo"):
        small_called([str(tmp_path / "broken.png")], None)
    monkeypatch.setattr("xinc_captum.cli.small_pictures.MOST", 1)
    with pytest.raises(UsageError, match="there are 2 pictures; wanted at most 1: give a part of them"):
        small_called([str(tmp_path / "a.png"), str(tmp_path / "b.png")], None)


def test_values_that_are_not_finite(tmp_path):
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(PhotoError, match=r"a.tif holds NaN or infinity in 1 of 64 pixels; wanted finite values"):
        small_called([str(tmp_path / "a.tif")], None)


def test_channels_that_a_model_takes():
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    assert with_channels(grey, 1, "m") is grey and with_channels(colour, 3, "m") is colour
    torch.testing.assert_close(with_channels(grey, 3, "m"), grey.repeat(1, 3, 1, 1))
    with pytest.raises(UsageError, match="the pictures are in colour, and m draws 1 channel; give a --model that was"):
        with_channels(colour, 1, "m")
    with pytest.raises(UsageError, match="the pictures are grey, and m draws 2 channels"):
        with_channels(grey, 2, "m")
