import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xinc_captum.attributions.linking.counterfactuals import LinearHead, MinimalShift, shortest_shift


def test_two_classes_are_the_distance_to_a_line():
    head = LinearHead(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0]))
    found = shortest_shift(head, torch.tensor([[5.0, 1.0]]), torch.tensor([1]))  # 5 against 2: 3 / √2 away
    torch.testing.assert_close(found.bound, torch.tensor([3 / 2**0.5], dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.shift, torch.tensor([[-1.5, 1.5]], dtype=torch.float64), rtol=2e-4, atol=0)


def test_a_corner_between_two_classes():
    """Target must be above both: r = 0 wants x > 1 and y > 1; the corner is √2 away, each line only 1."""
    head = LinearHead(torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, -1.0]]), torch.tensor([0.0, 1.0, 1.0]))
    found = shortest_shift(head, torch.zeros(1, 2), torch.tensor([0]))
    torch.testing.assert_close(found.length, torch.tensor([2**0.5], dtype=torch.float64), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.bound, torch.tensor([2**0.5], dtype=torch.float64), rtol=1e-3, atol=0)


def test_rows_that_are_there_stay():
    head = LinearHead(torch.eye(3), torch.zeros(3))
    found = shortest_shift(head, torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]), torch.tensor([1, 1]))
    assert found.length[0] == found.bound[0] == 0 and found.length[1] > 1


@settings(max_examples=12, deadline=None)  # a fifth of a second each
@given(st.integers(2, 8), st.integers(2, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_head_is_convinced_and_nothing_shorter_would_do(classes, units, seed, confidence):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)
    head, r = LinearHead(draw(classes, units), draw(classes)), draw(4, units)
    target = torch.randint(0, classes, (4,), generator=g)
    found = shortest_shift(head, r, target, confidence)
    done = found.length.isfinite()
    assert (found.shift[~done] == 0).all() and (done.all() or classes > units), "a target inside the others' hull"
    scores = head(r + found.shift)[done]
    own = scores.gather(1, target[done][:, None])[:, 0]
    assert (own >= scores.amax(1)).all()
    assert (scores.softmax(1).gather(1, target[done][:, None])[:, 0] >= confidence).all()
    if not confidence:
        assert (found.length <= 1.01 * found.bound)[done].all()
    tries = draw(200, 4, units)
    tries = tries / tries.norm(dim=2, keepdim=True) * (found.bound * 0.999)[None, :, None]
    beaten = head((r + tries).flatten(0, 1)).view(200, 4, classes)
    asked = (beaten.softmax(2).gather(2, target.expand(200, 4)[..., None])[..., 0] >= confidence) & (
        beaten.argmax(2) == target
    )
    assert not (asked & (found.bound > 0)).any(), "the bound is a bound"


def test_it_is_what_a_solver_finds():
    optimize = pytest.importorskip("scipy.optimize", reason="scipy comes with the extra 'analysis'")
    g = torch.Generator().manual_seed(5)
    weight = torch.randn(10, 20, generator=g, dtype=torch.float64)
    head, r = LinearHead(weight, torch.zeros(10)), torch.randn(3, 20, generator=g, dtype=torch.float64)
    target = head(r).argmin(1)
    found = shortest_shift(head, r, target)
    assert (found.length > 0.5).all()
    for row, t in enumerate(target.tolist()):
        a = np.delete((weight[t] - weight).numpy(), t, 0)
        b = -a @ r[row].numpy()
        solved = optimize.minimize(
            lambda x: x @ x / 2,
            np.zeros(20),
            jac=lambda x: x,
            constraints={"type": "ineq", "fun": lambda x, a=a, b=b: a @ x - b, "jac": lambda x, a=a: a},
        )
        assert abs(np.linalg.norm(solved.x) / float(found.length[row]) - 1) < 1e-3


def test_rows_that_cannot_are_told_apart_from_rows_that_can():
    """Class 0 has the mean of the others' weights and the lowest bias: no r makes it the highest."""
    head = LinearHead(torch.tensor([[0.0], [1.0], [-1.0]]), torch.tensor([-1.0, 0.0, 0.0]))
    found = shortest_shift(head, torch.tensor([[0.5], [0.5]]), torch.tensor([0, 2]))
    assert found.length[0].isinf() and found.shift[0] == 0 and found.bound[0] > 100
    torch.testing.assert_close(found.shift[1], torch.tensor([-0.5], dtype=torch.float64), rtol=1e-3, atol=0)


def test_beyond_is_at_least_one():
    with pytest.raises(ValueError, match=r"beyond is 0\.5; wanted at least 1"):
        MinimalShift(beyond=0.5)
