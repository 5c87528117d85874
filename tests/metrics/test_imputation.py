import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import noisy_linear_imputation


def solved(image, removed):
    """The same system written out and given to numpy, one pixel's neighbours at a time."""
    (high, wide), channels = removed.shape, len(image)
    places = {place: i for i, place in enumerate(map(tuple, removed.nonzero().tolist()))}
    left, right = np.zeros((len(places),) * 2), np.zeros((len(places), channels))
    for (y, x), i in places.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                near = y + down, x + across
                if (down, across) == (0, 0) or not (0 <= near[0] < high and 0 <= near[1] < wide):
                    continue
                weight = 1 / 12 if down and across else 1 / 6
                left[i, i] += weight
                if near in places:
                    left[i, places[near]] -= weight
                else:
                    right[i] += weight * image[:, near[0], near[1]].numpy()
    whole = image.clone()
    whole[:, removed] = torch.from_numpy(np.linalg.solve(left, right).T)
    return whole


@given(st.integers(0, 99), st.floats(0.05, 0.95))
def test_it_is_the_solution_of_the_written_out_system(seed, share):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 7, 9, dtype=torch.float64, generator=generator)
    removed = torch.rand(2, 7, 9, generator=generator) < share
    removed[:, 3, 4] = False
    filled = noisy_linear_imputation(image, removed, noise=0.0, tolerance=1e-13)
    for row in range(2):
        torch.testing.assert_close(filled[row], solved(image[row], removed[row]), atol=1e-9, rtol=0)


def test_what_stays_is_untouched_and_what_goes_does_not_matter():
    image, removed = torch.rand(1, 3, 16, 16), torch.rand(1, 16, 16) < 0.5
    filled = noisy_linear_imputation(image, removed)
    gone = removed[:, None].expand_as(image)
    assert torch.equal(filled[~gone], image[~gone])
    other = torch.where(gone, torch.rand_like(image), image)
    torch.testing.assert_close(noisy_linear_imputation(other, removed), filled, atol=2e-3, rtol=0)


def test_a_plane_is_filled_in_exactly():
    plane = torch.linspace(0, 1, 24)[None, None, None, :].expand(1, 1, 24, 24).clone()
    removed = torch.zeros(1, 24, 24, dtype=torch.bool)
    removed[:, 4:20, 4:20] = True
    torch.testing.assert_close(noisy_linear_imputation(plane, removed, noise=0.0), plane, atol=5e-3, rtol=0)


def test_the_noise_is_the_rows_own():
    image, removed = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8) < 0.5
    state = torch.get_rng_state()
    both = noisy_linear_imputation(image, removed, noise=0.1)
    torch.testing.assert_close(noisy_linear_imputation(image[:1], removed[:1], noise=0.1), both[:1], atol=1e-3, rtol=0)
    assert not torch.equal(noisy_linear_imputation(image, removed, noise=0.1, seed=1), both)
    spread = (both - noisy_linear_imputation(image, removed, noise=0.0))[removed[:, None].expand_as(image)]
    assert 0.05 < spread.std() < 0.2
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_fit_is_said():
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"removed has shape \(4, 4\); wanted floats \(N, C, H, W\), and \(N, H, W\)"):
        noisy_linear_imputation(image, torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"removed is torch.float32; wanted bool"):
        noisy_linear_imputation(image, torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"all pixels of an image are removed; wanted at least one"):
        noisy_linear_imputation(image, torch.ones(1, 4, 4, dtype=torch.bool))


@pytest.mark.cuda
def test_on_a_gpu():
    image, removed = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16) < 0.5
    there = noisy_linear_imputation(image.cuda(), removed.cuda())
    torch.testing.assert_close(there.cpu(), noisy_linear_imputation(image, removed), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_solved_in_float32(dtype):
    images, removed = torch.rand(2, 3, 16, 16).to(dtype), torch.rand(2, 16, 16) < 0.5
    found = noisy_linear_imputation(images, removed, noise=0.0)
    assert found.dtype == dtype
    assert torch.equal(found, noisy_linear_imputation(images.float(), removed, noise=0.0).to(dtype))
