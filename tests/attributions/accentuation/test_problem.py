import random

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum.attributions.accentuation import Crops, FeatureDistance, Noise, Schedule, Settings
from xinc_captum.attributions.accentuation.activations import ImageModel
from xinc_captum.attributions.accentuation.objectives import Objective, OutputFeature, channel, logit
from xinc_captum.attributions.accentuation.problem import Problem
from xinc_captum.batch import Batch

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIZE = (8, 8)
THREE = (Crops(3),)


def make_problem(net, objective, *, seeds=X, args=(), contrast=None, preprocess=None, **options):
    """A problem whose models have run once."""
    settings = Settings(**{"transforms": THREE, "n_steps": 6, "n_draws": 2, "regularizer": None, **options})
    model = ImageModel(net, preprocess, size=SIZE)
    problem = Problem(model, OutputFeature(objective), settings, Batch.of(seeds, args), contrast=contrast)
    assert problem.target_score.objective is objective and (problem.contrast_score is None) == (contrast is None)
    return problem


def test_scores_are_means_over_the_views(smooth):
    problem = make_problem(smooth, logit(1))
    scores, distances = problem.evaluate(X, 0)
    views = problem._view(0, X)(X)
    assert distances is None and views.shape == (3, 2, 3, 8, 8)
    torch.testing.assert_close(scores, torch.stack([smooth(v)[:, 1] for v in views]).mean(0))
    torch.testing.assert_close(problem.score(X), smooth(X)[:, 1])
    assert not problem.score(X).requires_grad


def test_the_distance_is_between_the_same_views(smooth):
    regularizer = FeatureDistance(smooth[1])
    problem = make_problem(smooth, logit(1), transforms=(Crops(3), Noise(0.1)), regularizer=regularizer)
    candidate = (X + 0.1 * torch.rand_like(X)).clamp(0, 1)
    _, distances = problem.evaluate(candidate, 0)
    show = problem._view(0, X)
    layer = lambda v: smooth[1](smooth[0](v))
    expected = [regularizer.distance(layer(a), layer(b)) for a, b in zip(show(candidate), show(X), strict=True)]
    torch.testing.assert_close(distances, torch.stack(expected).mean(0))
    torch.testing.assert_close(problem.evaluate(X, 1)[1], torch.zeros(2))


def test_seed_features_are_computed_once_for_each_draw_without_a_graph(smooth):
    calls = []
    smooth[1].register_forward_hook(lambda m, a, out: calls.append((torch.is_grad_enabled(), "layer")))
    smooth[6].register_forward_hook(lambda m, a, out: calls.append((torch.is_grad_enabled(), "end")))
    problem = make_problem(smooth, logit(1), regularizer=FeatureDistance(smooth[1]))
    calls.clear()
    for step in range(6):
        problem.evaluate(X, step)
    candidate, seed = [(True, "layer"), (True, "end")], [(False, "layer")]
    assert calls == 2 * (candidate + seed) + 4 * candidate


def test_draws_repeat_and_differ(smooth):
    problem = make_problem(smooth, logit(1), n_draws=2)
    first, second, again = (problem.evaluate(X, step)[0] for step in (0, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert not torch.equal(first, make_problem(smooth, logit(1), seed=1).evaluate(X, 0)[0])


def test_a_schedule_runs_over_all_steps(smooth):
    zoom = Crops(1, side=(Schedule(0.2, 1.0), 1.0))
    problem = make_problem(smooth, logit(1), transforms=(zoom,), n_steps=5, n_draws=2)
    assert problem.n_draws == 5
    last = problem._view(4, X)(X)
    torch.testing.assert_close(last[0], X, atol=1e-5, rtol=0)


def test_the_score_of_a_contrast_is_subtracted(smooth):
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    problem = make_problem(smooth, logit(1), contrast=(ImageModel(other, size=SIZE), OutputFeature(logit(2))))
    torch.testing.assert_close(problem.score(X), smooth(X)[:, 1] - other(X)[:, 2])
    views = problem._view(0, X)(X)
    torch.testing.assert_close(
        problem.evaluate(X, 0)[0], torch.stack([smooth(v)[:, 1] - other(v)[:, 2] for v in views]).mean(0)
    )


def test_additional_arguments_are_repeated_for_every_view(smooth):
    forward = lambda x, scale, word: smooth(x) * scale
    scale = torch.tensor([[2.0], [3.0]])
    scored = make_problem(forward, logit(1), args=(scale, "word")).evaluate(X, 0)[0]
    torch.testing.assert_close(scored, make_problem(smooth, logit(1)).evaluate(X, 0)[0] * scale[:, 0])


def test_larger_images_are_resized_to_the_model_input():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    big = torch.rand(1, 3, 20, 30)
    problem = make_problem(net, logit(0), seeds=X[:1])
    assert problem.evaluate(big, 0)[0].shape == problem.score(big).shape == (1,)


def test_the_forward_pass_ends_at_the_last_layer_of_the_objective(smooth):
    ran = []
    smooth[3].register_forward_hook(lambda *_: ran.append(1))
    problem = make_problem(smooth, channel("1", 2))
    ran.clear()
    problem.evaluate(X, 0), problem.score(X)
    assert not ran


def test_an_objective_without_one_number_for_each_view_raises(smooth):
    problem = make_problem(smooth, Objective(lambda seen: seen("0").mean(), "mine"))
    with pytest.raises(ValueError, match=r"the objective returned shape \(\) for 6 views; expected one number a view"):
        problem.evaluate(X, 0)


def jittered(x):
    return torch.roll(x, (np.random.randint(-3, 4), random.randint(-3, 3)), (2, 3)) + 0.1 * np.random.rand()


def test_distance_of_the_seed_to_itself_is_zero_with_any_random_transform(smooth):
    rng = np.random.default_rng(1)
    for transforms in ((jittered,), (Crops(2), jittered, lambda x: x * rng.random()), [jittered, Noise(0.1)]):
        problem = make_problem(smooth, logit(1), transforms=transforms, regularizer=FeatureDistance(smooth[1]))
        for step in range(4):
            torch.testing.assert_close(problem.evaluate(X, step)[1], torch.zeros(2))
        assert len({problem._view(slot, X)(X).sum().item() for slot in (0, 1)}) == 2, "and draws differ"


def test_random_preprocessing_and_dropout_use_the_same_draws(smooth):
    net = nn.Sequential(nn.Dropout2d(0.5), smooth)
    noisy = lambda x: torch.where(torch.rand_like(x) > 0.3, x, np.random.rand())
    problem = make_problem(net, logit(1), preprocess=noisy, regularizer=FeatureDistance(smooth[1]))
    for step in range(4):
        torch.testing.assert_close(problem.evaluate(X, step)[1], torch.zeros(2))
    assert torch.equal(problem.score(X), problem.score(X)), "scores of before and after can be compared"


def test_a_transform_with_a_state_of_its_own_raises(smooth):
    calls = iter(range(100))
    options = {"transforms": [lambda x: x * (0.5 + 0.01 * next(calls))]}
    problem = make_problem(smooth, logit(1), regularizer=FeatureDistance(smooth[1]), **options)
    with pytest.raises(ValueError, match="transforms returned two different views of one image"):
        problem.evaluate(X, 0)
    make_problem(smooth, logit(1), **options).evaluate(X, 0)
