import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum import zoo
from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.photos import natural_images, photo_files, squares, subject_called
from xinc_captum.images import PhotoError
from xinc_captum.store import bundle, sha256


def write(path, seed=0, size=(30, 20)):
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_a_file_is_shrunk_and_its_checksum_kept(tmp_path):
    path = write(tmp_path / "my cat.png")
    subject = subject_called(str(path), 15)
    assert subject.name == "my cat" and subject.image.shape == (3, 10, 15)
    assert subject.origin == {"my cat.png": sha256(path)}


def test_a_file_goes_before_a_photo_of_the_zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "photo", lambda name: zoo.Photo(name, torch.rand(3, 40, 60)))
    subject = subject_called("chelsea", 30)
    assert subject.image.shape == (3, 20, 30) and subject.origin == {"photo of the zoo": "chelsea"}
    assert subject_called("chelsea", 100).image.shape == (3, 40, 60), "never enlarged"
    write(tmp_path / "cat.png").rename("chelsea")
    assert list(subject_called("chelsea", 30).origin) == ["chelsea"]


def test_what_is_neither_is_said():
    with pytest.raises(FileNotFoundError, match=r"no\.png is not a file; wanted a photo .*chelsea.*foolbox:00 to"):
        subject_called("no.png", 10)


def test_hidden_files_and_pictures_of_results_are_no_photos(tmp_path):
    wanted = [write(tmp_path / "b.png"), write(tmp_path / "A.JPG")]
    (tmp_path / "below").mkdir()
    wanted.append(write(tmp_path / "below" / "c.tif"))
    for name in (".cache", "folder.png"):
        (tmp_path / name).mkdir()
    write(tmp_path / ".cache" / "d.png")
    (tmp_path / "._b.png").write_bytes(b"\0\5\x16\7 of another system")
    (tmp_path / "notes.txt").write_text("no photo")
    with bundle(tmp_path / "result", {}) as made:
        write(made / "grid.png")
    assert photo_files(tmp_path) == sorted(wanted)
    assert [path.name for path in photo_files(tmp_path / "result")] == ["grid.png"], "where it is asked for by name"


def test_squares_are_the_middle_then_closer_then_the_corners():
    photo = torch.zeros(3, 40, 80)
    photo[0, :, :20], photo[1, :, 60:] = 1, 1
    middle, close, first, last = squares(photo, 10, 4)
    assert middle.shape == (3, 10, 10) and middle.max() < 0.1 and close.max() < 0.1
    assert first[0].mean() > 0.5 and first[1].max() < 0.1
    assert last[1].mean() > 0.5 and last[0].max() < 0.1
    assert len(squares(photo, 10, 1)) == 1


def test_a_folder_gives_up_to_four_squares_a_photo(tmp_path):
    (tmp_path / "below").mkdir()
    for i in range(3):
        write(tmp_path / "below" / f"{i}.JPG", i)
    (tmp_path / "notes.txt").write_text("x")
    natural = natural_images(tmp_path, 8, "")
    assert natural.images.shape == (12, 3, 8, 8)
    assert natural.words == f"12 squares out of 3 photos of {tmp_path.name}"
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


def test_a_bad_folder_is_said(tmp_path):
    with pytest.raises(UsageError, match="is no folder; give one with photos"):
        natural_images(tmp_path / "none", 8, "")
    write(tmp_path / "one.png")
    with pytest.raises(UsageError, match="holds 1 photos; wanted at least 2"):
        natural_images(tmp_path, 8, "")
    (tmp_path / "two.png").write_text("x")
    with pytest.raises(PhotoError, match=r"two\.png cannot be read"):
        natural_images(tmp_path, 8, "")
