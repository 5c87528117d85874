import pytest
import torch

from xinc_captum.visualizers import written_sheet


def test_it_shows_what_it_was_given(shows_what_it_was_given):
    def draw(g):
        images = torch.rand(4, 3, 8, 12, generator=g)
        return written_sheet(images, {"as drawn": (images / 2, [1.0] * 4), "later": (images * 0.9, [2.0] * 4)})

    shows_what_it_was_given(draw)


def test_every_picture_has_its_decibels(words):
    images = torch.rand(3, 1, 8, 8)
    figure = written_sheet(images, {"as drawn": (1 - images, [7.25, 31.04, -2.0])}, title="Three pictures")
    assert [t.get_text() for t in figure.texts][2:] == ["the picture", "as drawn", "7.2", "31.0", "-2.0"]
    assert "Three pictures" in words(figure)
    first, *_, last = (torch.as_tensor(axes.images[0].get_array()) for axes in figure.axes)
    torch.testing.assert_close(first, images[0, 0])
    torch.testing.assert_close(last, 1 - images[2, 0])


def test_what_does_not_fit_is_refused():
    images = torch.rand(3, 1, 8, 8)
    with pytest.raises(ValueError, match="'as drawn' has 3 pictures and 2 decibels for 3 images; wanted one of each"):
        written_sheet(images, {"as drawn": (images, [1.0, 2.0])})
