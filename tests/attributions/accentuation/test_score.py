import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.attributions.accentuation import Ball, Crops, FeatureDistance, Fourier, Noise, Schedule
from xinc_captum.attributions.accentuation.activations import ImageModel, needs
from xinc_captum.attributions.accentuation.objectives import Objective, channel, logit
from xinc_captum.attributions.accentuation.score import Aim, Scene

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def aim(net, objective, images=X, args=()):
    model = ImageModel(net)
    layers, whole = needs(model, images, args, objective)
    return Aim(model, objective, tuple(layers), whole)


THREE = (Crops(3),)


def scene(net, objective, *, seeds=X, args=(), transforms=THREE, size=(8, 8), steps=6, bank=2, seed=0, **more):
    goal = aim(net, objective, seeds, args)
    return Scene(goal, seeds, args, transforms, size, steps, bank, seed, **more)


def test_scores_are_means_over_the_views(smooth):
    found = scene(smooth, logit(1))
    scores, distances = found.evaluate(X, 0)
    views = found._view(0, X)(X)
    assert distances is None and views.shape == (3, 2, 3, 8, 8)
    torch.testing.assert_close(scores, torch.stack([smooth(v)[:, 1] for v in views]).mean(0))
    torch.testing.assert_close(found.clean(X), smooth(X)[:, 1])
    assert not found.clean(X).requires_grad


def test_the_distance_is_between_the_same_views(smooth):
    regularizer = FeatureDistance()
    found = scene(smooth, logit(1), transforms=(Crops(3), Noise(0.1)), distance=(regularizer, smooth[1]))
    candidate = (X + 0.1 * torch.rand_like(X)).clamp(0, 1)
    _, distances = found.evaluate(candidate, 0)
    show = found._view(0, X)
    layer = lambda v: smooth[1](smooth[0](v))
    expected = [regularizer.distance(layer(a), layer(b)) for a, b in zip(show(candidate), show(X), strict=True)]
    torch.testing.assert_close(distances, torch.stack(expected).mean(0))
    torch.testing.assert_close(found.evaluate(X, 1)[1], torch.zeros(2))


def test_the_seed_is_read_once_a_draw_without_a_graph_and_no_further(smooth):
    seen = []
    smooth[1].register_forward_hook(lambda m, a, out: seen.append((torch.is_grad_enabled(), "layer")))
    smooth[6].register_forward_hook(lambda m, a, out: seen.append((torch.is_grad_enabled(), "end")))
    found = scene(smooth, logit(1), distance=(FeatureDistance(), smooth[1]))
    seen.clear()
    for step in range(6):
        found.evaluate(X, step)
    candidate, seed = [(True, "layer"), (True, "end")], [(False, "layer")]
    assert seen == 2 * (candidate + seed) + 4 * candidate


def test_draws_come_again_and_differ(smooth):
    found = scene(smooth, logit(1), bank=2)
    first, second, again = (found.evaluate(X, step)[0] for step in (0, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert not torch.equal(first, scene(smooth, logit(1), seed=1).evaluate(X, 0)[0])


def test_a_schedule_runs_over_all_steps(smooth):
    zoom = Crops(1, side=(Schedule(0.2, 1.0), 1.0))
    found = scene(smooth, logit(1), transforms=(zoom,), steps=5, bank=2)
    assert found.bank == 5
    last = found._view(4, X)(X)
    torch.testing.assert_close(last[0], X, atol=1e-5, rtol=0)


def test_what_is_lowered_is_subtracted(smooth):
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    found = scene(smooth, logit(1), lowered=aim(other, logit(2)))
    torch.testing.assert_close(found.clean(X), smooth(X)[:, 1] - other(X)[:, 2])
    views = found._view(0, X)(X)
    torch.testing.assert_close(
        found.evaluate(X, 0)[0], torch.stack([smooth(v)[:, 1] - other(v)[:, 2] for v in views]).mean(0)
    )


def test_arguments_come_along_in_every_view(smooth):
    forward = lambda x, scale, word: smooth(x) * scale
    scale = torch.tensor([[2.0], [3.0]])
    scored = scene(forward, logit(1), args=(scale, "word")).evaluate(X, 0)[0]
    torch.testing.assert_close(scored, scene(smooth, logit(1)).evaluate(X, 0)[0] * scale[:, 0])


def test_larger_pictures_are_looked_at_in_the_models_size():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    big = torch.rand(1, 3, 20, 30)
    found = scene(net, logit(0), seeds=X[:1])
    assert found.evaluate(big, 0)[0].shape == found.clean(big).shape == (1,)


def test_only_as_far_as_the_score_needs(smooth):
    ran = []
    smooth[3].register_forward_hook(lambda *_: ran.append(1))
    found = scene(smooth, channel("1", 2))
    ran.clear()
    found.evaluate(X, 0), found.clean(X)
    assert not ran


def test_a_score_that_is_not_one_number_a_view(smooth):
    found = scene(smooth, Objective(lambda seen: seen("0").mean(), "mine"))
    with pytest.raises(ValueError, match=r"the objective answered shape \(\) for 6 views; expected one number a view"):
        found.evaluate(X, 0)


def jittered(x):
    return torch.roll(x, (np.random.randint(-3, 4), random.randint(-3, 3)), (2, 3)) + 0.1 * np.random.rand()


def test_a_seed_is_nowhere_from_itself_whatever_transforms_draw_from(smooth):
    own = np.random.default_rng(1)
    for transforms in ((jittered,), (Crops(2), jittered, lambda x: x * own.random()), [jittered, Noise(0.1)]):
        found = scene(smooth, logit(1), transforms=transforms, distance=(FeatureDistance(), smooth[1]))
        for step in range(4):
            torch.testing.assert_close(found.evaluate(X, step)[1], torch.zeros(2))
        assert len({found._view(slot, X)(X).sum().item() for slot in (0, 1)}) == 2, "and draws differ"


def test_random_preprocessing_and_dropout_draw_alike(smooth):
    net = nn.Sequential(nn.Dropout2d(0.5), smooth)
    goal = aim(net, logit(1))
    shaky = ImageModel(net, lambda x: torch.where(torch.rand_like(x) > 0.3, x, np.random.rand()))
    found = Scene(replace(goal, model=shaky), X, (), THREE, (8, 8), 6, 2, 0, distance=(FeatureDistance(), smooth[1]))
    for step in range(4):
        torch.testing.assert_close(found.evaluate(X, step)[1], torch.zeros(2))
    assert torch.equal(found.clean(X), found.clean(X)), "scores of before and after can be compared"


def test_a_transform_with_a_state_of_its_own_is_refused(smooth):
    calls = iter(range(100))
    options = {"transforms": [lambda x: x * (0.5 + 0.01 * next(calls))]}
    found = scene(smooth, logit(1), distance=(FeatureDistance(), smooth[1]), **options)
    with pytest.raises(ValueError, match="transforms show one image in two ways when they are called twice"):
        found.evaluate(X, 0)
    scene(smooth, logit(1), **options).evaluate(X, 0)


def test_by_hand():
    """At one position the channels differ by 3 and 4, at the other by nothing."""
    seed = torch.zeros(1, 2, 1, 2)
    candidate = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    assert FeatureDistance(smooth=0).distance(candidate, seed).tolist() == [2.5]
    assert FeatureDistance(smooth=0).distance(candidate[..., 0, 0], seed[..., 0, 0]).tolist() == [5.0]
    seed = torch.tensor([[[[3.0, 3.0]], [[4.0, 4.0]]]])  # ε = 1 · 5
    assert FeatureDistance(smooth=1).distance(seed * 0, seed).tolist() == pytest.approx([50**0.5 - 5])


def test_tokens_are_positions():
    """(rows, tokens, channels), as transformers have them, is (rows, channels, tokens) turned."""
    a, b = torch.rand(2, 5, 3), torch.rand(2, 5, 3)
    for smooth in (0.0, 0.01):
        as_map = FeatureDistance(smooth=smooth).distance(a.mT[..., None], b.mT[..., None])
        torch.testing.assert_close(FeatureDistance(smooth=smooth).distance(a, b), as_map)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "relu2", "relu3", "fc"])
def test_recorded_distances(recorded, tiny, layer):
    image = Fourier(margin=1e-6).decode((recorded["perturbed_params"],), (64, 64))
    module = tiny.module(layer)
    value = tiny.run(torch.cat([image, recorded["seed_image"]]), (), [module], to_output=False)(module)
    ours = FeatureDistance(smooth=0).distance(value[:1], value[1:])
    # a distance of nearly equal activations: each of the C values rounds by some units in the last place, whatever is left
    rounding = 8 * torch.finfo(value.dtype).eps * value.shape[1] ** 0.5 * float(value.detach().abs().max())
    torch.testing.assert_close(-ours[0].double(), recorded[f"loss_l2_{layer}"], atol=rounding, rtol=1e-5)
    assert rounding < 1e-2 * float(ours.detach()), "and the bound still tells distances apart"


def test_recorded_gradient(recorded, tiny):
    params = recorded["perturbed_params"].clone().requires_grad_()
    image = Fourier(margin=1e-6).decode((params,), (64, 64))
    module = tiny.module("relu1")
    value = tiny.run(torch.cat([image, recorded["seed_image"]]), (), [module], to_output=False)(module)
    (slope,) = torch.autograd.grad(-FeatureDistance(smooth=0).distance(value[:1], value[1:]).sum(), params)
    theirs = recorded["grad_params_l2relu1"]
    assert (slope - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("smooth", [0.0, 0.01])
def test_at_the_seed_there_is_no_slope(smooth):
    seed = torch.randn(2, 4, 3, 3)
    here = seed.clone().requires_grad_()
    distance = FeatureDistance(smooth=smooth).distance(here, seed)
    (slope,) = torch.autograd.grad(distance.sum(), here)
    assert distance.abs().max() <= torch.finfo(torch.float32).eps and slope.abs().max() == 0


def test_beside_the_seed_rounding_stays_rounding():
    """The plain norm's gradient there is a unit vector; ours is as small as the distance."""
    seed = torch.randn(1, 4, 3, 3)
    slopes = []
    for smooth in (0.0, 0.01):
        near = (seed * (1 + 1e-7)).requires_grad_()
        (slope,) = torch.autograd.grad(FeatureDistance(smooth=smooth).distance(near, seed).sum(), near)
        slopes.append(float(slope.norm(dim=1).mean()) * 9)
    assert slopes[0] > 0.5 and slopes[1] < 1e-3


@given(seed=st.integers(0, 99), smooth=st.floats(0, 1), half=st.booleans())
def test_a_distance_is_finite_and_at_least_nothing(seed, smooth, half):
    torch.manual_seed(seed)
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    b[1] = 0
    if half:
        a, b = a.bfloat16(), b.bfloat16()
    distance = FeatureDistance(smooth=smooth).distance(a, b)
    assert distance.dtype == torch.float32 and (distance > 0).all() and distance.isfinite().all()
    plain = FeatureDistance(smooth=0).distance(a, b)
    assert (distance <= plain + 1e-6).all()


def test_balls_by_hand():
    seeds = torch.zeros(2, 1, 1, 2)
    images = torch.tensor([[[[3.0, 4.0]]], [[[0.3, 0.4]]]])
    assert Ball(1).project(images, seeds).flatten().tolist() == pytest.approx([0.6, 0.8, 0.3, 0.4])
    assert Ball(0.35, "Linf").project(images, seeds).flatten().tolist() == pytest.approx([0.35, 0.35, 0.3, 0.35])


@given(seed=st.integers(0, 99), radius=st.floats(0.01, 5), norm=st.sampled_from(["L2", "Linf"]))
def test_projecting_twice_is_projecting_once(seed, radius, norm):
    torch.manual_seed(seed)
    seeds, images = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    ball = Ball(radius, norm)
    once = ball.project(images, seeds)
    size = (once - seeds).flatten(1).norm(dim=1, p=2 if norm == "L2" else torch.inf)
    assert (size <= radius * (1 + 1e-5)).all()
    torch.testing.assert_close(ball.project(once, seeds), once, atol=1e-6, rtol=0)


def test_as_captums_pgd_projects():
    seeds, images = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    clip = lambda images, seeds, radius: seeds + (images - seeds).renorm(p=2, dim=0, maxnorm=radius)
    torch.testing.assert_close(Ball(0.5).project(images, seeds), clip(images, seeds, 0.5))


def test_impossible_ones():
    for wrong in ({"weight": -1}, {"smooth": -0.1}):
        with pytest.raises(ValueError, match=r"FeatureDistance\(weight=.*expected both at least 0"):
            FeatureDistance(**wrong)
    for wrong in ((0.0, "L2"), (1.0, "L1")):
        with pytest.raises(ValueError, match=r'Ball\(.*expected a radius above 0, and "L2" or "Linf"'):
            Ball(*wrong)
