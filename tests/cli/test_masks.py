import pytest
import torch
from PIL import Image

from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.masks import read_masks

FRAMES = torch.zeros(3, 3, 8, 16)
FULL = (16, 32)


def write(folder, count=3, size=(32, 16), box=(0, 0, 16, 16), value=255):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = Image.new("L", size)
        mask.paste(value, box)
        mask.save(folder / f"{i}.png")
    return folder


def test_a_flat_folder_is_one_object(tmp_path):
    found = read_masks(write(tmp_path / "disc"), FRAMES, FULL, cut=False)
    assert list(found) == ["disc"]
    assert found["disc"].shape == (3, 8, 16) and found["disc"].dtype == torch.bool
    assert found["disc"][:, :, :8].all() and not found["disc"][:, :, 8:].any()


def test_masks_as_large_as_the_drawing_are_taken_as_they_are(tmp_path):
    found = read_masks(write(tmp_path / "disc", size=(16, 8), box=(3, 2, 5, 4)), FRAMES, FULL, cut=False)["disc"]
    assert found.flatten(1).sum(1).tolist() == [4, 4, 4]


def test_folders_are_objects_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "b")
    write(tmp_path / "a", box=(16, 0, 32, 16))
    found = read_masks(tmp_path, FRAMES, FULL, cut=False)
    assert list(found) == ["a", "b"]
    assert not (found["a"] & found["b"]).any()


def test_of_a_longer_video_the_first_masks_count(tmp_path):
    folder = write(tmp_path / "disc", 5)
    assert len(read_masks(folder, FRAMES, FULL, cut=True)["disc"]) == 3
    with pytest.raises(UsageError, match="has 5 masks for 3 frames; wanted one a frame"):
        read_masks(folder, FRAMES, FULL, cut=False)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ({"count": 2}, "has 2 masks for 3 frames; wanted one a frame.*out of sight its mask is black"),
        ({"size": (20, 20)}, "are 20 x 20 pixels and the video is 32 x 16; wanted the video's size"),
        ({"value": 1}, r"are black at all 3 frames; wanted white \(not 1 of 255\)"),
        ({"box": (0, 0, 0, 0)}, "are black at all 3 frames"),
        ({"count": 0}, "the masks of 'disc' cannot be used: .* holds no photos"),
    ],
)
def test_masks_that_do_not_match(tmp_path, made, text):
    with pytest.raises(UsageError, match=text):
        read_masks(write(tmp_path / "disc", **made), FRAMES, FULL, cut=True)


def test_a_file_is_no_folder_of_masks(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="mask.png is not a folder; wanted one picture a frame"):
        read_masks(tmp_path / "mask.png", FRAMES, FULL, cut=True)


def test_a_transparent_background_is_not_taken_for_the_object(tmp_path):
    folder = write(tmp_path / "disc")
    for file in folder.iterdir():
        mask = Image.open(file)
        white = Image.new("L", mask.size, 255)
        Image.merge("LA", (white, mask)).save(file)
    with pytest.raises(UsageError, match="disc are white at all 3 frames; wanted .* not transparent: transparency"):
        read_masks(folder, FRAMES, FULL, cut=False)


def test_masks_whose_white_is_unknown_are_refused(tmp_path):
    folder = write(tmp_path / "disc")
    for file in list(folder.iterdir()):
        Image.open(file).convert("I").save(file.with_suffix(".tif"))
        file.unlink()
    with pytest.raises(UsageError, match="the masks of 'disc' cannot be used: .*0.tif holds signed 32-bit integers"):
        read_masks(folder, FRAMES, FULL, cut=False)
