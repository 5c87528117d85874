import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.cli.ends import ends_called
from xinc_captum.cli.starts import drawn, fitting, starts_called
from xinc_captum.images import PhotoError
from xinc_captum.store import sha256


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
    fitted = fitting(photo(tmp_path / "red.png", red), (1, 8, 8))
    torch.testing.assert_close(fitted, torch.full((1, 8, 8), 1 / 3), atol=0.04, rtol=0)


def test_wide_and_tall_pictures_take_a_strip_of_the_middle_square(tmp_path):
    bands = np.zeros((80, 80, 3))
    bands[:16, :, 0], bands[16:64, :, 1], bands[64:, :, 2] = 255, 255, 255  # a fifth, three fifths, a fifth
    path = photo(tmp_path / "bands.png", bands)
    wide, tall = fitting(path, (3, 4, 10)), fitting(path, (3, 10, 4))
    assert wide.shape == (3, 4, 10) and tall.shape == (3, 10, 4)
    assert wide[1].min() > 0.95 and wide[[0, 2]].max() < 0.05, "only the band of the middle is in a wide strip"
    assert tall[0, 0].min() > 0.95 and tall[1, 4:6].min() > 0.95 and tall[2, 9].min() > 0.95, "all are in a tall one"


def test_small_photos_are_enlarged(tmp_path):
    fitted = fitting(photo(tmp_path / "dot.png", np.full((2, 2, 3), 255)), (3, 8, 8))
    torch.testing.assert_close(fitted, torch.ones(3, 8, 8))


def test_photos_have_their_own_names_and_answers(ends, tmp_path):
    above = bright_above(tmp_path / "bright_above.png")
    below = photo(tmp_path / "below.png", np.asarray(Image.open(above))[::-1])
    starts = starts_called(ends, [above, below], 7, 0.7, 0)
    assert starts.pictures.shape == (2, 1, 8, 8) and starts.names == ("bright_above", "below")
    assert starts.pictures[0, 0, :4].mean() > 0.9 and starts.pictures[0, 0, 4:].mean() < 0.1
    assert starts.answers.tolist() == [0, 1]
    assert starts.inputs == {path.name: sha256(path) for path in (above, below)}


def test_two_photos_of_one_name_are_both_kept(ends, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [bright_above(tmp_path / "a.png"), photo(tmp_path / "other" / "a.png", np.zeros((8, 8, 3)))]
    assert starts_called(ends, paths, 7, 0.7, 0).inputs == {str(path): sha256(path) for path in paths}


def test_drawn_pictures_are_named_after_what_the_network_answers(ends):
    starts = starts_called(ends, [], 6, 0.5, 0)
    assert starts.answers.tolist() == [0, 1, 2, 3, 0, 1], "class by class"
    assert starts.names[:3] == ("drawn: upper", "drawn: lower", "drawn: left")
    assert starts.inputs == {} and starts.pictures.shape == (6, 1, 8, 8)


def test_the_seed_and_the_truncation_say_what_is_drawn(ends):
    assert torch.equal(drawn(ends, 5, 0.7, 3), drawn(ends, 5, 0.7, 3))
    assert not torch.equal(drawn(ends, 5, 0.7, 3), drawn(ends, 5, 0.7, 4))
    centres = drawn(ends, 8, 0.0, 3)
    torch.testing.assert_close(centres[:4], centres[4:], msg="at truncation 0 only the four centres are left")


def test_a_generator_without_classes_draws_too(tiny):
    ends = ends_called(f"{tiny}:net", f"{tiny}:classless", None, torch.device("cpu"))
    pictures = drawn(ends, 3, 1.0, 0)
    assert pictures.shape == (3, 1, 8, 8) and not torch.equal(pictures[0], pictures[1])


def test_files_that_are_no_photos_are_said(ends, tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"notes\.png cannot be read as a photo"):
        starts_called(ends, [tmp_path / "notes.png"], 1, 0.7, 0)
    with pytest.raises(FileNotFoundError, match=r"none\.png is not a file; wanted a photo"):
        starts_called(ends, [tmp_path / "none.png"], 1, 0.7, 0)
