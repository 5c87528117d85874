import pytest
import torch

from xinc_captum.attributions.accentuation import FeatureDistance, Fourier, Pixel, Steepest
from xinc_captum.attributions.accentuation.objectives import logit
from xinc_captum.attributions.accentuation.optimize import DeadError, Dosing, ascend, balance

CLOSE = {"atol": 1e-5, "rtol": 0}


def leaf(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1).requires_grad_()


def climb(p, score, **kwargs):
    return ascend((p,), lambda: p * 1, score, **{"n_steps": 1, **kwargs})


def test_adams_first_step_by_hand():
    """Its first step is lr along the sign of the gradient; rows may go opposite ways."""
    p = leaf(0.5, 0.5)
    found = climb(p, lambda x, _: (3 * x.sum((1, 2, 3)), None), lr=0.1, sign=torch.tensor([1.0, -1.0]))
    assert p.flatten().tolist() == pytest.approx([0.6, 0.4], abs=1e-6)
    assert found.scores.tolist() == [[1.5, 1.5]]
    assert found.mask.flatten().tolist() == [3, 3]
    assert (found.steps, found.interrupted, found.distances) == (1, False, None)


def test_the_distance_pulls_and_stays_out_of_the_mask():
    p = leaf(1.0)
    pull = lambda x, _: (2 * x.sum((1, 2, 3)), 5 * x.square().sum((1, 2, 3)))
    found = climb(p, pull, n_steps=3, weight=1.0, mask_every=2)
    assert p.item() < 1
    assert found.mask.item() == 4, "steps 0 and 2"
    assert found.distances.shape == (3, 1) and found.distances[0].item() == 5


def test_rows_that_have_arrived_count_no_more():
    p = leaf(0.0, 0.0)
    held = [torch.ones(2)]

    def live():
        return held[0]

    def after(_step):
        held[0] = torch.tensor([1.0, 0.0])

    found = climb(p, lambda x, _: (x.sum((1, 2, 3)), None), n_steps=3, live=live, after=after)
    assert found.mask.flatten().tolist() == [3, 1]
    assert found.scores[1:, 1].isnan().all() and found.scores[:, 0].isfinite().all()


def test_it_ends_when_told():
    seen = []
    score = lambda x, _: (x.sum((1, 2, 3)), None)
    found = climb(leaf(0.0), score, n_steps=9, on_step=lambda step, x, s: seen.append((step, x.shape)) or step == 2)
    assert found.steps == 2 and len(found.scores) == 3
    assert seen == [(0, (1, 1, 1, 1)), (1, (1, 1, 1, 1)), (2, (1, 1, 1, 1))]
    assert climb(leaf(0.0), score, n_steps=9, after=lambda step: step == 4).steps == 4


def test_a_row_without_any_gradient_is_named():
    with pytest.raises(DeadError, match=r"rows \[1\] do not respond") as caught:
        climb(leaf(1.0, -1.0), lambda x, _: (x.relu().sum((1, 2, 3)), None))
    assert caught.value.rows == [1]


@pytest.mark.parametrize("where", ["evaluate", "on_step"])
def test_ctrl_c_keeps_what_there_is(where):
    p = leaf(0.0)

    def interrupt(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    def score(x, step):
        if where == "evaluate":
            interrupt(step)
        return x.sum((1, 2, 3)), x.square().sum((1, 2, 3))

    found = climb(p, score, n_steps=9, weight=0.0, on_step=interrupt if where == "on_step" else None)
    assert found.interrupted and found.steps == 3
    assert found.scores.shape == found.distances.shape == (3, 1)
    assert p.item() == pytest.approx(0.15, abs=1e-4)


def test_ctrl_c_before_the_first_update_is_raised():
    with pytest.raises(KeyboardInterrupt):
        climb(
            leaf(0.0),
            lambda x, _: (x.sum((1, 2, 3)), None),
            on_step=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )


@pytest.mark.parametrize("name", ["fourier", "pixel"])
def test_recorded_trajectories(recorded, tiny, name):
    x, images = recorded["seed_image"], []
    params, decode = (Fourier if name == "fourier" else Pixel)(margin=1e-6).at(x)
    leaves = tuple(p.clone().requires_grad_() for p in params)
    found = ascend(
        leaves,
        lambda: decode(leaves),
        lambda x, _: (logit(3)(tiny.run(x, (), [], to_output=True)), None),
        n_steps=6,
        on_step=lambda step, x, scores: images.append(x),
    )
    seen = torch.cat(images)[recorded["traj_steps"]]
    torch.testing.assert_close(seen, recorded[f"traj_{name}_noreg_images"], **CLOSE)
    alpha = recorded[f"traj_{name}_noreg_alpha"]
    assert (found.mask - alpha).abs().max() <= 1e-4 * alpha.abs().max()
    torch.testing.assert_close(found.scores[:, 0].double(), recorded[f"traj_{name}_noreg_loss"], atol=0, rtol=1e-5)


def test_recorded_trajectory_with_a_distance(recorded, tiny):
    """From a start that is not the seed, where the original's plain norm has a slope of its own."""
    regularizer, layer, images = FeatureDistance(smooth=0), tiny.module("relu1"), []
    leaves, weight = (recorded["perturbed_params"].clone().requires_grad_(),), float(recorded["traj_fixedreg_lambda"])
    held = tiny.run(recorded["seed_image"], (), [layer], to_output=False)(layer).detach()

    def evaluate(x, _step):
        seen = tiny.run(x, (), [layer], to_output=True)
        return logit(3)(seen), regularizer.distance(seen(layer), held)

    found = ascend(
        leaves,
        lambda: Fourier().decode(leaves, (64, 64)),
        evaluate,
        n_steps=6,
        weight=weight,
        on_step=lambda step, x, scores: images.append(x),
    )
    torch.testing.assert_close(torch.cat(images)[recorded["traj_steps"]], recorded["traj_fixedreg_images"], **CLOSE)
    alpha = recorded["traj_fixedreg_alpha"]
    assert (found.mask - alpha).abs().max() <= 1e-4 * alpha.abs().max()
    losses = found.scores.double() - weight * found.distances.double()
    torch.testing.assert_close(found.scores[:, 0].double(), recorded["traj_fixedreg_target_loss"], atol=0, rtol=1e-5)
    torch.testing.assert_close(losses[:, 0], recorded["traj_fixedreg_loss"], atol=0, rtol=1e-5)


def test_the_balance_by_hand():
    """f = 6x and d = 2x + 2: three times as steep, in either row, and the parameters stay."""
    p = torch.rand(2, 1, 3, 4, requires_grad=True)
    before = p.detach().clone()
    total = lambda x: x.sum((1, 2, 3))
    found = balance((p,), lambda: p * 1, lambda x, _: (6 * total(x), 2 * total(x) + 2), seed=0)
    torch.testing.assert_close(found, torch.tensor([3.0, 3.0]))
    assert torch.equal(p, before) and p.grad is None


def test_the_balance_is_measured_a_little_beside_the_start():
    """d = (x - x0)² / 2 has no slope at the start; at a root mean square of .01 its mean |slope| is near .008."""
    start = torch.full((1, 1, 40, 40), 0.5)
    p = start.clone().requires_grad_()
    evaluate = lambda x, _: (x.sum((1, 2, 3)), (x - start).square().sum((1, 2, 3)) / 2)
    found = balance((p,), lambda: p * 1, evaluate, seed=0)
    assert float(found) == pytest.approx(1 / (0.01 * (2 / torch.pi) ** 0.5), rel=0.05)
    assert torch.equal(found, balance((p,), lambda: p * 1, evaluate, seed=0))
    assert not torch.equal(found, balance((p,), lambda: p * 1, evaluate, seed=1))


def stepped(*gradients, **kwargs):
    p = torch.zeros(2, 1, 2, requires_grad=True)
    optimizer = Steepest([p], **kwargs)
    for gradient in gradients:
        p.grad = torch.tensor(gradient).reshape(2, 1, 2)
        optimizer.step()
    return p.detach().reshape(2, 2)


def test_every_row_goes_as_far_whatever_its_gradient():
    moved = stepped([[3.0, 4.0], [-0.003, 0.004]], lr=0.1)
    assert moved.square().mean(1).sqrt().tolist() == pytest.approx([0.1, 0.1])
    assert (moved[0] / moved[0].norm()).tolist() == pytest.approx([-0.6, -0.8])
    assert (moved[1] / moved[1].norm()).tolist() == pytest.approx([0.6, -0.8])


def test_momentum_by_hand():
    """m = (1, 0), then (β, 1)."""
    moved = stepped([[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2, lr=1.0, momentum=0.75)
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([0.75, 1.0])
    expected = -(first / first.square().mean().sqrt() + second / second.square().mean().sqrt())
    torch.testing.assert_close(moved[0], expected)


def test_rows_without_a_gradient_stay():
    assert stepped([[0.0, 0.0], [1.0, 1.0]], lr=0.5).tolist() == [[0, 0], [-0.5, -0.5]]
    p = torch.zeros(1, 2, requires_grad=True)
    Steepest([p]).step()
    assert p.tolist() == [[0, 0]]


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_impossible_momentum(momentum):
    with pytest.raises(ValueError, match=f"momentum is {momentum}; expected 0 <= momentum < 1"):
        Steepest([torch.zeros(1)], momentum=momentum)


def test_shared_leaves_go_as_far_as_a_whole():
    """Weights and biases that all images share: one rms over the whole tensor, of any number of axes."""
    bias, weight, number = torch.zeros(2), torch.zeros(2, 1, 2), torch.zeros(())
    bias.grad, weight.grad = torch.tensor([3.0, 4.0]), torch.tensor([[[1.0, 0.0]], [[0.0, -7.0]]])
    number.grad = torch.tensor(-5.0)
    Steepest([bias, weight, number], lr=0.1, rows=1).step()
    torch.testing.assert_close(bias, -0.1 * torch.tensor([3.0, 4.0]) / 12.5**0.5)
    torch.testing.assert_close(weight, -0.1 * torch.tensor([[[1.0, 0.0]], [[0.0, -7.0]]]) / 12.5**0.5)
    torch.testing.assert_close(number, torch.tensor(0.1))


def test_leaves_of_one_axis_hold_a_number_a_row():
    p = torch.zeros(3)
    p.grad = torch.tensor([5.0, -0.01, 0.0])
    Steepest([p], lr=0.1).step()
    torch.testing.assert_close(p, torch.tensor([-0.1, 0.1, 0.0]))


def dosing(start, level, rows=None):
    """Rows whose score is their parameter."""
    p = torch.tensor(start).reshape(-1, 1)
    return p, Dosing((p,), lambda: p[:, 0].clone(), torch.tensor(start), torch.tensor(level))


def walk(p, found, steps):
    ended = []
    for step in steps:
        p += torch.tensor(step).reshape(-1, 1)
        ended.append(found.after(len(ended) + 1))
    return ended


def test_rows_stop_on_their_levels_and_wait_for_the_others():
    p, found = dosing([0.0, 0.0, 0.0], [0.25, -0.7, 0.0])
    assert found.live().tolist() == [1, 1, 0], "a level of nothing is there already"
    assert walk(p, found, [[0.2, -0.2, 0.2]] * 4) == [False, False, False, True]
    assert found.live().tolist() == [0, 0, 0]
    reached = found.finish()
    assert reached.tolist() == pytest.approx([0.25, -0.7, 0], abs=2e-4)
    assert torch.equal(p[:, 0], reached)
    assert reached[0] >= 0.25 and reached[1] <= -0.7, "never short of it"


def test_out_of_reach_is_the_nearest_it_came():
    p, found = dosing([1.0, 1.0], [9.0, -9.0])
    assert walk(p, found, [[0.5, -0.5], [0.5, -0.5], [-1.5, 1.5]]) == [False, False, False]
    assert found.finish().tolist() == [2.0, 0.0]


def test_where_nothing_helped_it_is_the_start():
    p, found = dosing([1.0], [2.0])
    walk(p, found, [[-0.5], [-0.5]])
    assert found.finish().tolist() == [1.0]


def test_higher_levels_lie_further_along_the_same_path():
    ends = []
    for level in torch.linspace(0.1, 2.0, 20).tolist():
        p, found = dosing([0.0], [level])
        walk(p, found, [[0.3]] * 8)
        ends.append(float(found.finish()))
    assert ends == sorted(ends) and len(set(ends)) == 20
