import pytest
import torch

from xinc_captum.metrics import completeness_error, condition_number


def test_by_hand():
    shares = torch.tensor([[[3.0], [-1.0]], [[1.0], [1.0]]])
    output = torch.tensor([[2.0], [4.0]])
    assert completeness_error(shares, output).item() == 0.5
    assert condition_number(shares, output).tolist() == [[2.0], [0.5]]
    assert completeness_error(torch.zeros(1, 2), torch.zeros(1)).item() == 0


def test_sums_of_half_precision_are_taken_in_float32():
    shares = torch.full((1, 5000), 0.125).half()
    assert completeness_error(shares, torch.tensor([625.0]).half()).item() == 0
    assert completeness_error(shares, torch.tensor([500.0]).half()).item() == pytest.approx(0.25)
    many = torch.full((1, 3), 40000.0).half()  # adds up to more than half precision holds
    assert condition_number(many, torch.tensor([60000.0]).half()).item() == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("shape", [(3, 1), (1,), (2,), (3, 2), (0,)])
@pytest.mark.parametrize("measure", [completeness_error, condition_number])
def test_an_output_of_another_shape_is_not_spread_over_the_sums(measure, shape):
    with pytest.raises(ValueError, match=r"wanted \(rows, units, \*left\) and \(rows, \*left\)"):
        measure(torch.ones(3, 2), torch.full(shape, 2.0))
    with pytest.raises(ValueError, match=r"shares have shape \(0, 2\)"):
        measure(torch.ones(0, 2), torch.ones(0))
