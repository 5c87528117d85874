from types import SimpleNamespace

import pytest
import torch
from attributions.accentuation.problems import stub

from xinc_captum.attributions.accentuation import FeatureDistance, Fourier, Pixel
from xinc_captum.attributions.accentuation.objectives import logit
from xinc_captum.attributions.accentuation.optimize import StopAtLevel, balance, optimize

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
    assert result.mask.flatten().tolist() == [3, 3]
    assert (result.steps, result.interrupted, result.distances) == (1, False, None)


def test_the_distance_is_subtracted_and_not_part_of_the_mask():
    p = leaf(1.0)
    evaluate = lambda x, _: (2 * x.sum((1, 2, 3)), 5 * x.square().sum((1, 2, 3)))
    result = run(p, evaluate, n_steps=3, weight=1.0, mask_every=2, distance=True)
    assert p.item() < 1
    assert result.mask.item() == 4, "steps 0 and 2"
    assert result.distances.shape == (3, 1) and result.distances[0].item() == 5


def test_rows_at_their_level_do_not_enter_the_mask():
    live = [torch.ones(2)]

    def after(_step):
        live[0] = torch.tensor([1.0, 0.0])

    stop = SimpleNamespace(sign=1.0, live=lambda: live[0], after=after)
    result = run(leaf(0.0, 0.0), total, n_steps=3, stop=stop)
    assert result.mask.flatten().tolist() == [3, 1]
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
    assert (result.mask - alpha).abs().max() <= 1e-4 * alpha.abs().max()
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
    assert (result.mask - alpha).abs().max() <= 1e-4 * alpha.abs().max()
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
