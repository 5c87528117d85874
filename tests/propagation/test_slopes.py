import pytest
import torch

from xinc_captum.attributions.canvas.rules.slopes import secant_slope, tangent_slope


def test_by_hand():
    z = torch.tensor([3.0, 0.0, -2.0])
    assert tangent_slope(torch.square, z).tolist() == [6.0, 0.0, -4.0]
    at_z, slope, at_zero = secant_slope(lambda x: (x + 1) ** 2, z)  # (16 - 1) / 3, the limit 2, (1 - 1) / -2
    assert (at_z.tolist(), slope.tolist(), at_zero.tolist()) == ([16.0, 1.0, 1.0], [5.0, 2.0, 0.0], [1.0])


def test_a_function_that_writes_into_its_input_changes_nothing():
    z = torch.tensor([-1.0, 2.0])
    for call in (tangent_slope, secant_slope):
        call(torch.relu_, z)
    assert z.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_keep_their_dtype(dtype):
    assert all(t.dtype == dtype for t in secant_slope(torch.sigmoid, torch.tensor([0.5, 0.0], dtype=dtype)))
