import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from attributions.accentuation.problems import stub
from torch import nn

from xinc_captum.attributions.accentuation import (
    Crops,
    FeatureDistance,
    Fourier,
    Noise,
    Pixel,
    Schedule,
    Settings,
)
from xinc_captum.attributions.accentuation.activations import ModelInputs
from xinc_captum.attributions.accentuation.objectives import Feature, Objective, channel, logit
from xinc_captum.attributions.accentuation.optimization import Problem, StopAtLevel, balance, optimize
from xinc_captum.batch import Batch

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIZE = (8, 8)
THREE = (Crops(3),)


def make_problem(net, objective, *, seeds=X, args=(), contrast=None, preprocess=None, **options):
    """A problem whose models have run once."""
    settings = Settings(**{"transforms": THREE, "n_steps": 6, "n_draws": 2, "regularizer": None, **options})
    model = ModelInputs(net, preprocess, size=SIZE)
    problem = Problem(model, Feature(objective), settings, Batch.of(seeds, args), contrast=contrast)
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
    problem = make_problem(smooth, logit(1), contrast=(ModelInputs(other, size=SIZE), Feature(logit(2))))
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


CLOSE = {"atol": 1e-5, "rtol": 0}


def leaf(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1).requires_grad_()


def run(p, evaluate, *, weight=0.0, stop=None, **options):
    return optimize(stub(evaluate, p, **options), ((p,), lambda: p * 1), weight=weight, stop=stop)


def total(x, _step=0):
    return x.sum((1, 2, 3)), None


def test_adams_first_step_by_hand():
    """Its first step is lr along the sign of the gradient; rows may have opposite signs."""
    p = leaf(0.5, 0.5)
    stop = SimpleNamespace(sign=torch.tensor([1.0, -1.0]), live=lambda: torch.ones(2), after=lambda step: False)
    result = run(p, lambda x, _: (3 * x.sum((1, 2, 3)), None), lr=0.1, stop=stop)
    assert p.flatten().tolist() == pytest.approx([0.6, 0.4], abs=1e-6)
    assert result.scores.tolist() == [[1.5, 1.5]]
    assert result.masks.flatten().tolist() == [3, 3]
    assert (result.steps, result.interrupted, result.distances) == (1, False, None)


def test_the_distance_is_subtracted_and_not_part_of_the_mask():
    p = leaf(1.0)
    evaluate = lambda x, _: (2 * x.sum((1, 2, 3)), 5 * x.square().sum((1, 2, 3)))
    result = run(p, evaluate, n_steps=3, weight=1.0, mask_every=2, distance=True)
    assert p.item() < 1
    assert result.masks.item() == 4, "steps 0 and 2"
    assert result.distances.shape == (3, 1) and result.distances[0].item() == 5


def test_rows_at_their_level_do_not_enter_the_mask():
    live = [torch.ones(2)]

    def after(_step):
        live[0] = torch.tensor([1.0, 0.0])

    stop = SimpleNamespace(sign=1.0, live=lambda: live[0], after=after)
    result = run(leaf(0.0, 0.0), total, n_steps=3, stop=stop)
    assert result.masks.flatten().tolist() == [3, 1]
    assert result.scores[1:, 1].isnan().all() and result.scores[:, 0].isfinite().all()


def test_it_stops_when_a_callback_returns_true():
    calls = []
    result = run(leaf(0.0), total, n_steps=9, on_step=lambda step, x, s: calls.append((step, x.shape)) or step == 2)
    assert result.steps == 2 and len(result.scores) == 3
    assert calls == [(0, (1, 1, 1, 1)), (1, (1, 1, 1, 1)), (2, (1, 1, 1, 1))]
    stop = SimpleNamespace(sign=1.0, live=lambda: torch.ones(1), after=lambda step: step == 4)
    assert run(leaf(0.0), total, n_steps=9, stop=stop).steps == 4


def test_a_row_without_any_gradient_is_named():
    with pytest.raises(ValueError, match=r"unit does not respond: its gradient is zero everywhere in image 1 \("):
        run(leaf(1.0, -1.0), lambda x, _: (x.relu().sum((1, 2, 3)), None))


@pytest.mark.parametrize("where", ["evaluate", "on_step"])
def test_ctrl_c_keeps_the_finished_steps(where):
    p = leaf(0.0)

    def interrupt(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    def score(x, step):
        if where == "evaluate":
            interrupt(step)
        return x.sum((1, 2, 3)), x.square().sum((1, 2, 3))

    result = run(p, score, n_steps=9, on_step=interrupt if where == "on_step" else None)
    assert result.interrupted and result.steps == 3
    assert result.scores.shape == result.distances.shape == (3, 1)
    assert p.item() == pytest.approx(0.15, abs=1e-4)


def test_ctrl_c_before_the_first_update_is_raised():
    with pytest.raises(KeyboardInterrupt):
        run(leaf(0.0), total, on_step=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))


@pytest.mark.parametrize("name", ["fourier", "pixel"])
def test_recorded_trajectories(recorded, tiny, name):
    x, images = recorded["seed_image"], []
    params, decode = (Fourier if name == "fourier" else Pixel)(margin=1e-6).at(x)
    leaves = tuple(p.clone().requires_grad_() for p in params)
    evaluate = lambda x, _: (logit(3)(tiny.run(x, (), [], to_output=True)), None)
    problem = stub(evaluate, x, n_steps=6, on_step=lambda step, x, scores: images.append(x))
    result = optimize(problem, (leaves, lambda: decode(leaves)))
    torch.testing.assert_close(
        torch.cat(images)[recorded["traj_steps"]], recorded[f"traj_{name}_noreg_images"], **CLOSE
    )
    alpha = recorded[f"traj_{name}_noreg_alpha"]
    assert (result.masks - alpha).abs().max() <= 1e-4 * alpha.abs().max()
    torch.testing.assert_close(result.scores[:, 0].double(), recorded[f"traj_{name}_noreg_loss"], atol=0, rtol=1e-5)


def test_recorded_trajectory_with_a_distance(recorded, tiny):
    """From a start that is not the seed, where the original's plain norm has a gradient."""
    regularizer, layer, images = FeatureDistance(smooth=0), tiny.module("relu1"), []
    leaves, weight = (recorded["perturbed_params"].clone().requires_grad_(),), float(recorded["traj_fixedreg_lambda"])
    features = tiny.run(recorded["seed_image"], (), [layer], to_output=False)(layer).detach()

    def evaluate(x, _step):
        activations = tiny.run(x, (), [layer], to_output=True)
        return logit(3)(activations), regularizer.distance(activations(layer), features)

    options = {"n_steps": 6, "distance": True, "on_step": lambda step, x, scores: images.append(x)}
    problem = stub(evaluate, recorded["seed_image"], **options)
    result = optimize(problem, (leaves, lambda: Fourier().decode(leaves, (64, 64))), weight=weight)
    torch.testing.assert_close(torch.cat(images)[recorded["traj_steps"]], recorded["traj_fixedreg_images"], **CLOSE)
    alpha = recorded["traj_fixedreg_alpha"]
    assert (result.masks - alpha).abs().max() <= 1e-4 * alpha.abs().max()
    losses = result.scores.double() - weight * result.distances.double()
    torch.testing.assert_close(result.scores[:, 0].double(), recorded["traj_fixedreg_target_loss"], atol=0, rtol=1e-5)
    torch.testing.assert_close(losses[:, 0], recorded["traj_fixedreg_loss"], atol=0, rtol=1e-5)


def test_the_balance_by_hand():
    """f = 6x and d = 2x + 2: three times as steep, in either row, and the parameters are restored."""
    p = torch.rand(2, 1, 3, 4, requires_grad=True)
    before = p.detach().clone()
    evaluate = lambda x, _: (6 * x.sum((1, 2, 3)), 2 * x.sum((1, 2, 3)) + 2)
    result = balance(stub(evaluate, p), ((p,), lambda: p * 1))
    torch.testing.assert_close(result, torch.tensor([3.0, 3.0]))
    assert torch.equal(p, before) and p.grad is None


def test_the_balance_is_measured_near_the_start():
    """d = (x - x0)² / 2 has no gradient at the start; at a root mean square of .01 its mean |gradient| is near .008."""
    start = torch.full((1, 1, 40, 40), 0.5)
    p = start.clone().requires_grad_()
    evaluate = lambda x, _: (x.sum((1, 2, 3)), (x - start).square().sum((1, 2, 3)) / 2)
    measure = lambda seed: balance(stub(evaluate, p, seed=seed), ((p,), lambda: p * 1))
    result = measure(0)
    assert float(result) == pytest.approx(1 / (0.01 * (2 / torch.pi) ** 0.5), rel=0.05)
    assert torch.equal(result, measure(0))
    assert not torch.equal(result, measure(1))


def stop_at(start, level):
    """Rows whose score is their parameter."""
    p = torch.tensor(start).reshape(-1, 1)
    return p, StopAtLevel((p,), lambda: p[:, 0].clone(), torch.tensor(start), torch.tensor(level))


def walk(p, stop, steps):
    ended = []
    for step in steps:
        p += torch.tensor(step).reshape(-1, 1)
        ended.append(stop.after(len(ended) + 1))
    return ended


def test_each_row_stops_at_its_level():
    p, stop = stop_at([0.0, 0.0, 0.0], [0.25, -0.7, 0.0])
    assert stop.live().tolist() == [1, 1, 0], "the third row is at its level from the start"
    assert walk(p, stop, [[0.2, -0.2, 0.2]] * 4) == [False, False, False, True]
    assert stop.live().tolist() == [0, 0, 0]
    reached = stop.finish()
    assert reached.tolist() == pytest.approx([0.25, -0.7, 0], abs=2e-4)
    assert torch.equal(p[:, 0], reached)
    assert reached[0] >= 0.25 and reached[1] <= -0.7, "never short of it"


def test_a_level_out_of_reach_gives_the_nearest_score():
    p, stop = stop_at([1.0, 1.0], [9.0, -9.0])
    assert walk(p, stop, [[0.5, -0.5], [0.5, -0.5], [-1.5, 1.5]]) == [False, False, False]
    assert stop.finish().tolist() == [2.0, 0.0]


def test_without_any_improvement_the_result_is_the_start():
    p, stop = stop_at([1.0], [2.0])
    walk(p, stop, [[-0.5], [-0.5]])
    assert stop.finish().tolist() == [1.0]


def test_higher_levels_lie_further_along_the_same_path():
    ends = []
    for level in torch.linspace(0.1, 2.0, 20).tolist():
        p, stop = stop_at([0.0], [level])
        walk(p, stop, [[0.3]] * 8)
        ends.append(float(stop.finish()))
    assert ends == sorted(ends) and len(set(ends)) == 20
