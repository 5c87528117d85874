import pytest
import torch

from xinc_captum.attributions.accentuation.dose import Dosing


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
