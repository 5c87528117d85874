import copy

import pytest
import torch

from xinc_captum import NeuronCanvas, TokenContribution, TransINR
from xinc_captum.attributions.trans_inr import Weights
from xinc_captum.attributions.trans_inr.token_contribution import (
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
from xinc_captum.metrics import completeness_error

SIZE = (6, 6)


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def fitted():
    """Fitted for a moment, so that means and pictures differ; in float64."""
    images = torch.rand(24, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(images, (8, 8), mode="bicubic").clamp(0, 1)
    model = TransINR(dim=16, depth=1, ff=16, hidden=8, count=3, groups=4, init_std=0.3, seed=0)
    model.fit(images, steps=60, lr=5e-3, warmup=5, validation=None, show_progress=False)
    return model.double(), images[:2].double()


@pytest.mark.parametrize("layer", [None, 0, 1, 2, "output", -1])
def test_tokens_and_rest_sum_to_the_image(fitted, layer):
    model, images = fitted
    parts = TokenContribution(model, "token").attribute(images, layer=layer)
    assert parts.shape == (2, 2 if layer in (2, -1, "output") else 5, 1, 8, 8)
    with torch.no_grad():
        close(parts.sum(1), model(images))
        assert torch.equal(model(images), model(images))


def test_contribution_of_a_last_hidden_token_is_the_effect_of_its_removal(fitted):
    """Removing a token's neurons of the last hidden layer from a generated network changes it by exactly their part."""
    model, images = fitted
    parts = TokenContribution(model, "token").attribute(images, layer="linear2")
    net = model.generate(images)[0]
    with torch.no_grad():
        net.output.weight[:, 1::4] = 0.0
        drawn = net(pixel_centres((8, 8), dtype=torch.float64)).T.reshape(1, 8, 8)
        close(model(images)[0] - drawn, parts[0, 1])


@pytest.mark.parametrize("level", ["modulation", "patch"])
def test_i10_integrated_contributions_and_rest_sum_to_the_image_up_to_the_delta(fitted, level):
    """<= .5 % of the change at 64 steps; the gap is what return_convergence_delta says."""
    model, images = fitted[0], fitted[1][:1]
    method = TokenContribution(model, level)
    parts, delta = method.attribute(images, return_convergence_delta=True)
    assert parts.shape == (1, (9 if level == "modulation" else 16) + 1, 1, 8, 8)
    with torch.no_grad():
        drawn = model(images)
    change = (drawn - parts[:, -1]).abs().sum()
    assert change > 0.2, "the baseline is another picture"
    assert (parts.sum(1) - drawn).abs().sum() / change < 0.005
    close(delta, (parts.sum(1) - drawn).flatten(1).sum(1))
    coarse = method.attribute(images, n_steps=1)
    assert completeness_error(coarse, drawn) > completeness_error(parts, drawn)


def test_rest_is_the_image_of_the_baseline(fitted):
    model, images = fitted
    with torch.no_grad():
        means = tuple(mean[None] for mean in model.mean_modulations)
        close(
            parts_of(model, "modulation", images)[:, -1],
            model.paint(model.weights(means), (8, 8)).expand(2, -1, -1, -1),
        )
        close(parts_of(model, "patch", images)[:, -1], model(model.mean_image[None]).expand(2, -1, -1, -1))
        close(parts_of(model, "patch", images, baselines=0.0)[:, -1], model(torch.zeros_like(images)))
        close(parts_of(model, "patch", images, baselines=images.flip(0))[:, -1], model(images.flip(0)))
        bare = model.paint(model.weights(tuple(torch.ones_like(mean) for mean in means)), (8, 8))
        close(parts_of(model, "modulation", images, baselines=1.0)[0, -1], bare[0])
        of_one = parts_of(model, "modulation", images, baselines=images[:1])
        close(of_one[0, :-1], torch.zeros_like(of_one[0, :-1]))
        close(of_one[1, -1], model(images[:1])[0])


def parts_of(model, level, images, **arguments):
    return TokenContribution(model, level).attribute(images, **{"n_steps": 2, **arguments})


def test_rest_includes_the_other_layers(fitted):
    model, images = fitted
    every = parts_of(model, "modulation", images)
    one = parts_of(model, "modulation", images, layer="linear2")
    assert one.shape == (2, 5, 1, 8, 8)
    close(one[:, :4], every[:, 4:8])
    close(one.sum(1), every.sum(1))


def test_composed_contributions_sum_to_patches(fitted):
    model, images = fitted
    patches = parts_of(model, "patch", images)
    composed = TokenContribution(model, "patch").composed(images, n_steps=2)
    assert composed.shape == (2, 16, 9, 1, 8, 8)
    close(composed.sum(2), patches[:, :-1])
    close(TokenContribution(model).composed(images, n_steps=2, patches=[9, 4]), composed[:, [9, 4]])
    last = TokenContribution(model).composed(images, 0, "output", n_steps=2)
    assert last.shape == (2, 16, 2, 8, 8)
    close(last[:, :, 0], composed[:, :, 8, 0])


def test_masked_patches_have_no_contribution(fitted):
    model, images = fitted
    seen = torch.ones(16, dtype=torch.bool)
    seen[5] = False
    parts = parts_of(model, "patch", images, seen=seen)
    assert (parts[:, 5] == 0).all() and (parts[:, 4].abs().sum((1, 2, 3)) > 0).all()
    with torch.no_grad():
        close(parts_of(model, "token", images, seen=seen).sum(1), model(images, seen))


def test_images_of_another_size(fitted):
    model, _ = fitted
    images = torch.rand(2, 1, 8, 12).double()
    for level, entries in (("token", 5), ("modulation", 10), ("patch", 25)):
        parts = parts_of(model, level, images, size=(5, 7))
        assert parts.shape == (2, entries, 1, 5, 7)
    with torch.no_grad():
        close(parts_of(model, "token", images, size=(5, 7)).sum(1), model(images, size=(5, 7)))


def test_single_vector_hypernetwork_has_a_modulation_for_each_neuron():
    model, images = TransINR(hidden=8, groups="vector", seed=0).double(), torch.rand(2, 1, 8, 8).double()
    for level, entries in (("token", 9), ("modulation", 18)):
        assert parts_of(model, level, images).shape == (2, entries, 1, 8, 8)
    with torch.no_grad():
        close(parts_of(model, "token", images).sum(1), model(images))


@pytest.mark.parametrize(
    ("level", "arguments", "text"),
    [
        ("token", {"layer": "linear9"}, "layer is 'linear9'; expected one of linear1, linear2, output, or -3 to 2"),
        ("token", {"baselines": 0.0}, "level 'token' has no baseline; leave them out"),
        ("patch", {"layer": 1}, "layer is 1, but level 'patch' uses all layers; leave it out"),
        ("modulation", {"baselines": 0}, "weights of length 0 cannot be normalised; expected another number"),
        (
            "patch",
            {"baselines": torch.rand(1, 4, 4)},
            r"baselines have shape \(1, 4, 4\); expected an image \(1, 8, 8\), or on",
        ),
        ("modulation", {"n_steps": 0}, "n_steps is 0; expected at least 1"),
        ("token", {"internal_batch_size": 0}, "internal_batch_size is 0; expected at least 1"),
        (
            "patch",
            {"seen": torch.ones(3, dtype=torch.bool)},
            r"seen is torch.bool of shape \(3,\); expected torch.bool",
        ),
        ("token", {"inputs": torch.rand(2, 1, 7, 8)}, r"an image of \(7, 8\) pixels .* does not tile into patches"),
        ("token", {"inputs": torch.full((1, 1, 8, 8), float("inf"))}, "images hold NaN or infinity"),
        ("token", {"target": 1}, r"target 1 does not fit the output's shape \(2, 1, 8, 8, 5\)"),
    ],
)
def test_invalid_arguments_are_refused(fitted, level, arguments, text):
    model, images = fitted
    with pytest.raises(ValueError, match=text):
        TokenContribution(model, level).attribute(**{"inputs": images, **arguments})


def test_other_models_and_levels_are_refused(fitted):
    with pytest.raises(
        TypeError, match=r"trans_inr is a Linear; expected a xinc_captum.attributions.trans_inr.TransINR"
    ):
        TokenContribution(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="trans_inr is a function"):
        TokenContribution(lambda x: x)
    with pytest.raises(ValueError, match="level is 'pixel'; expected one of 'token', 'modulation', 'patch'"):
        TokenContribution(copy.deepcopy(fitted[0]), "pixel")


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


def test_chain_rule_sums_composed_contributions_to_patches(tiny, images):
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
