from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import (
    as_masks,
    completeness_error,
    condition_number,
    cumulative_share,
    grid_cells,
    magnitudes,
    participation,
    pixels_per_unit,
    pool_cells,
    share,
    units_for,
    units_per_pixel,
)
from xinc_captum.metrics.spread import check_clip, check_masks
from xinc_captum.metrics.statistics import shuffle_pixels, shuffle_units


def test_channels_do_not_cancel():
    canvas = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)
    assert magnitudes(canvas).tolist() == [[[5.0]]], "a signed sum would say 1"
    clip = canvas.expand(4, 1, 2, 1, 1)
    assert magnitudes(clip).shape == (4, 1, 1, 1)
    assert magnitudes(canvas.half()).dtype == torch.float32


def test_invalid_canvases_raise_errors():
    with pytest.raises(ValueError, match=r"canvas has shape \(2, 3\); expected \(units, channels, H, W\)"):
        magnitudes(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        (torch.ones(3), r"magnitudes have shape \(3,\); expected \(units, H, W\)"),
        (torch.ones(3, 0), r"magnitudes have shape \(3, 0\); expected"),
        (-torch.ones(2, 2), r"magnitudes go down to -1; expected magnitudes >= 0.*magnitudes\(canvas\)"),
        (torch.full((2, 2), torch.nan), "magnitudes have values that are not finite"),
    ],
)
def test_invalid_magnitudes_raise_errors(amounts, message):
    with pytest.raises(ValueError, match=message):
        participation(amounts)


def test_invalid_clips_raise_errors():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\); expected a clip, \(frames, units, H, W\)"):
        check_clip(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match="1 frame; expected at least 2, because frames are compared"):
        check_clip(torch.ones(1, 2, 3, 4))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.ones(2, 3, 5), r"masks have shape \(2, 3, 5\) for an image of \(3, 4\); expected \(regions, 3, 4\)"),
        (torch.ones(3, 4), r"masks have shape \(3, 4\) for an image"),
        (torch.arange(12.0).view(1, 3, 4), r"masks go from 0 to 11; expected bool.*as_masks\(labels\)"),
        (torch.zeros(2, 3, 4).index_fill(0, torch.tensor(1), 1), r"masks \[0\] are empty"),
    ],
)
def test_invalid_masks_raise_errors(masks, message):
    with pytest.raises(ValueError, match=message):
        check_masks(masks, (3, 4))


def test_masks_that_are_no_numbers_are_refused():
    masks = torch.tensor([[1.0, torch.nan, 0.0]])
    with pytest.raises(ValueError, match="masks go from nan to nan; expected bool, or weights"):
        check_masks(masks, (3,))


def test_shares_by_hand():
    amounts = torch.tensor([[[3.0, 0.0]], [[1.0, 4.0]]])
    assert share(amounts).tolist() == [3 / 8, 5 / 8]
    masks = torch.tensor([[[1.0, 0.0]], [[0.5, 1.0]]])
    assert share(amounts, masks).tolist() == [[0.75, 0.25], [1.5 / 6, 4.5 / 6]]
    assert share(torch.zeros(2, 3)).isnan().all(), "nobody has a part of nothing"


@given(h=st.integers(1, 9), w=st.integers(1, 9), gh=st.integers(1, 9), gw=st.integers(1, 9))
def test_pooled_cells_equal_means_over_grid_cells(h, w, gh, gw):
    gh, gw = min(gh, h), min(gw, w)
    amounts = torch.rand(3, h, w, dtype=torch.float64)
    masks = as_masks(grid_cells((h, w), (gh, gw))).double()
    means = torch.einsum("uyx,ryx->ur", amounts, masks) / masks.sum((1, 2))
    torch.testing.assert_close(pool_cells(amounts, (gh, gw)).flatten(1), means)


def test_even_cells_are_torch_s_and_clips_go_frame_by_frame():
    clip = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    answer = pool_cells(clip, (2, 4))
    torch.testing.assert_close(answer, torch.nn.functional.avg_pool2d(clip, (4, 3)))
    torch.testing.assert_close(pool_cells(clip[1], (2, 4)), answer[1])


def test_mismatched_arguments_raise_errors():
    with pytest.raises(
        ValueError, match=r"grid is \(4, 4\) for images of \(2, 8\); expected at least one pixel a cell"
    ):
        pool_cells(torch.ones(1, 2, 8), (4, 4))
    with pytest.raises(ValueError, match=r"magnitudes have shape \(2, 8\); expected \(units, H, W\), or \(frames"):
        pool_cells(torch.ones(2, 8))
    with pytest.raises(ValueError, match=r"masks have shape \(1, 3\)"):
        share(torch.ones(2, 4), torch.ones(1, 3))


DATA = Path(__file__).parents[1] / "data" / "xinc_ffn_small.npz"


def test_by_hand():
    amounts = torch.tensor([[6.0, 1.0, 0.0], [3.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert pixels_per_unit(amounts).tolist() == [1, 0, 0], "a third each is no more than its share"
    assert units_for(amounts, 0.5).tolist() == [1, 2, 0]
    assert units_for(amounts, 0.9).tolist() == [2, 3, 0]
    assert units_for(amounts, 1.0).tolist() == [3, 3, 0]
    assert units_per_pixel(amounts, 0.6).tolist() == [2, 0, 0], "6 + 3 of 13"
    assert units_per_pixel(amounts, 1.0).tolist() == [3, 3, 0]
    effective = participation(amounts)
    assert effective[:2].tolist() == pytest.approx([100 / 46, 3]) and effective[2].isnan()
    assert cumulative_share(amounts).tolist() == pytest.approx([0, (0.6 + 1 / 3) / 2, (0.9 + 2 / 3) / 2, 1])


@given(units=st.integers(1, 8), pixels=st.integers(1, 20), seed=st.integers(0, 999), part=st.floats(0.05, 1))
def test_definitions_in_numpy(units, pixels, seed, part):
    a = np.random.default_rng(seed).gamma(0.5, size=(units, pixels))
    tensor = torch.from_numpy(a)
    fair = (a / a.sum(0) > 1 / units).sum(1)
    assert np.abs(pixels_per_unit(tensor).numpy() - fair).max() == 0 or units == 1
    for p in range(pixels):
        ordered = np.sort(a[:, p])[::-1].cumsum()
        assert int(units_for(tensor, part)[p]) == int((ordered < part * ordered[-1] * (1 - 1e-12)).sum()) + 1
    counted = a[a >= np.sort(a.ravel())[::-1][int(units_per_pixel(tensor, part).sum()) - 1]]
    assert counted.sum() >= part * a.sum() * (1 - 1e-9), "the counted ones make up the part"
    assert counted.sum() - counted.min() < part * a.sum() * (1 + 1e-9), "and the last of them is needed"
    effective = participation(tensor)
    assert (effective >= 1 - 1e-9).all() and (effective <= units + 1e-9).all()


def test_participation_does_not_depend_on_the_scale():
    amounts = torch.rand(5, 7, dtype=torch.float64)
    torch.testing.assert_close(participation(amounts * 1e-200), participation(amounts))


def test_controls_remove_their_structure():
    own = torch.eye(6).repeat_interleave(5, 1) + 0.01  # each unit has five pixels of its own
    own[0] += 0.05
    generator = torch.Generator().manual_seed(0)
    specialised = torch.rand(6, 30, generator=generator) * torch.tensor([10, 5, 1, 1, 1, 1])[:, None]
    assert pixels_per_unit(specialised).double().std() > 5
    assert pixels_per_unit(shuffle_units(specialised, generator)).double().std() < 4
    assert units_for(own, 0.5).max() == 1
    assert units_for(shuffle_pixels(own, generator), 0.5).max() > 1, "units that share out the pixels no longer do"


def test_the_paper_s_counts_on_its_own_maps():
    """Pixels per neuron, on the recorded maps of the released code; its rule in its own words."""
    with np.load(DATA) as data:
        for name in ("layer1", "layer2", "layer3"):
            a = np.abs(data[name]).astype(np.float64)
            with np.errstate(invalid="ignore"):
                fair = np.nan_to_num(a / a.sum(0)) > 1 / len(a)
            assert pixels_per_unit(torch.from_numpy(a)).tolist() == fair.sum((1, 2)).tolist()
            assert 0 < fair.mean() < 1


def test_fractions_outside_their_range_raise():
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"covering is {wrong}; expected a fraction above 0"):
            units_per_pixel(torch.ones(2, 2), wrong)
        with pytest.raises(ValueError, match=f"part is {wrong}; expected a fraction"):
            units_for(torch.ones(2, 2), wrong)


def test_completeness_by_hand():
    shares = torch.tensor([[[3.0], [-1.0]], [[1.0], [1.0]]])
    output = torch.tensor([[2.0], [4.0]])
    assert completeness_error(shares, output).item() == 0.5
    assert condition_number(shares, output).tolist() == [[2.0], [0.5]]
    assert completeness_error(torch.zeros(1, 2), torch.zeros(1)).item() == 0


def test_sums_of_half_precision_are_taken_in_float32():
    shares = torch.full((1, 5000), 0.125).half()
    assert completeness_error(shares, torch.tensor([625.0]).half()).item() == 0
    assert completeness_error(shares, torch.tensor([500.0]).half()).item() == pytest.approx(0.25)
    many = torch.full((1, 3), 40000.0).half()  # adds up to more than half precision holds
    assert condition_number(many, torch.tensor([60000.0]).half()).item() == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("shape", [(3, 1), (1,), (2,), (3, 2), (0,)])
@pytest.mark.parametrize("measure", [completeness_error, condition_number])
def test_an_output_of_another_shape_is_not_spread_over_the_sums(measure, shape):
    with pytest.raises(ValueError, match=r"expected \(rows, units, \*output_shape\) and \(rows, \*output_shape\)"):
        measure(torch.ones(3, 2), torch.full(shape, 2.0))
    with pytest.raises(ValueError, match=r"shares have shape \(0, 2\)"):
        measure(torch.ones(0, 2), torch.ones(0))
