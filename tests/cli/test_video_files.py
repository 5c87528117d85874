import pytest
import torch
from PIL import Image

from xinc_captum.cli.errors import UsageError
from xinc_captum.cli.video_files import is_video, load_video, network_size, read_masks, video_names
from xinc_captum.videos import VideoError


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


def test_masks_of_the_resized_size_are_unchanged(tmp_path):
    found = read_masks(write(tmp_path / "disc", size=(16, 8), box=(3, 2, 5, 4)), FRAMES, FULL, cut=False)["disc"]
    assert found.flatten(1).sum(1).tolist() == [4, 4, 4]


def test_folders_are_objects_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "b")
    write(tmp_path / "a", box=(16, 0, 32, 16))
    found = read_masks(tmp_path, FRAMES, FULL, cut=False)
    assert list(found) == ["a", "b"]
    assert not (found["a"] & found["b"]).any()


def test_of_a_longer_video_the_first_masks_are_used(tmp_path):
    folder = write(tmp_path / "disc", 5)
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
        read_masks(write(tmp_path / "disc", **made), FRAMES, FULL, cut=True)


def test_a_file_instead_of_a_folder_of_masks_raises(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="mask.png is not a folder; expected one image per frame"):
        read_masks(tmp_path / "mask.png", FRAMES, FULL, cut=True)


def test_a_transparent_background_is_not_the_object(tmp_path):
    folder = write(tmp_path / "disc")
    for file in folder.iterdir():
        mask = Image.open(file)
        white = Image.new("L", mask.size, 255)
        Image.merge("LA", (white, mask)).save(file)
    with pytest.raises(UsageError, match="disc are white in all 3 frames; expected .* not transparent: transparency"):
        read_masks(folder, FRAMES, FULL, cut=False)


def test_masks_of_unknown_range_raise(tmp_path):
    folder = write(tmp_path / "disc")
    for file in list(folder.iterdir()):
        Image.open(file).convert("I").save(file.with_suffix(".tif"))
        file.unlink()
    with pytest.raises(UsageError, match="the masks of 'disc' cannot be used: .*0.tif holds signed 32-bit integers"):
        read_masks(folder, FRAMES, FULL, cut=False)
