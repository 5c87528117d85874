import pytest
import torch

from xinc_captum.visualizers import dose_strip

SEED = torch.rand(3, 12, 16)


def strip(doses, **more):
    return dose_strip(torch.rand(len(doses), 3, 12, 16), doses, seed=SEED, **{"title": "lion"} | more)


def words(figure):
    return [t.get_text() for t in figure.texts]


def framed(figure):
    return [axes.spines["left"].get_visible() for axes in figure.axes]


def test_from_left_to_right_with_the_photo_in_a_frame():
    figure = strip([1.0, -0.5, 0.25])
    said = [word for word in words(figure) if word.startswith("dose") and "bit for bit" not in word]
    assert said == ["dose −0.50", "dose 0", "dose 0.25", "dose 1.00"]
    assert framed(figure) == [False, True, False, False]
    assert "the photo itself" in words(figure)


def test_a_dose_of_zero_is_not_doubled():
    figure = strip([0, 1])
    assert framed(figure) == [True, False]


def test_more_or_less():
    assert "The same photo, more and more lion" in words(strip([0.5, 1]))
    assert "The same photo, less and less lion" in words(strip([-0.5]))
    assert "The same photo, from less to more lion" in words(strip([-0.5, 1]))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_no_text_lies_over_another_or_outside(count, legible):
    figure = strip([0.1 * i for i in range(1, count + 1)], notes=["mean activation 12.3 and more words"] * count)
    legible(figure)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"images have shape \(2, 3, 4, 4\) for 1 doses; wanted one a dose"):
        dose_strip(torch.rand(2, 3, 4, 4), [1], seed=torch.rand(3, 4, 4), title="x")
    with pytest.raises(ValueError, match=r"seed has shape \(3, 5, 4\); wanted that of one image, \(3, 4, 4\)"):
        dose_strip(torch.rand(1, 3, 4, 4), [1], seed=torch.rand(3, 5, 4), title="x")
    with pytest.raises(ValueError, match="2 notes for 1 doses"):
        strip([1], notes=["a", "b"])
    with pytest.raises(ValueError, match="2 labels for 1 doses"):
        strip([1], labels=["a", "b"])


def test_labels_in_place_of_doses():
    figure = strip([0.5, 1], labels=["logit 2", "logit 4"])
    assert {"logit 2", "logit 4", "the photo itself"} <= set(words(figure))
    assert not any("dose" in word for word in words(figure))
