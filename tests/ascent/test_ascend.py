import pytest
import torch

from xinc_captum.attributions.accentuation import FeatureDistance, Fourier, Pixel
from xinc_captum.attributions.accentuation.ascend import DeadError, ascend, balance
from xinc_captum.attributions.accentuation.objectives import logit

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
        lambda x, _: (logit(3)(tiny.read(x, (), [], whole=True)), None),
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
    held = tiny.read(recorded["seed_image"], (), [layer], whole=False)(layer).detach()

    def evaluate(x, _step):
        seen = tiny.read(x, (), [layer], whole=True)
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
