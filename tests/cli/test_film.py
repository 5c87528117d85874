import pytest
import torch
from PIL import Image

from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.film import drawn_size, film_called, film_names, is_film
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
    yes = [frames, tmp_path / "moves.gif", tmp_path / "clip.MP4", *film_names()]
    no = [tmp_path / "still.gif", tmp_path / "broken.gif", frames / "0.png", "coffee", tmp_path / "nothing.mp4"]
    assert all(is_film(str(name)) for name in yes)
    assert not any(is_film(str(name)) for name in no)


def test_a_folder_is_read_shrunk_and_hashed(frames):
    film = film_called(str(frames), 3, 16, None)
    assert film.frames.shape == (3, 3, 8, 16)
    assert film.frames[:, 0].mean((1, 2)).tolist() == pytest.approx([0, 60 / 255, 120 / 255])
    assert (film.name, film.masks, film.flow) == ("clip", None, None)
    assert len(film.origin["clip"]) == 64
    assert film_called(str(frames), 2, 16, None).origin != film.origin


@pytest.mark.parametrize(
    ("size", "side", "wanted"),
    [((144, 176), 88, (72, 88)), ((272, 640), 96, (40, 96)), ((5, 5), 96, (8, 8)), ((1080, 1920), 96, (56, 96))],
)
def test_sides_are_multiples_of_eight(size, side, wanted):
    assert drawn_size(*size, side) == wanted


def test_the_sprite_brings_masks_and_flow():
    film = film_called("sprite", 5, None, None)
    assert film.frames.shape == (5, 3, 64, 96)
    assert film.masks.shape == (5, 2, 64, 96) and film.flow.shape == (4, 2, 64, 96)
    assert film.flow.norm(dim=1).amax().item() == pytest.approx(26**0.5)
    assert film.objects == ("the green disc", "the blue disc")


def test_clips_that_have_their_own_size_and_masks_say_so(tmp_path):
    for name in ("sprite", "carphone_nerv"):
        with pytest.raises(UsageError, match=f"--size cannot be changed for {name}"):
            film_called(name, 5, 64, None)
    with pytest.raises(UsageError, match="--masks cannot be given for sprite, whose masks are known"):
        film_called("sprite", 5, None, tmp_path)


def test_videos_that_cannot_be_read(tmp_path, frames, monkeypatch):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 50)
    with pytest.raises(VideoError, match=r"bad.mp4: frame 0 cannot be decoded .*no video"):
        film_called(str(tmp_path / "bad.mp4"), 5, None, None)
    Image.new("RGB", (10, 10)).save(frames / "2.png")
    with pytest.raises(VideoError, match="frame 2 is 10 x 10 pixels and those before it are 20 x 12"):
        film_called(str(frames), 5, None, None)
    for i in (1, 2, 3):
        (frames / f"{i}.png").unlink()
    with pytest.raises(
        UsageError, match=r"has a single frame.* at least 2. Its canvases as a photo: xinc canvas .*clip/0\.png$"
    ):
        film_called(str(frames), 5, None, None)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'xinc-captum\[video\]'"):
        film_called(str(tmp_path / "bad.mp4"), 5, None, None)


def test_masks_come_along(frames, tmp_path):
    for i in range(4):
        for thing in ("ball", "box"):
            (tmp_path / "masks" / thing).mkdir(parents=True, exist_ok=True)
            mask = Image.new("L", (20, 12))
            mask.paste(255, (0, 0, 10, 12) if thing == "ball" else (10, 0, 20, 12))
            mask.save(tmp_path / "masks" / thing / f"{i}.png")
    film = film_called(str(frames), 3, None, tmp_path / "masks")
    assert film.objects == ("ball", "box")
    assert film.masks.shape == (3, 2, *film.frames.shape[2:])
    assert torch.equal(film.masks[:, 0], ~film.masks[:, 1])
    assert {"masks of ball", "masks of box"} < set(film.origin)
