import torch

from xinc_captum.attributions.canvas.rules.stages import Box, Near, Place


def test_matrices_by_hand():
    third = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.float64) / 3
    assert torch.equal(Box((3, 3), (1, 1), (1, 1), (1, 1)).matrix(0, 3), third)
    assert Near(2).matrix(1, 2).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert Place(2, (1, 0)).matrix(0, 2).tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]
    assert Place(2, (1, 0)).matrix(1, 2).tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    strided = Box((3, 3), (2, 2), (0, 0), (1, 1)).matrix(0, 5)
    assert (strided * 3).tolist() == [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]
