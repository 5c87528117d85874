import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import energy_in_mask, gini, pointing_game, top_overlap


def test_by_hand():
    maps = torch.tensor([[[3.0, 1.0]], [[0.0, 2.0]], [[0.0, 0.0]]])
    masks = torch.tensor([[[True, False]]]).expand(3, 1, 2)
    got = energy_in_mask(maps, masks)
    assert got[:2].tolist() == [0.75, 0.0]
    assert got[2].isnan(), "a map of nothing lies nowhere"
    assert energy_in_mask(maps[:1], torch.tensor([[[0.5, 1.0]]])).item() == (1.5 + 1.0) / 4


def test_a_map_without_preference_scores_the_area():
    masks = torch.rand(2, 6, 7) > 0.6
    torch.testing.assert_close(energy_in_mask(torch.full((2, 6, 7), 0.2), masks), masks.float().mean((1, 2)))


def test_rows_and_types():
    maps, masks = torch.rand(3, 300, 300), torch.rand(3, 300, 300) > 0.5
    whole = energy_in_mask(maps, masks)
    torch.testing.assert_close(energy_in_mask(maps[1:2], masks[1:2]), whole[1:2])
    half = energy_in_mask(maps.half(), masks)
    assert half.dtype == torch.float32, "sums of half numbers overflow"
    torch.testing.assert_close(half, whole, atol=1e-3, rtol=0)
    assert energy_in_mask(maps.double(), masks).dtype == torch.float64


def test_mismatched_arguments_raise_errors():
    maps = torch.rand(2, 3, 3)
    with pytest.raises(ValueError, match=r"maps have shape \(2, 3, 3\) and masks \(3, 3\); expected the same"):
        energy_in_mask(maps, torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"maps go down to -1; expected nonnegative ones.*maps.clamp_min\(0\)"):
        energy_in_mask(-torch.ones(2, 3, 3), torch.ones(2, 3, 3))
    with pytest.raises(
        ValueError, match="masks go from 255 to 255; expected bool, or weights.*divide a 0-255 mask by 255"
    ):
        energy_in_mask(maps, torch.full((2, 3, 3), 255))


def test_the_peak_is_inside_or_not():
    masks = torch.tensor([[[1.0, 0.0, 0.4]]]).expand(4, 1, 3)
    maps = torch.tensor([[[3.0, 1.0, 0.0]], [[0.0, 1.0, 2.0]], [[5.0, 5.0, 0.0]], [[torch.nan, 1.0, 0.0]]])
    hits = pointing_game(maps, masks)
    assert hits[:3].tolist() == [1.0, 0.0, 0.5] and hits[3].isnan()
    with pytest.raises(ValueError, match=r"expected the same \(N, H, W\) twice"):
        pointing_game(maps[0], masks)
    with pytest.raises(ValueError, match="masks go from 255 to 255"):
        pointing_game(maps, torch.full(maps.shape, 255))


def test_an_image_without_the_object_gives_nan():
    maps, masks = torch.rand(3, 2, 2), torch.ones(3, 2, 2)
    masks[1] = 0
    assert energy_in_mask(maps, masks).isnan().tolist() == pointing_game(maps, masks).isnan().tolist() == [0, 1, 0]
    faint = torch.full((3, 2, 2), 0.25)  # below what counts as inside
    assert pointing_game(maps, faint).isnan().all() and energy_in_mask(maps, faint).tolist() == pytest.approx(
        [0.25] * 3
    )


def test_nan_masks_raise_errors():
    for measure in (energy_in_mask, pointing_game):
        with pytest.raises(ValueError, match="masks go from nan to nan; expected bool, or weights in"):
            measure(torch.rand(1, 2, 2), torch.full((1, 2, 2), torch.nan))


def test_a_map_with_infinity_points_nowhere():
    masks = torch.tensor([[[1.0, 0.0]]])
    for value in (torch.inf, -torch.inf):
        assert pointing_game(torch.tensor([[[value, 1.0]]]), masks).isnan().all()


def test_overlap_by_hand():
    one = torch.tensor([[[9.0, 8.0, 1.0, 0.0]], [[9.0, 8.0, 1.0, 0.0]]])
    other = torch.tensor([[[2.0, 3.0, 0.0, 0.0]], [[0.0, 1.0, 2.0, 0.0]]])
    torch.testing.assert_close(top_overlap(one, other, share=0.5), torch.tensor([1.0, 1 / 3]))
    assert top_overlap(one, one).tolist() == [1.0, 1.0], "at least one pixel"


def test_overlap_of_independent_maps_is_the_expected_value():
    strangers = top_overlap(torch.rand(50, 40, 40), torch.rand(50, 40, 40))
    assert abs(strangers.mean() - 0.1 / 1.9) < 0.005


def test_no_maps_have_no_overlap():
    assert top_overlap(torch.rand(0, 2, 2), torch.rand(0, 2, 2)).shape == (0,)


def test_overlap_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 2\) and \(1, 2, 3\); expected the same"):
        top_overlap(torch.rand(1, 2, 2), torch.rand(1, 2, 3))
    with pytest.raises(ValueError, match="share is 0.0; expected a fraction of the pixels"):
        top_overlap(torch.rand(1, 2, 2), torch.rand(1, 2, 2), share=0.0)


def test_a_map_that_is_not_finite_has_no_overlap():
    maps, others = torch.rand(3, 4, 4), torch.rand(3, 4, 4)
    maps[0, 1, 1], others[2, 0, 0] = torch.nan, torch.inf
    assert top_overlap(maps, others).isnan().tolist() == [True, False, True]


def test_sparseness_by_hand():
    maps = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 5.0]], [[0.0, 0.0], [-3.0, 3.0]]])
    assert gini(maps).tolist() == [0.0, 0.75, 0.5]


@given(st.integers(0, 99), st.floats(0.01, 100))
def test_size_sign_and_order_do_not_matter(seed, factor):
    values = torch.rand(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(gini(-factor * values.flip(1)), gini(values))
    differences = (values[:, :, None] - values[:, None]).abs().mean((1, 2)) / (2 * values.mean(1))
    torch.testing.assert_close(gini(values), differences)  # the other definition: half the relative mean difference


def test_a_map_of_zeros_has_no_sparseness():
    assert gini(torch.zeros(1, 4)).isnan().all() and gini(torch.tensor([[1.0, torch.nan]])).isnan().all()


def test_a_single_map_needs_a_batch_axis():
    with pytest.raises(ValueError, match=r"maps have shape \(4,\); expected \(N, …\)"):
        gini(torch.rand(4))
