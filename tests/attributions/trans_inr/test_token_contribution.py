import copy

import pytest
import torch

from xinc_captum import TokenContribution, TransINR
from xinc_captum.inr import pixel_centres
from xinc_captum.metrics import completeness_error


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
