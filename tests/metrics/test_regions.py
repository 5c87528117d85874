import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum import NeuronCanvas
from xinc_captum.inr import FourierMLP, coordinates
from xinc_captum.metrics import (
    as_masks,
    association,
    colour_regions,
    edges,
    gabor_regions,
    gabor_responses,
    grid_cells,
    intensity,
    magnitudes,
    opponents,
    outside,
    pool_cells,
    preference,
    region_test,
    share,
)
from xinc_captum.metrics.regions import ANGLES, FREQUENCIES, SIGMAS, gabor_bank, group_features


def test_fields_by_hand():
    red, white = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    red[0] = 1
    assert intensity(red).item() == pytest.approx(0.299) and intensity(white).item() == pytest.approx(1)
    assert intensity(torch.tensor([0.2, 0.6]).view(2, 1, 1)).item() == pytest.approx(0.4)
    assert opponents(white).flatten().tolist() == pytest.approx([1, 0, 0])
    assert opponents(red.roll(2, 0)).flatten().tolist() == pytest.approx([0.114, 0, 1]), "blue"


def test_an_edge_is_where_brightness_steps():
    picture = torch.zeros(3, 6, 8)
    picture[:, :, 4:] = 1
    found = edges(picture)
    assert (found[:, 3:5] > 0.5).all() and (found[:, :3] == 0).all() and (found[:, 5:] == 0).all()
    torch.testing.assert_close(edges(picture.mT), found.T)
    assert found.dtype == torch.float32


def test_fields_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"image is torch.uint8 of shape \(3, 2, 2\).*Divide 8-bit values by 255"):
        intensity(torch.zeros(3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="image has 1 channels; expected 3 for colours"):
        opponents(torch.zeros(1, 2, 2))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(count, g, size=(24, 32)):
    noise = torch.rand(count, *size, generator=g)
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(noise, [3] * 4, mode="circular"), 7, 1)


def test_equals_scipy_and_leaves_constant_units_out():
    g = generator()
    amounts, field = torch.rand(3, 5, 6, generator=g), torch.rand(5, 6, generator=g)
    amounts[2] = 0.5
    found = association(amounts, field, generator=g, repeats=19)
    expected = [scipy.stats.spearmanr(amounts[u].flatten(), field.flatten()).statistic for u in (0, 1)]
    assert found.rho[:2].tolist() == pytest.approx(expected, abs=1e-4) and found.rho[2].isnan()
    assert found.chance[2].isnan() and found.shifted.shape == (19, 3)


def test_the_control_is_the_same_field_elsewhere():
    g = generator()
    amounts = torch.rand(1, 1, 5, generator=g)
    field = torch.rand(1, 5, generator=g)
    found = association(amounts, field, generator=g, repeats=200)
    every = [scipy.stats.spearmanr(amounts.flatten(), field.roll(s, 1).flatten()).statistic for s in range(1, 5)]
    assert {round(v, 6) for v in found.shifted.flatten().tolist()} == {round(v, 6) for v in every}


def test_smooth_coincidences_are_distinguished_from_following():
    """The textbook p-value calls most unrelated smooth maps significant; rolling does not."""
    g = generator(3)
    field, unrelated = smooth(1, g)[0], smooth(60, g)
    found = association(unrelated, field, generator=g)
    textbook = [scipy.stats.spearmanr(m.flatten(), field.flatten()).pvalue for m in unrelated]
    assert sum(p <= 0.05 for p in textbook) > 30
    assert found.below_five_percent < 0.2
    following = association(field + 0.3 * unrelated, field, generator=g)
    assert following.below_five_percent == 1 and following.rho.min() > 0.8
    assert following.chance.max() == pytest.approx(0.01), "1 of 100"


def test_association_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"field has shape \(3, 2\).*expected the image's \(2, 3\), finite and not"):
        association(torch.rand(1, 2, 3), torch.rand(3, 2), generator=generator())
    with pytest.raises(ValueError, match="values from 1 to 1"):
        association(torch.rand(1, 2, 3), torch.ones(2, 3), generator=generator())


@given(h=st.integers(1, 12), w=st.integers(1, 12), gh=st.integers(1, 5), gw=st.integers(1, 5))
def test_cells_are_rectangles_that_cover_everything_once(h, w, gh, gw):
    gh, gw = min(gh, h), min(gw, w)
    masks = as_masks(grid_cells((h, w), (gh, gw)))
    assert len(masks) == gh * gw and (masks.sum(0) == 1).all()
    for mask in masks:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask.sum() == len(rows) * len(columns), "a full rectangle"
        assert rows[-1] - rows[0] + 1 == len(rows) and columns[-1] - columns[0] + 1 == len(columns), "no comb"
    areas = masks.sum((1, 2))
    assert areas.max() <= -(-h // gh) * -(-w // gw)


def test_uneven_sizes_use_all_pixels():
    labels = grid_cells((4, 256), (1, 6))
    assert labels.unique(return_counts=True)[1].tolist() == [172, 172, 168, 172, 172, 168]


def test_labels_and_the_outside_region():
    masks = as_masks(torch.tensor([[5, -1, 2]]))
    assert masks.tolist() == [[[False, False, True]], [[True, False, False]]]
    assert outside(masks).tolist() == [[[False, True, False]]], "not the union of the objects"


def test_colour_regions_do_not_depend_on_position():
    picture = torch.zeros(3, 4, 6)
    picture[0, :, ::2] = 1  # red and black columns in turn
    labels = colour_regions(picture, 2)
    assert (labels[:, ::2] == labels[0, 0]).all() and (labels[:, 1::2] == labels[0, 1]).all()
    assert labels[0, 0] != labels[0, 1]
    clip = torch.stack([picture, picture.flip(2)])
    both = colour_regions(clip, 2)
    assert both.shape == (2, 4, 6) and torch.equal(both[1], both[0].flip(1)), "one colour, one number, at every frame"


def test_k_means_leaves_the_random_state_and_repeats_itself():
    import numpy as np

    features = torch.rand(300, 4)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(group_features(features, 5, seed=1), group_features(features, 5, seed=1))
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == numpy_state).all()


def test_centres_learnt_from_some_hold_for_all(monkeypatch):
    monkeypatch.setattr("xinc_captum.metrics.regions.LEARNT_FROM", 50)
    rows = torch.cat([torch.randn(200, 2), torch.randn(200, 2) + 40])
    labels = group_features(rows, 2)
    assert len(labels[:200].unique()) == len(labels[200:].unique()) == 1 and labels[0] != labels[-1]


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"grid is \(3, 1\) for an image of \(2, 9\); expected at least one pixel"):
        grid_cells((2, 9), (3, 1))
    with pytest.raises(
        ValueError, match=r"labels are torch.float32, shape \(2, 2\); expected integers|expected integers"
    ):
        as_masks(torch.ones(2, 2))
    with pytest.raises(ValueError, match="expected integers, some of them >= 0"):
        as_masks(-torch.ones(2, 2).long())
    with pytest.raises(ValueError, match=r"image is torch.uint8 of shape \(3, 2, 2\); expected floats"):
        colour_regions(torch.zeros(3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got 3 groups for 4 rows, of which 1 differ; give fewer"):
        group_features(torch.ones(4, 2), 3)
    with pytest.raises(ValueError, match="features hold NaN or infinity"):
        group_features(torch.full((4, 2), torch.inf), 2)


def test_by_hand():
    amounts = torch.tensor([[6.0, 2.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    masks = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 1]]).bool()
    delta = preference(amounts, masks)
    assert delta[0].tolist() == pytest.approx([6 / 2 - 1, 2 / 6 - 1])
    assert delta[1].tolist() == [0, 0], "as much as the area"
    assert delta[2].isnan().all(), "a unit that paints nothing prefers nothing"
    assert region_test(amounts, masks, generator=generator()).variance[0].item() == pytest.approx(
        ((2 + 2 / 3) / 2) ** 2
    )


@given(seed=st.integers(0, 999), scale=st.floats(1e-6, 1e6))
def test_areas_weigh_preferences_out(seed, scale):
    g = generator(seed)
    amounts, labels = torch.rand(4, 5, 6, generator=g), torch.randint(0, 4, (5, 6), generator=g)
    masks = as_masks(labels)
    delta = preference(amounts, masks)
    areas = masks.flatten(1).double().mean(1)
    assert (delta @ areas).abs().max() < 1e-9, "over a partition, more here is less there"
    torch.testing.assert_close(preference(amounts.double() * scale, masks), preference(amounts.double(), masks))


def test_planted_cells_are_above_chance_and_combs_are_not():
    """What the paper's "space-agnostic" was measured on: combs look alike to any smooth map."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 16), torch.linspace(0, 1, 32), indexing="ij")
    centres = torch.rand(12, 2, 1, 1, generator=generator())
    amounts = torch.exp(-((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2) / 0.05)
    comb = torch.arange(16)[:, None] % 4 * 8 + torch.arange(32) % 8
    cells, combs = (
        region_test(amounts, as_masks(labels), generator=generator()) for labels in (grid_cells((16, 32), (4, 8)), comb)
    )
    assert cells.above_chance > 5 and combs.above_chance < 1.5
    assert cells.variance.median() > 10 * combs.variance.median()
    assert cells.above_elsewhere == pytest.approx(1, abs=0.25), "cells elsewhere are cells: their own control"


def test_only_regions_that_mean_something_beat_their_own_shapes_elsewhere():
    g = generator(1)
    wrapped = torch.nn.functional.pad(torch.rand(7, 24, 24, generator=g), [2] * 4, mode="circular")
    blobs, does_not = torch.nn.functional.avg_pool2d(wrapped, 5, 1).split([1, 6])
    blobs = blobs[0]
    labels = (blobs > blobs.median()).long()
    cares = labels.double().expand(6, 24, 24) + 0.1 + 0.05 * torch.rand(6, 24, 24, generator=g)
    assert region_test(cares, as_masks(labels), generator=g).above_elsewhere > 5
    assert region_test(does_not, as_masks(labels), generator=g, repeats=40).above_elsewhere < 3


def test_controls_keep_areas():
    amounts, masks = torch.ones(1, 4, 4), torch.zeros(2, 4, 4)
    masks[0, 0, :2], masks[1, 1:3] = 1, 0.5
    found = region_test(amounts, masks, generator=generator(), repeats=3)
    assert found.scattered.abs().max() < 1e-12 and found.shifted.abs().max() < 1e-12, "an even map has no regions"
    assert found.scattered.shape == found.shifted.shape == (3, 1)
    again = region_test(amounts * 2, masks, generator=generator(), repeats=3)
    torch.testing.assert_close(again.variance, found.variance)


def test_the_scattered_control_equals_numpy():
    amounts = torch.rand(1, 400, generator=generator())
    masks = as_masks(torch.arange(400) // 20)
    rng = np.random.default_rng(0)
    a = amounts[0].numpy()
    drawn = [(rng.permutation(a).reshape(20, 20).mean(1) / a.mean() - 1).var() for _ in range(300)]
    found = region_test(amounts, masks, generator=generator(), repeats=300).scattered
    assert float(found.mean()) == pytest.approx(np.mean(drawn), rel=0.1)


def test_a_lazy_canvas_equals_the_full_one():
    size, grid = (8, 12), (2, 3)
    canvas = NeuronCanvas(FourierMLP(hidden=6, seed=0), "activation1", rule="secant").canvas(coordinates(size), size)
    amounts = magnitudes(canvas.to_tensor()[: canvas.units])
    masks = as_masks(grid_cells(size, grid))
    areas = masks.flatten(1).double().sum(1)[:, None]
    sums = canvas.regions(masks)[:, : canvas.units].sum(2).double()
    whole = canvas.regions(torch.ones(1, *size))[:, : canvas.units].sum(2).double()
    near = {"rtol": 1e-4, "atol": 1e-7}
    torch.testing.assert_close((sums / (whole * areas / 96) - 1).T, preference(amounts, masks), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums / sums.sum(1, keepdim=True), share(amounts, masks), **near)
    torch.testing.assert_close((sums / areas).T, pool_cells(amounts, grid).flatten(1), **near)


def test_regions_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"masks have shape \(1, 3, 3\) for an image of \(2, 2\)"):
        preference(torch.ones(1, 2, 2), torch.ones(1, 3, 3))
    with pytest.raises(ValueError, match="masks \\[1\\] are empty"):
        region_test(torch.ones(1, 2), torch.tensor([[1, 1], [0, 0]]), generator=generator())
    with pytest.raises(ValueError, match="and 0 repeats"):
        region_test(torch.ones(1, 2), torch.ones(1, 2), generator=generator(), repeats=0)


def wave(angle, frequency, size=48):
    y, x = torch.meshgrid(*[torch.arange(float(size))] * 2, indexing="ij")
    along = x * np.cos(angle) + y * np.sin(angle)
    return (0.5 + 0.5 * torch.cos(2 * torch.pi * frequency * along)).expand(3, size, size)


def test_the_bank_has_all_24_filters():
    bank = gabor_bank()
    assert len(bank) == len(ANGLES) * len(SIGMAS) * len(FREQUENCIES) == 24
    assert len({tuple(k.flatten().tolist()) for k in bank}) == 24, "all four angles, not six filters four times"
    assert all(abs(complex(k.sum())) < 1e-12 for k in bank), "no answer to brightness"


@pytest.mark.parametrize("number", range(4))
def test_gabor_filters_respond_most_to_their_own_angle(number):
    responses = gabor_responses(wave(ANGLES[number], 0.25))[:, 12:-12, 12:-12].mean((1, 2)).view(4, 2, 3)
    assert int(responses[:, 1, 2].argmax()) == number
    assert responses[number, 1, 2] > 5 * responses[(number + 2) % 4, 1, 2], "not by the crossing one"


def test_gabor_responses_do_not_depend_on_the_phase():
    first, second = (gabor_responses(wave(0.0, 0.25).roll(shift, 2))[5, 20:28, 20:28] for shift in (0, 1))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_equals_scipy_s_convolution():
    picture = torch.rand(3, 20, 30)
    grey = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).double().numpy()
    for kernel, answer in list(zip(gabor_bank(), gabor_responses(picture), strict=True))[::5]:
        parts = [scipy.ndimage.convolve(grey, part.numpy(), mode="nearest") for part in (kernel.real, kernel.imag)]
        np.testing.assert_allclose(answer.numpy(), np.hypot(*parts), atol=1e-6)


def test_textures_are_separated():
    picture = torch.cat([wave(0.0, 0.25), wave(np.pi / 2, 0.25)], 2)  # stripes down, stripes across; same colours
    labels = gabor_regions(picture, 2)
    left, right = labels[8:-8, 8:40], labels[8:-8, 56:88]
    assert (left == left[0, 0]).double().mean() > 0.95 and (right == right[0, 0]).double().mean() > 0.95
    assert left[0, 0] != right[0, 0]


def test_eight_bits_are_refused():
    with pytest.raises(ValueError, match="Divide 8-bit values by 255: filtered as they are, they wrap around"):
        gabor_responses(torch.zeros(3, 8, 8, dtype=torch.uint8))
