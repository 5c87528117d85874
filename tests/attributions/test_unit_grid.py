import torch

from xinc_captum.attributions.canvas.queries import Totals
from xinc_captum.attributions.canvas.unit_grid import UnitGrid


def test_pairs_are_visited_output_by_output_and_laid_out_input_by_input():
    grid = UnitGrid(units=6, slots=1, pairs=(2, 3))
    keys = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert (grid.keys, grid.shape) == (keys, (3, 3))
    visited = torch.tensor([[10.0 * i + o] for i, o in keys])
    joined = grid.joined(Totals(), [visited[:4], visited[4:]])
    assert joined[..., 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert grid.without_slot(joined[None]).flatten().tolist() == [0, 1, 2, 10, 11, 12]
    assert grid.key((-1, 0)) == (2, 0)
    assert [grid.named(unit) for unit in (0, 2, 3)] == [(0, 0), (0, 2), (1, 0)], "in · outs + out"


def test_units_and_their_slot():
    grid = UnitGrid(units=2, slots=1, pairs=None)
    assert (grid.keys, grid.shape, grid.key(-1), grid.index([0, 2])) == ([0, 1, 2], (3,), 2, ([0, 2],))
    assert grid.named(1) == 1
