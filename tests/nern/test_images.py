from itertools import islice

import pytest
import torch

from xinc_captum.attributions.nern.images import batches, checked, held_out
from xinc_captum.attributions.nern.recipe import Recipe

IMAGES = torch.arange(10.0).view(10, 1, 1, 1)


def test_every_image_comes_once_before_any_comes_again():
    stream = batches(IMAGES, Recipe(batch_size=5))
    first, again = (torch.cat(list(islice(stream, 2))).flatten().sort().values for _ in range(2))
    assert torch.equal(first, IMAGES.flatten()) and torch.equal(again, IMAGES.flatten())


def test_the_seed_alone_decides_and_the_global_stream_is_left():
    state = torch.random.get_rng_state()
    one, two, other = (
        torch.cat(list(islice(batches(IMAGES, Recipe(batch_size=4, seed=seed)), 3))) for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_noise_has_the_range_and_shape_asked_for():
    recipe = Recipe(batch_size=50, noise_shape=(2, 30), noise_range=(-1.0, 4.0))
    noise = next(batches("noise", recipe))
    assert noise.shape == (50, 2, 30) and noise.min() >= -1 and noise.max() <= 4 and noise.max() - noise.min() > 4.5
    kept, looked_at = held_out("noise", 0.1, recipe)
    assert kept == "noise" and not torch.equal(looked_at, noise), "of another seed"


def test_every_picture_of_noise_has_a_range_of_its_own_and_is_drawn_anew():
    stream = batches("noise", Recipe(batch_size=200, noise_shape=(1, 30, 30), noise_range=(-1.0, 4.0)))
    noise, later = (next(stream).flatten(1) for _ in range(2))
    width = noise.amax(1) - noise.amin(1)
    assert width.mean() == pytest.approx(5 / 3, abs=0.3), "of two uniform ends"
    assert width.min() < 0.3 and width.max() > 4 and noise.amin(1).max() > 2 and noise.amax(1).min() < 1
    place = (noise - noise.amin(1)[:, None]) / width[:, None]
    assert place.mean() == pytest.approx(0.5, abs=0.01) and place.std() == pytest.approx(12**-0.5, abs=0.01)
    assert not torch.equal(noise, later)


def test_a_share_is_held_out_and_nothing_is_in_both():
    kept, looked_at = held_out(IMAGES, 0.3, Recipe())
    assert len(kept) == 7 and len(looked_at) == 3
    assert sorted([*kept.flatten().tolist(), *looked_at.flatten().tolist()]) == IMAGES.flatten().tolist()
    assert held_out(IMAGES, 0.0, Recipe())[1] is None
    given = torch.ones(2, 1, 1, 1)
    assert held_out(IMAGES, given, Recipe())[1] is given


def test_a_loader_gives_its_first_tensor_again_and_again():
    stream = batches([(IMAGES[:2], torch.zeros(2)), [IMAGES[2:4]]], Recipe())
    assert torch.equal(torch.cat(list(islice(stream, 3))), torch.cat([IMAGES[:4], IMAGES[:2]]))
    assert next(batches(None, Recipe())) is None


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: checked(torch.arange(3)), TypeError, "images are torch.int64; wanted a float tensor"),
        (lambda: checked([1.0]), TypeError, "images are list; wanted a float tensor"),
        (lambda: checked(torch.zeros(0, 3)), ValueError, r"images have shape \(0, 3\); wanted"),
        (lambda: checked(torch.tensor([[1.0], [float("nan")]])), ValueError, "NaN or infinite values in 1 of 2"),
        (lambda: held_out(IMAGES, 1.0, Recipe()), ValueError, r"validation is 1.0; wanted images, or a share"),
        (lambda: batches("photos", Recipe()), ValueError, "images is 'photos'; wanted"),
        (lambda: batches("noise", Recipe()), ValueError, "needs noise_shape="),
        (lambda: batches(3, Recipe()), TypeError, "images is a int; wanted"),
        (lambda: next(batches(iter([]), Recipe())), ValueError, "the loader of images is empty, or gave its batches"),
    ],
)
def test_images_that_cannot_be(call, error, says):
    with pytest.raises(error, match=says):
        call()
