import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.metrics import (
    blur_images,
    deletion_insertion,
    energy_in_mask,
    gini,
    noisy_linear_imputation,
    pointing_game,
    probabilities,
    removal_order,
    road,
    target_score,
    top_overlap,
)


def as_is(outputs):
    return outputs


def total():
    """f(x) = Σ of all pixels, as the only class."""
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(1, bias=False))
    model(torch.zeros(1, 1, 1, 2))
    nn.init.ones_(model[1].weight)
    return model


IMAGE = torch.tensor([[[[3.0, 1.0]]]])


@pytest.mark.parametrize(
    ("scores", "deletion", "insertion"),
    [
        # Score 4 → 1 → 0 and 0 → 3 → 4 at 0, 1/2, 1 of the pixels.
        ([0.9, 0.1], (4 + 1) / 4 + (1 + 0) / 4, (0 + 3) / 4 + (3 + 4) / 4),
        ([0.1, 0.9], (4 + 3) / 4 + (3 + 0) / 4, (0 + 1) / 4 + (1 + 4) / 4),
        ([0.5, 0.5], 1.5, 2.5),  # ties: left before right
    ],
)
def test_by_hand(scores, deletion, insertion):
    got = deletion_insertion(total(), IMAGE, torch.tensor([[scores]]), 0, start=0 * IMAGE, scores=as_is)
    assert got.deletion.tolist() == [deletion]
    assert got.insertion.tolist() == [insertion]


def test_the_order_of_removal_by_hand():
    maps = torch.tensor([[[0.2, -1.0], [5.0, 0.2]], [[0.0, 0.0], [0.0, 0.0]]])
    assert removal_order(maps).tolist() == [[[1, 3], [0, 2]], [[0, 1], [2, 3]]], "ties in reading order"


def test_the_order_alone_counts():
    first, second = (torch.tensor([[m]]) for m in ([0.9, 0.1], [-3.0, -40.0]))
    once, twice = (deletion_insertion(total(), IMAGE, m, 0, scores=as_is) for m in (first, second))
    assert torch.equal(once.deletion, twice.deletion) and torch.equal(once.insertion, twice.insertion)


def test_baseline_start_and_steps():
    map_ = torch.tensor([[[0.9, 0.1]]])
    assert deletion_insertion(total(), IMAGE, map_, 0, steps=1, scores=as_is).deletion.tolist() == [2.0]
    got = deletion_insertion(total(), IMAGE, map_, 0, baseline=IMAGE, start=IMAGE, steps=99, scores=as_is)
    assert got.deletion.tolist() == got.insertion.tolist() == [4.0], "nothing changes, so the score stays"
    three = torch.tensor([[[[3.0, 1.0, 2.0]]]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 1, bias=False))
    nn.init.ones_(model[1].weight)
    got = deletion_insertion(model, three, three[:, 0], 0, steps=2, scores=as_is)  # 0, 2, 3 pixels: 6 → 1 → 0
    assert got.deletion.item() == pytest.approx((6 + 1) / 2 * 2 / 3 + (1 + 0) / 2 / 3)


def test_the_default_score_is_a_probability():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    s = torch.tensor([4.0, 1.0, 0.0]).sigmoid()
    got = deletion_insertion(model, IMAGE, torch.tensor([[[2.0, 1.0]]]), 0)
    assert got.deletion.item() == pytest.approx(((s[0] + s[1]) / 4 + (s[1] + s[2]) / 4).item())
    assert probabilities(-torch.ones(1, 4, dtype=torch.float16)).dtype == torch.float32


def test_rows_do_not_see_each_other(conv):
    images, maps, targets = torch.rand(4, 3, 9, 8), torch.rand(4, 9, 8), [0, 2, 1, 2]
    whole = deletion_insertion(conv, images, maps, targets, steps=5)
    for batch_size in (1, 7):
        again = deletion_insertion(conv, images, maps, torch.tensor(targets), steps=5, batch_size=batch_size)
        torch.testing.assert_close(again, whole)
    for i in range(4):
        alone = deletion_insertion(conv, images[i : i + 1], maps[i : i + 1], targets[i], steps=5)
        torch.testing.assert_close(alone.deletion[0], whole.deletion[i])
        torch.testing.assert_close(alone.insertion[0], whole.insertion[i])


def test_a_map_that_is_not_finite_gives_nan_alone(conv):
    maps = torch.rand(2, 8, 8)
    maps[0, 3, 3] = torch.nan
    got = deletion_insertion(conv, torch.rand(2, 3, 8, 8), maps, 1, steps=3)
    assert got.deletion.isnan().tolist() == got.insertion.isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_float_type(conv, dtype):
    images, maps = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)
    wide = deletion_insertion(conv, images, maps, 1, steps=4)
    other = deletion_insertion(conv.to(dtype), images.to(dtype), maps, 1, steps=4)
    torch.testing.assert_close(other.insertion.float(), wide.insertion, atol=0.02, rtol=0)


@pytest.mark.cuda
def test_on_a_gpu(conv):
    images, maps = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)
    here = deletion_insertion(conv, images, maps, [0, 1], steps=4)
    there = deletion_insertion(conv.cuda(), images.cuda(), maps, [0, 1], steps=4)
    assert there.deletion.is_cuda
    torch.testing.assert_close(there.deletion.cpu(), here.deletion, atol=1e-3, rtol=0)


def test_the_model_state_is_restored(conv, found):
    images, maps = torch.rand(4, 3, 8, 8), torch.rand(4, 8, 8)
    conv.train()
    before = found(conv)
    deletion_insertion(conv, images, maps, 1, steps=2)
    target_score(conv, images, 1)
    assert before.differences(conv) == []


def test_where_the_curves_begin_and_end(conv):
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        expected = conv(images).softmax(1)[range(3), [2, 0, 1]]
    torch.testing.assert_close(target_score(conv, images, [2, 0, 1], batch_size=2), expected)


def test_out_of_focus_by_hand():
    impulse = torch.zeros(1, 2, 5, 5, dtype=torch.float64)
    impulse[:, :, 2, 2] = 1
    side = torch.exp(torch.tensor(-0.5))
    taps = torch.stack([side, torch.tensor(1.0), side]) / (1 + 2 * side)  # 3 taps, σ = 1: the smallest
    torch.testing.assert_close(blur_images(impulse)[0, 1, 1:4, 1:4].float(), taps[:, None] * taps)
    assert (blur_images(torch.zeros(1, 1, 224, 224).index_fill(3, torch.tensor(100), 1.0))[0, 0, 9] > 0).sum() == 11
    torch.testing.assert_close(blur_images(torch.full((1, 3, 300, 40), 0.3)), torch.full((1, 3, 300, 40), 0.3))


def test_mismatched_arguments_raise_errors(conv):
    images, maps = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)
    with pytest.raises(ValueError, match=r"images have shape \(2, 3, 8, 8\) and maps \(1, 8, 8\); expected"):
        deletion_insertion(conv, images, maps[:1], 0)
    with pytest.raises(ValueError, match="steps is 0; expected at least 1"):
        deletion_insertion(conv, images, maps, 0, steps=0)
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        deletion_insertion(conv, images, maps, 0, batch_size=0)
    with pytest.raises(ValueError, match=r"maps \(0, 8, 8\); expected .* at least one"):
        deletion_insertion(conv, images[:0], maps[:0], 0)
    for baseline in (torch.rand(5), torch.rand(1, 2, 3, 8, 8), torch.rand(2)):
        with pytest.raises(ValueError, match=r"baseline has shape .*; expected a number, or a tensor that broadcasts"):
            deletion_insertion(conv, images, maps, 0, baseline=baseline)
    with pytest.raises(ValueError, match=r"start has shape \(1, 3, 8, 8\); expected that of images, \(2, 3, 8, 8\)"):
        deletion_insertion(conv, images, maps, 0, start=images[:1])
    for target in ([0, 1, 2], 0.5, True, [[0], [1]]):
        with pytest.raises(ValueError, match="for 2 images; expected a class number, or one for each image"):
            deletion_insertion(conv, images, maps, target)
    with pytest.raises(TypeError, match=r"target is None; give a class number.*model\(inputs\).argmax\(1\)"):
        deletion_insertion(conv, images, maps, None)
    with pytest.raises(IndexError, match="target 3 is not a class of a model with 3 classes"):
        deletion_insertion(conv, images, maps, [0, 3])
    with pytest.raises(IndexError, match="target -1 is not a class"):
        target_score(conv, images, -1)
    with pytest.raises(ValueError, match=r"returned .* of shape \(1, 4, 8, 8\) for 1 image; expected .*\(1, classes\)"):
        deletion_insertion(conv.conv, images[:1], maps[:1], 0, scores=as_is)


class Left(nn.Module):
    """Class 1 is how much the left half flickers."""

    def forward(self, x):
        flicker = x[..., : x.shape[-1] // 2].diff(dim=-2).abs().mean((1, 2, 3))
        return torch.stack([0 * flicker, 20 * flicker - 3], 1)


PHOTOS = torch.rand(2, 3, 12, 12)
LEFT = torch.zeros(2, 12, 12)
LEFT[..., :6] = 1


def test_road_is_the_mean_difference_of_the_two_orders():
    maps = torch.rand(2, 12, 12)
    places, total = removal_order(maps), 0
    for share in (0.25, 0.5):
        count = round(share * 144)
        least, most = (noisy_linear_imputation(PHOTOS, gone) for gone in (places >= 144 - count, places < count))
        total = total + target_score(Left(), least, 1) - target_score(Left(), most, 1)
    torch.testing.assert_close(road(Left(), PHOTOS, maps, 1, shares=(0.25, 0.5)), total / 4)


def test_road_is_positive_for_the_correct_map_and_negative_for_its_inverse():
    right, wrong = road(Left(), PHOTOS, LEFT, 1), road(Left(), PHOTOS, 1 - LEFT, 1)
    assert (right > 0.2).all() and (wrong < -0.2).all()
    assert road(Left(), PHOTOS, LEFT, [1, 0])[1] < 0


def test_only_the_order_counts_and_rows_are_their_own():
    maps = torch.rand(2, 12, 12)
    whole = road(Left(), PHOTOS, maps, 1)
    torch.testing.assert_close(road(Left(), PHOTOS, maps.exp(), 1), whole)
    torch.testing.assert_close(road(Left(), PHOTOS[:1], maps[:1], 1), whole[:1], atol=1e-3, rtol=0)


def test_a_map_that_is_not_finite_has_no_score():
    maps = torch.rand(2, 12, 12)
    maps[1, 0, 0] = torch.nan
    assert road(Left(), PHOTOS, maps, 1).isnan().tolist() == [False, True]


def test_road_the_model_state_is_restored(conv, found):
    photos, maps, before = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), found(conv)
    road(conv, photos, maps, 1)
    assert before.differences(conv) == []


def test_road_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"maps \(2, 6, 6\); expected \(N, C, H, W\) and \(N, H, W\)"):
        road(Left(), PHOTOS, torch.rand(2, 6, 6), 1)
    with pytest.raises(ValueError, match=r"maps \(0, .*\); expected .* at least one"):
        road(Left(), PHOTOS[:0], LEFT[:0], 1)
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        road(Left(), PHOTOS, LEFT, 1, batch_size=0)
    for shares in ((), (0.5, 1.0), (0.0,)):
        with pytest.raises(ValueError, match="expected at least one, each above 0 and below 1"):
            road(Left(), PHOTOS, LEFT, 1, shares=shares)
    with pytest.raises(IndexError, match="target 5 is not a class"):
        road(Left(), PHOTOS, LEFT, 5)


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
def test_imputation_solves_the_linear_system(seed, share):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 7, 9, dtype=torch.float64, generator=generator)
    removed = torch.rand(2, 7, 9, generator=generator) < share
    removed[:, 3, 4] = False
    filled = noisy_linear_imputation(image, removed, noise=0.0, tolerance=1e-13)
    for row in range(2):
        torch.testing.assert_close(filled[row], solved(image[row], removed[row]), atol=1e-9, rtol=0)


def test_known_pixels_are_unchanged_and_removed_values_are_ignored():
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


def test_noise_does_not_depend_on_the_other_samples():
    image, removed = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8) < 0.5
    state = torch.get_rng_state()
    both = noisy_linear_imputation(image, removed, noise=0.1)
    torch.testing.assert_close(noisy_linear_imputation(image[:1], removed[:1], noise=0.1), both[:1], atol=1e-3, rtol=0)
    assert not torch.equal(noisy_linear_imputation(image, removed, noise=0.1, seed=1), both)
    spread = (both - noisy_linear_imputation(image, removed, noise=0.0))[removed[:, None].expand_as(image)]
    assert 0.05 < spread.std() < 0.2
    assert torch.equal(torch.get_rng_state(), state)


def test_imputation_mismatched_arguments_raise_errors():
    image = torch.rand(1, 3, 4, 4)
    with pytest.raises(
        ValueError, match=r"removed has shape \(4, 4\); expected floats \(N, C, H, W\), and \(N, H, W\)"
    ):
        noisy_linear_imputation(image, torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"removed is torch.float32; expected bool"):
        noisy_linear_imputation(image, torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"all pixels of an image are removed; expected at least one"):
        noisy_linear_imputation(image, torch.ones(1, 4, 4, dtype=torch.bool))


@pytest.mark.cuda
def test_imputation_on_a_gpu():
    image, removed = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16) < 0.5
    there = noisy_linear_imputation(image.cuda(), removed.cuda())
    torch.testing.assert_close(there.cpu(), noisy_linear_imputation(image, removed), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_solved_in_float32(dtype):
    images, removed = torch.rand(2, 3, 16, 16).to(dtype), torch.rand(2, 16, 16) < 0.5
    found = noisy_linear_imputation(images, removed, noise=0.0)
    assert found.dtype == dtype
    assert torch.equal(found, noisy_linear_imputation(images.float(), removed, noise=0.0).to(dtype))


def test_energy_by_hand():
    maps = torch.tensor([[[3.0, 1.0]], [[0.0, 2.0]], [[0.0, 0.0]]])
    masks = torch.tensor([[[True, False]]]).expand(3, 1, 2)
    got = energy_in_mask(maps, masks)
    assert got[:2].tolist() == [0.75, 0.0]
    assert got[2].isnan(), "a map of nothing lies nowhere"
    assert energy_in_mask(maps[:1], torch.tensor([[[0.5, 1.0]]])).item() == (1.5 + 1.0) / 4


def test_a_map_without_preference_scores_the_area():
    masks = torch.rand(2, 6, 7) > 0.6
    torch.testing.assert_close(energy_in_mask(torch.full((2, 6, 7), 0.2), masks), masks.float().mean((1, 2)))


def test_energy_of_rows_and_types():
    maps, masks = torch.rand(3, 300, 300), torch.rand(3, 300, 300) > 0.5
    whole = energy_in_mask(maps, masks)
    torch.testing.assert_close(energy_in_mask(maps[1:2], masks[1:2]), whole[1:2])
    half = energy_in_mask(maps.half(), masks)
    assert half.dtype == torch.float32, "sums of half numbers overflow"
    torch.testing.assert_close(half, whole, atol=1e-3, rtol=0)
    assert energy_in_mask(maps.double(), masks).dtype == torch.float64


def test_energy_mismatched_arguments_raise_errors():
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


def test_numpy_integers_are_seeds():
    images, removed = torch.rand(2, 3, 6, 6), torch.rand(2, 6, 6) > 0.5
    filled, of_int = (noisy_linear_imputation(images, removed, seed=seed) for seed in (np.int8(3), 3))
    assert torch.equal(filled, of_int)
