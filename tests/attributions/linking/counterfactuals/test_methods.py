from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xinc_captum.attributions.linking.counterfactuals import (
    LatentWalk,
    LinearHead,
    LinkingInStyle,
    MinimalShift,
    Ray,
    shift_losses,
    shortest_shift,
)
from xinc_captum.attributions.linking.counterfactuals.search import Task


def test_the_flip_point_is_where_the_class_changes(plane, rows):
    task = plane(*rows)
    loop = task.loop
    result = Ray()(task)
    assert result.reached.all() and task.reaches(result.trip.scores).all()
    way = result.shift / result.flip[:, None]
    before = loop.run(loop.latents(loop.r + 0.98 * result.flip[:, None] * way, loop.index), loop.index)
    assert not task.reaches(before.scores).any(), "a little less does not do"
    assert result.steps.max() <= len(Ray().grid) + Ray().halvings, "nobody was looked at more closely"


def test_the_ray_is_the_covariance_times_the_gradient(plane, rows):
    task = plane(*rows)
    result = Ray()(task)
    expected = task.slope @ task.loop.link.covariance
    cosine = torch.cosine_similarity(result.shift, expected)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_between_two_classes_alpha_one_is_the_boundary(plane):
    task = plane(torch.tensor([[1.0, 0.6]], dtype=torch.float64), torch.tensor([1]))
    torch.testing.assert_close(Ray(halvings=20)(task).flip, torch.ones(1, dtype=torch.float64), atol=1e-5, rtol=0)


def test_ray_results_do_not_depend_on_the_batch(plane, rows):
    r, target = rows
    whole = Ray()(plane(r, target))
    for row in range(6):
        alone = Ray()(plane(r[row : row + 1], target[row : row + 1]))
        # where the last picture lies on the boundary, rounding decides which value of the grid is the first
        torch.testing.assert_close(alone.shift[0], whole.shift[row], rtol=2**-7, atol=0)
        assert abs(alone.steps[0] - whole.steps[row]) <= 1


def test_ray_leaves_a_sample_of_the_target_unchanged(plane):
    result = Ray()(plane(torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([0])))
    assert result.reached.all() and result.flip[0] == 0 and result.steps[0] == 0 and not result.shift.any()


def test_ray_stops_if_the_target_is_out_of_reach(plane, rows):
    """The pictures end at ±10, where the target leads by 15 at most: this confidence is out of reach."""
    result = Ray()(plane(*rows, confidence=1 - 1e-9))
    assert not result.reached.any() and result.flip.isnan().all()
    assert (result.steps == len(Ray().grid) + 8).all()


def test_a_class_between_two_values_of_the_grid_is_found(open_plane):
    """The target leads from 1.14 to 1.24 only, and the grid has 1 and 1.25."""

    def scores(r):
        return torch.stack([torch.zeros(len(r)).double(), 0.05**2 - (r[:, 0] - 1.19) ** 2], 1)

    index = torch.arange(1)
    slope, gap = torch.tensor([[1.0, 0.0]]).double(), -torch.ones(1).double()
    with open_plane(torch.zeros(1, 2, dtype=torch.float64), scores) as loop:
        result = Ray()(Task(loop, index, index + 1, slope, gap, None, 0.0))
    assert result.reached.all() and 1.14 <= float(result.flip) <= 1.145, "and then the flip point"


def test_a_higher_confidence_shifts_further(plane, rows):
    bare, sure = (Ray()(plane(*rows, confidence=c)) for c in (0.0, 0.9))
    assert (sure.flip > bare.flip).all()
    own = sure.trip.scores.softmax(1).gather(1, rows[1][:, None])
    assert (own >= 0.9).all() and (own < 0.93).all()


def test_top_limits_the_number_of_units(plane, rows):
    result = Ray(top=1)(plane(*rows))
    assert ((result.shift != 0).sum(1) <= 1).all() and result.reached.sum() >= 4


def test_a_zero_gradient_raises(plane, rows):
    task = plane(*rows)
    task.slope.zero_()
    with pytest.raises(ValueError, match="sample 0: no shift of the representation raises class 1 above 0"):
        Ray()(task)


@pytest.mark.parametrize("options", [{"grid": ()}, {"grid": (0.0, 1.0)}, {"grid": (2.0, 1.0)}])
def test_invalid_grids_raise(options):
    with pytest.raises(ValueError, match="expected ascending numbers above 0"):
        Ray(**options)


@pytest.mark.parametrize("options", [{"halvings": -1}, {"top": 0}])
def test_invalid_ray_options_raise(options):
    with pytest.raises(ValueError, match="expected at least 0 and at least 1"):
        Ray(**options)


def test_latent_walk_bisects_back_to_the_flip_point(plane, rows):
    task = plane(*rows)
    loop = task.loop
    result = LatentWalk()(task)
    assert result.reached.all() and task.reaches(result.trip.scores).all()
    start = task.loop.linked.latents
    back = loop.run(start + 0.97 * (result.trip.latents - start), loop.index)
    assert not task.reaches(back.scores).any(), "a little less does not do"
    torch.testing.assert_close(result.shift, result.trip.representations - task.loop.linked.representations)


def test_latent_walk_results_do_not_depend_on_the_batch(plane, rows):
    r, target = rows
    whole = LatentWalk()(plane(r, target))
    for row in range(6):
        alone = LatentWalk()(plane(r[row : row + 1], target[row : row + 1]))
        torch.testing.assert_close(alone.trip.latents[0], whole.trip.latents[row])


def test_latent_walk_is_adam(plane):
    """Two steps against torch's own optimiser, on the same loss."""
    task = plane(torch.tensor([[2.0, 0.1]], dtype=torch.float64), torch.tensor([1]))
    result = LatentWalk(steps=3, halvings=0, lr=0.1, pull=0.3, margin=2.0)(task)
    moments = task.loop.link.moments
    scale = (moments.ww / (moments.n - 1)).sqrt()
    u = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([u], lr=0.1)
    for _ in range(2):
        scores = task.loop.encode(task.loop.generate(task.loop.linked.latents + u * scale), task.loop.index)[1][0]
        loss = (2.0 - (scores[1] - torch.maximum(scores[0], scores[2]))).clamp_min(0) + 0.3 * u.square().sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(result.trip.latents, (task.loop.linked.latents + u * scale).detach())


def test_latent_walk_stops_if_the_target_is_out_of_reach(plane, rows):
    result = LatentWalk(steps=5)(plane(*rows, confidence=0.999999))
    assert not result.reached.any() and result.flip.isnan().all() and (result.steps == 5).all()


def test_latent_walk_leaves_a_sample_of_the_target_unchanged(plane):
    result = LatentWalk()(plane(torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([0])))
    assert result.reached.all() and result.flip[0] == 0 and result.steps[0] == 0 and not result.shift.any()


def test_latent_walk_needs_a_differentiable_generator(plane, rows):
    task = plane(*rows)
    task.loop.generator.differentiable = False
    with pytest.raises(ValueError, match="needs a differentiable generator; use method='ray'"):
        LatentWalk()(task)


@pytest.mark.parametrize("options", [{"steps": 0}, {"lr": 0.0}, {"pull": -1.0}, {"margin": -1.0}, {"halvings": -1}])
def test_invalid_latent_walk_options_raise(options):
    with pytest.raises(ValueError, match="expected at least one step, a positive lr, and no negative numbers"):
        LatentWalk(**options)


def test_for_two_classes_the_shift_is_the_distance_to_a_line():
    head = LinearHead(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0]))
    result = shortest_shift(head, torch.tensor([[5.0, 1.0]]), torch.tensor([1]))  # 5 against 2: 3 / √2 away
    torch.testing.assert_close(result.bound, torch.tensor([3 / 2**0.5], dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(result.shift, torch.tensor([[-1.5, 1.5]], dtype=torch.float64), rtol=2e-4, atol=0)


def test_a_corner_between_two_classes():
    """Target must be above both: r = 0 wants x > 1 and y > 1; the corner is √2 away, each line only 1."""
    head = LinearHead(torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]]), torch.tensor([0.0, 1.0, 1.0]))
    result = shortest_shift(head, torch.zeros(1, 2), torch.tensor([0]))
    torch.testing.assert_close(result.length, torch.tensor([2**0.5], dtype=torch.float64), rtol=1e-3, atol=0)
    torch.testing.assert_close(result.bound, torch.tensor([2**0.5], dtype=torch.float64), rtol=1e-3, atol=0)


def test_samples_of_the_target_get_no_shift():
    head = LinearHead(torch.eye(3), torch.zeros(3))
    result = shortest_shift(head, torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]), torch.tensor([1, 1]))
    assert result.length[0] == result.bound[0] == 0 and result.length[1] > 1


@settings(max_examples=12, deadline=None)  # a fifth of a second each
@given(st.integers(2, 8), st.integers(2, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_shift_reaches_the_target_and_the_bound_is_close(classes, units, seed, confidence):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)
    head, r = LinearHead(draw(classes, units), draw(classes)), draw(4, units)
    target = torch.randint(0, classes, (4,), generator=g)
    result = shortest_shift(head, r, target, confidence)
    done = result.length.isfinite()
    assert (result.shift[~done] == 0).all() and (done.all() or classes > units), "a target inside the others' hull"
    scores = head(r + result.shift)[done]
    own = scores.gather(1, target[done][:, None])[:, 0]
    assert (own >= scores.amax(1)).all()
    assert (scores.softmax(1).gather(1, target[done][:, None])[:, 0] >= confidence).all()
    if not confidence:
        assert (result.length <= 1.01 * result.bound)[done].all()
    tries = draw(200, 4, units)
    tries = tries / tries.norm(dim=2, keepdim=True) * (result.bound * 0.999)[None, :, None]
    beaten = head((r + tries).flatten(0, 1)).view(200, 4, classes)
    asked = (beaten.softmax(2).gather(2, target.expand(200, 4)[..., None])[..., 0] >= confidence) & (
        beaten.argmax(2) == target
    )
    assert not (asked & (result.bound > 0)).any(), "the bound is a bound"


def test_the_shift_equals_that_of_a_solver():
    optimize = pytest.importorskip("scipy.optimize", reason="scipy comes with the extra 'analysis'")
    g = torch.Generator().manual_seed(5)
    weight = torch.randn(10, 20, generator=g, dtype=torch.float64)
    head, r = LinearHead(weight, torch.zeros(10)), torch.randn(3, 20, generator=g, dtype=torch.float64)
    target = head(r).argmin(1)
    result = shortest_shift(head, r, target)
    assert (result.length > 0.5).all()
    for row, t in enumerate(target.tolist()):
        a = np.delete((weight[t] - weight).numpy(), t, 0)
        b = -a @ r[row].numpy()
        solved = optimize.minimize(
            lambda x: x @ x / 2,
            np.zeros(20),
            jac=lambda x: x,
            constraints={"type": "ineq", "fun": lambda x, a=a, b=b: a @ x - b, "jac": lambda x, a=a: a},
        )
        assert abs(np.linalg.norm(solved.x) / float(result.length[row]) - 1) < 1e-3


def test_impossible_targets_have_infinite_length():
    """Class 0 has the mean of the others' weights and the lowest bias: no r makes it the highest."""
    head = LinearHead(torch.tensor([[0.0], [1.0], [-1.0]]), torch.tensor([-1.0, 0.0, 0.0]))
    result = shortest_shift(head, torch.tensor([[0.5], [0.5]]), torch.tensor([0, 2]))
    assert result.length[0].isinf() and result.shift[0] == 0 and result.bound[0] > 100
    torch.testing.assert_close(result.shift[1], torch.tensor([-0.5], dtype=torch.float64), rtol=1e-3, atol=0)


def test_beyond_is_at_least_one():
    with pytest.raises(ValueError, match=r"beyond is 0\.5; expected a finite number of at least 1"):
        MinimalShift(beyond=0.5)


DATA = np.load(Path(__file__).parents[3] / "data" / "linking.npz")


def recorded(name):
    return torch.tensor(DATA[name])


@pytest.fixture
def parts():
    weight, bias = recorded("D_B"), recorded("D_b")
    link = lambda r, classes=None: r @ weight.T.to(r) + bias.to(r)
    head = LinearHead(recorded("D_fc_w"), recorded("D_fc_b"))
    return link, head, recorded("D_r")[None], recorded("D_origin")[None], recorded("D_target")[None]


def test_twenty_steps_equal_the_papers_code(parts):
    link, head, r, origin, target = parts
    shift, losses, kept = recorded("D_shift0")[None], [], {}
    for step in range(1, 21):
        leaf = shift.clone().requires_grad_()
        loss = shift_losses(link, head, r, leaf, origin, target, tuple(DATA["D_hparams"].tolist()))
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        shift = shift - float(DATA["D_lr"]) * slope
        losses.append(float(loss.detach()))
        kept[step] = shift
    np.testing.assert_allclose(losses, DATA["D_losses"], rtol=1e-5)
    for i, step in enumerate((1, 5, 20)):
        np.testing.assert_allclose(kept[step][0], DATA["D_shift_after_1_5_20"][i], atol=2e-5)
        moved = (r - kept[step]).clamp_min(0)
        np.testing.assert_allclose(link(moved)[0], DATA["D_w_after"][i], atol=1e-4)
        np.testing.assert_allclose(head(moved)[0], DATA["D_logits_relu_after"][i], atol=1e-4)


def test_the_defaults_are_the_papers():
    assert tuple(DATA["D_hparams"].tolist()) == LinkingInStyle().weights
    assert float(DATA["D_lr"]) == LinkingInStyle().lr


def test_the_gradient_by_hand(parts):
    link, head, r, origin, target = (
        p.double() if isinstance(p, torch.Tensor) and p.is_floating_point() else p for p in parts
    )
    shift = recorded("D_shift0")[None].double().requires_grad_()
    (slope,) = torch.autograd.grad(shift_losses(link, head, r, shift, origin, target).sum(), shift)
    b, w, s = recorded("D_B").double(), recorded("D_fc_w").double(), shift.detach()
    first, second = link(r)[0], link(r - s)[0]
    lengths = first.norm() * second.norm()
    cosine = first @ second / lengths
    of_cosine = -(first / lengths - cosine * second / second.square().sum()) @ b
    expected = w[target[0]] - 0.6 * w[origin[0]] - 10 * of_cosine
    torch.testing.assert_close(slope[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{"steps": 0}, {"lr": 0.0}, {"lr": float("nan")}])
def test_invalid_paper_update_options_raise(options):
    with pytest.raises(ValueError, match="expected at least 1 and above 0"):
        LinkingInStyle(**options)
