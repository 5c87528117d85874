import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum import zoo
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.inputs import (
    crop_squares,
    is_video,
    load_photo,
    load_small_images,
    load_video,
    natural_images,
    network_size,
    photo_files,
    read_masks,
    video_names,
    with_channels,
)
from xinc_captum.images import PhotoError
from xinc_captum.store import bundle, sha256
from xinc_captum.videos import VideoError
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
    assert found.names == ("b", "a", "c") and found.images.shape == (3, 3, 8, 12)
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
    monkeypatch.setattr("xinc_captum.cli.inputs.MOST_IMAGES", 1)
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


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (20, 12), (60 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


def test_what_counts_as_a_video(frames, tmp_path):
    stills = [Image.new("L", (8, 8), shade) for shade in (0, 200)]
    stills[0].save(tmp_path / "moves.gif", save_all=True, append_images=stills[1:])
    stills[0].save(tmp_path / "still.gif")
    (tmp_path / "clip.MP4").write_bytes(b"x")
    (tmp_path / "broken.gif").write_bytes(b"x")
    yes = [frames, tmp_path / "moves.gif", tmp_path / "clip.MP4", *video_names()]
    no = [tmp_path / "still.gif", tmp_path / "broken.gif", frames / "0.png", "coffee", tmp_path / "nothing.mp4"]
    assert all(is_video(str(name)) for name in yes)
    assert not any(is_video(str(name)) for name in no)


def test_a_folder_is_read_shrunk_and_hashed(frames):
    film = load_video(str(frames), 3, 16, None)
    assert film.frames.shape == (3, 3, 8, 16)
    assert film.frames[:, 0].mean((1, 2)).tolist() == pytest.approx([0, 60 / 255, 120 / 255])
    assert (film.name, film.masks, film.flow) == ("clip", None, None)
    assert len(film.origin["clip"]) == 64
    assert load_video(str(frames), 2, 16, None).origin != film.origin


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((144, 176), 88, (72, 88)), ((272, 640), 96, (40, 96)), ((5, 5), 96, (8, 8)), ((1080, 1920), 96, (56, 96))],
)
def test_sides_are_multiples_of_eight(size, side, expected):
    assert network_size(*size, side) == expected


def test_the_sprite_has_masks_and_flow():
    film = load_video("sprite", 5, None, None)
    assert film.frames.shape == (5, 3, 64, 96)
    assert film.masks.shape == (5, 2, 64, 96) and film.flow.shape == (4, 2, 64, 96)
    assert film.flow.norm(dim=1).amax().item() == pytest.approx(26**0.5)
    assert film.objects == ("the green disc", "the blue disc")


def test_clips_of_fixed_size_and_masks_raise(tmp_path):
    for name in ("sprite", "carphone_nerv"):
        with pytest.raises(UsageError, match=f"--size does not apply to {name}"):
            load_video(name, 5, 64, None)
    with pytest.raises(UsageError, match="--masks does not apply to sprite, whose masks are known"):
        load_video("sprite", 5, None, tmp_path)


def test_videos_that_cannot_be_read(tmp_path, frames, monkeypatch):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 50)
    with pytest.raises(VideoError, match=r"bad.mp4: frame 0 cannot be decoded .*no video"):
        load_video(str(tmp_path / "bad.mp4"), 5, None, None)
    Image.new("RGB", (10, 10)).save(frames / "2.png")
    with pytest.raises(VideoError, match="frame 2 has 10 x 10 pixels and the frames before it have 20 x 12"):
        load_video(str(frames), 5, None, None)
    for i in (1, 2, 3):
        (frames / f"{i}.png").unlink()
    with pytest.raises(
        UsageError,
        match=r"has a single frame; expected at least 2 for a video. For a photo: xinc canvas .*clip/0\.png$",
    ):
        load_video(str(frames), 5, None, None)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'xinc-captum\[video\]'"):
        load_video(str(tmp_path / "bad.mp4"), 5, None, None)


def test_masks_are_resized_with_the_video(frames, tmp_path):
    for i in range(4):
        for thing in ("ball", "box"):
            (tmp_path / "masks" / thing).mkdir(parents=True, exist_ok=True)
            mask = Image.new("L", (20, 12))
            mask.paste(255, (0, 0, 10, 12) if thing == "ball" else (10, 0, 20, 12))
            mask.save(tmp_path / "masks" / thing / f"{i}.png")
    film = load_video(str(frames), 3, None, tmp_path / "masks")
    assert film.objects == ("ball", "box")
    assert film.masks.shape == (3, 2, *film.frames.shape[2:])
    assert torch.equal(film.masks[:, 0], ~film.masks[:, 1])
    assert {"masks of ball", "masks of box"} < set(film.origin)


FRAMES = torch.zeros(3, 3, 8, 16)
FULL = (16, 32)


def write_masks(folder, count=3, size=(32, 16), box=(0, 0, 16, 16), value=255):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = Image.new("L", size)
        mask.paste(value, box)
        mask.save(folder / f"{i}.png")
    return folder


def test_a_flat_folder_is_one_object(tmp_path):
    found = read_masks(write_masks(tmp_path / "disc"), FRAMES, FULL, cut=False)
    assert list(found) == ["disc"]
    assert found["disc"].shape == (3, 8, 16) and found["disc"].dtype == torch.bool
    assert found["disc"][:, :, :8].all() and not found["disc"][:, :, 8:].any()


def test_masks_of_the_resized_size_are_unchanged(tmp_path):
    found = read_masks(write_masks(tmp_path / "disc", size=(16, 8), box=(3, 2, 5, 4)), FRAMES, FULL, cut=False)["disc"]
    assert found.flatten(1).sum(1).tolist() == [4, 4, 4]


def test_folders_are_objects_in_the_order_of_their_names(tmp_path):
    write_masks(tmp_path / "b")
    write_masks(tmp_path / "a", box=(16, 0, 32, 16))
    found = read_masks(tmp_path, FRAMES, FULL, cut=False)
    assert list(found) == ["a", "b"]
    assert not (found["a"] & found["b"]).any()


def test_of_a_longer_video_the_first_masks_are_used(tmp_path):
    folder = write_masks(tmp_path / "disc", 5)
    assert len(read_masks(folder, FRAMES, FULL, cut=True)["disc"]) == 3
    with pytest.raises(UsageError, match="has 5 masks for 3 frames; expected one a frame"):
        read_masks(folder, FRAMES, FULL, cut=False)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ({"count": 2}, "has 2 masks for 3 frames; expected one a frame.*not visible, its mask is black"),
        ({"size": (20, 20)}, "are 20 x 20 pixels and the video is 32 x 16; expected the video's size"),
        ({"value": 1}, r"are black in all 3 frames; expected white \(not 1 of 255\)"),
        ({"box": (0, 0, 0, 0)}, "are black in all 3 frames"),
        ({"count": 0}, "the masks of 'disc' cannot be used: .* holds no photos"),
    ],
)
def test_masks_that_do_not_match(tmp_path, made, text):
    with pytest.raises(UsageError, match=text):
        read_masks(write_masks(tmp_path / "disc", **made), FRAMES, FULL, cut=True)


def test_a_file_instead_of_a_folder_of_masks_raises(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="mask.png is not a folder; expected one image per frame"):
        read_masks(tmp_path / "mask.png", FRAMES, FULL, cut=True)


def test_a_transparent_background_is_not_the_object(tmp_path):
    folder = write_masks(tmp_path / "disc")
    for file in folder.iterdir():
        mask = Image.open(file)
        white = Image.new("L", mask.size, 255)
        Image.merge("LA", (white, mask)).save(file)
    with pytest.raises(UsageError, match="disc are white in all 3 frames; expected .* not transparent: transparency"):
        read_masks(folder, FRAMES, FULL, cut=False)


def test_masks_of_unknown_range_raise(tmp_path):
    folder = write_masks(tmp_path / "disc")
    for file in list(folder.iterdir()):
        Image.open(file).convert("I").save(file.with_suffix(".tif"))
        file.unlink()
    with pytest.raises(UsageError, match="the masks of 'disc' cannot be used: .*0.tif holds signed 32-bit integers"):
        read_masks(folder, FRAMES, FULL, cut=False)
