import pytest
import torch

from xinc_captum import NeuronCanvas
from xinc_captum.attributions.trans_inr import Weights
from xinc_captum.attributions.trans_inr.contributions import (
    flatten_modulations,
    jvp,
    midpoints,
    modulation_contributions,
    modulation_tokens,
    neuron_contributions,
    patch_contributions,
    patch_masks,
    patch_token_contributions,
    sum_groups,
    unflatten_modulations,
)
from xinc_captum.inr import pixel_centres

SIZE = (6, 6)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.fixture
def images():
    return torch.rand(2, 3, 6, 6).double()


def test_modulations_are_flattened_and_restored(tiny, images):
    x = tiny.modulations(images)
    for a, b in zip(x, unflatten_modulations(tiny, flatten_modulations(x)), strict=True):
        assert torch.equal(a, b)


def test_modulation_tokens_count_the_numbers_of_each_token(tiny):
    every = modulation_tokens(tiny, None)
    assert every.number == 9 and every.ids.bincount().tolist() == [8] * 3 + [6] * 6
    one = modulation_tokens(tiny, 1)
    assert one.number == 4 and one.ids.bincount().tolist() == [6, 6, 6, 42]


def test_every_pixel_belongs_to_one_patch(tiny):
    masks = patch_masks(tiny, (6, 9))
    assert masks.shape == (6, 6, 9) and (masks.sum(0) == 1).all()
    assert masks[1].nonzero().tolist() == [[y, x] for y in range(3) for x in range(3, 6)]
    tiny.tokens.padding = 1
    assert patch_masks(tiny, (4, 4)).sum((1, 2)).tolist() == [4, 4, 4, 4]
    assert patch_masks(tiny, (7, 7))[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_jvp_equals_finite_differences(tiny, images):
    way = torch.randn_like(images)
    value, moved = jvp(tiny, images, way)
    with torch.no_grad():
        close(value, tiny(images))
        step = (tiny(images + 1e-6 * way) - tiny(images - 1e-6 * way)) / 2e-6
    torch.testing.assert_close(moved, step, rtol=1e-4, atol=1e-6)
    assert not moved.requires_grad
    constant, still = jvp(lambda x: torch.ones(1), images, way)
    assert still.tolist() == [0.0] and constant.tolist() == [1.0]


def test_batch_size_does_not_change_contributions(tiny, images):
    x, x0 = tiny.modulations(images), tuple(mean[None] for mean in tiny.mean_modulations)
    whole = modulation_contributions(tiny, x, x0, modulation_tokens(tiny, None), SIZE, 3, 1000)
    close(modulation_contributions(tiny, x, x0, modulation_tokens(tiny, None), SIZE, 3, 5), whole)
    start = torch.full_like(images, 0.5)
    whole = patch_contributions(tiny, images, start, None, SIZE, 3, 1000)
    close(patch_contributions(tiny, images, start, None, SIZE, 3, 3), whole)
    whole = patch_token_contributions(tiny, images, start, None, modulation_tokens(tiny, None), SIZE, 3, 1000)
    close(patch_token_contributions(tiny, images, start, None, modulation_tokens(tiny, None), SIZE, 3, 5), whole)


def test_selected_patches_keep_their_order(tiny, images):
    start = torch.full_like(images, 0.5)
    given = (tiny, images, start, None, modulation_tokens(tiny, None), SIZE, 3, 5)
    close(patch_token_contributions(*given, [3, 1]), patch_token_contributions(*given)[:, [3, 1]])
    for wrong in ([4], [-1], []):
        with pytest.raises(ValueError, match=r"patches are .*; expected one or more of 0 to 3"):
            patch_token_contributions(*given, wrong)


def test_composed_contributions_sum_to_patches(tiny, images):
    """The chain rule inside the integral: with the same steps the sums are equal, not only close."""
    start, seen = torch.full_like(images, 0.5), torch.tensor([[True, True, False, True]] * 2)
    patches = patch_contributions(tiny, images, start, seen, SIZE, 4, 1000)
    composed = patch_token_contributions(tiny, images, start, seen, modulation_tokens(tiny, None), SIZE, 4, 1000)
    close(composed.sum(2), patches)
    assert (composed[:, 2] == 0).all() and composed[:, 0].abs().sum() > 0
    close(
        patch_token_contributions(tiny, images, start, seen, modulation_tokens(tiny, 1), SIZE, 4, 1000).sum(2), patches
    )


def test_layers_are_parts_of_all_tokens(tiny, images):
    x, x0 = tiny.modulations(images), tuple(mean[None] for mean in tiny.mean_modulations)
    every = modulation_contributions(tiny, x, x0, modulation_tokens(tiny, None), SIZE, 3, 1000)
    for layer in range(3):
        one = modulation_contributions(tiny, x, x0, modulation_tokens(tiny, layer), SIZE, 3, 1000)
        close(one[:, :3], every[:, 3 * layer : 3 * layer + 3])
        close(one.sum(1), every.sum(1))


def test_midpoints_and_batch_sizes(tiny):
    assert list(midpoints(4)) == [0.125, 0.375, 0.625, 0.875]
    with pytest.raises(ValueError, match="n_steps is 0; expected at least 1"):
        midpoints(0)
    writer = tiny.writer
    assert writer.max_batch_size(SIZE, 7) == 7
    assert 1 <= writer.max_batch_size((600, 600)) < writer.max_batch_size(SIZE)
    assert writer.max_batch_size(SIZE, data_tokens=10_000) < writer.max_batch_size(SIZE)
    with pytest.raises(ValueError, match="internal_batch_size is 0; expected at least 1"):
        writer.max_batch_size(SIZE, 0)


def test_neuron_contributions_equal_hand_computed_ones():
    """One point, γ = 1; two neurons with 2 and -1, so one is silent; then 3 · 2 + 1 = 7 and 0.5 at the end."""
    weights = Weights(
        (torch.tensor([[[2.0], [-1.0]]]), torch.tensor([[[3.0, 10.0]]])), (torch.zeros(2), torch.tensor([1.0]))
    )
    shares, rest = neuron_contributions(torch.ones(1, 1), weights, 0, 0.5)
    assert shares.tolist() == [[[[6.0, 0.0]]]] and rest.tolist() == [[[1.5]]]
    shares, rest = neuron_contributions(torch.ones(1, 1), weights, 1, 0.5)
    assert shares.tolist() == [[[[7.0]]]] and rest.tolist() == [[[0.5]]]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_i1_i2_neurons_and_rest_sum_to_the_image_at_every_layer(tiny, layer):
    images = torch.rand(2, 3, 6, 6).double()
    with torch.no_grad():
        weights = tiny.weights(tiny.modulations(images))
        shares, rest = neuron_contributions(tiny.encoded((6, 6)), weights, layer, 0.5)
        drawn = tiny(images).flatten(2).mT
    torch.testing.assert_close(shares.sum(-1) + rest, drawn, atol=1e-10, rtol=0)
    assert shares.shape == (2, 36, 3, 3 if layer == 2 else 6)


def test_neuron_contributions_equal_a_neuron_canvas(tiny):
    """The tangent rule on a generated network, neuron by neuron."""
    images = torch.rand(2, 3, 6, 6).double()
    where = pixel_centres((6, 6), dtype=torch.float64)
    for layer, name in enumerate(("activation1", "activation2")):
        with torch.no_grad():
            shares, _ = neuron_contributions(tiny.encoded((6, 6)), tiny.weights(tiny.modulations(images)), layer)
        for net, mine in zip(tiny.generate(images), shares, strict=True):
            canvas = NeuronCanvas(net, name).attribute(where)  # (pixels, neurons, channels)
            torch.testing.assert_close(mine.mT, canvas, atol=1e-10, rtol=0)


def test_i14_inactive_neurons_have_no_contribution(tiny):
    with torch.no_grad():
        tiny.writer.base.linear2.bias[1] = -100.0
        weights = tiny.weights(tiny.modulations(torch.rand(2, 3, 6, 6).double()))
        shares, _ = neuron_contributions(tiny.encoded((6, 6)), weights, 1)
    assert (shares[..., 1] == 0).all() and shares[..., 0].abs().sum() > 0


def test_contributions_of_the_last_hidden_layer_are_bounded_by_its_neurons(tiny):
    """|C| <= h since no weight of a column of length 1 exceeds 1."""
    with torch.no_grad():
        weights = tiny.weights(tiny.modulations(torch.rand(2, 3, 6, 6).double()))
        shares, _ = neuron_contributions(tiny.encoded((6, 6)), weights, 1)
        h = tiny.encoded((6, 6))
        for matrix, bias in zip(weights.matrices[:2], weights.biases[:2], strict=True):
            h = (h @ matrix.mT + bias).relu()
    assert (shares.abs() <= h[:, :, None] + 1e-12).all()


def test_i4_groups_partition_the_neurons():
    eye = torch.eye(6)
    members = sum_groups(eye, 3)  # (neuron, token)
    assert (members.sum(1) == 1).all() and (members.sum(0) == 2).all()
    assert members.argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
