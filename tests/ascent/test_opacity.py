import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from xinc_captum.attributions.accentuation import opacity
from xinc_captum.attributions.accentuation.opacity import blur


def test_by_hand():
    """Means over channels 0, 1, 2, 3, 4: the 75th percentile is 3, so 3 and 4 are drawn in full."""
    masks = torch.stack([torch.arange(5.0) - 1, torch.arange(5.0) - 1]).abs().reshape(1, 2, 1, 5)
    masks[0, 0, 0], masks[0, 1, 0] = torch.arange(5.0) * 2, 0
    assert opacity(masks, 75, 0).flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_the_recorded_mask(recorded):
    ours = opacity(recorded["traj_fourier_noreg_alpha"], 80, 2)
    torch.testing.assert_close(ours[0, 0], recorded["alpha_mask_p20_sigma2"], atol=1e-5, rtol=0)


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    percentile=st.floats(1, 100),
    sigma=st.floats(0.3, 4),
    seed=st.integers(0, 99),
)
def test_equals_numpy_and_scipy(height, width, percentile, sigma, seed):
    masks = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    ours = opacity(masks, percentile, sigma)
    assert ours.shape == (2, 1, height, width) and ours.min() >= 0 and ours.max() <= 1
    for mask, mine in zip(masks.mean(1).numpy(), ours[:, 0].numpy(), strict=True):
        clipped = np.minimum(mask, np.percentile(mask, percentile))
        np.testing.assert_allclose(mine, gaussian_filter(clipped / clipped.max(), sigma), atol=1e-4)


def test_a_map_smaller_than_the_blur_keeps_its_sum():
    maps = torch.rand(1, 1, 2, 3)
    assert float(blur(maps, 5.0).sum()) == pytest.approx(float(maps.sum()), rel=1e-4)


def test_nothing_felt_is_nothing_drawn():
    assert torch.equal(opacity(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("wrong", [(0, 2), (101, 2), (80, -1)])
def test_impossible_ones(wrong):
    with pytest.raises(ValueError, match=f"percentile={wrong[0]}, sigma={wrong[1]}; wanted 0 < percentile <= 100"):
        opacity(torch.ones(1, 1, 2, 2), *wrong)
