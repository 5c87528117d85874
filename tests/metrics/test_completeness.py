import torch

from xinc_captum.metrics import completeness_error, condition_number


def test_by_hand():
    shares = torch.tensor([[[3.0], [-1.0]], [[1.0], [1.0]]])
    output = torch.tensor([[2.0], [4.0]])
    assert completeness_error(shares, output).item() == 0.5
    assert condition_number(shares, output).tolist() == [[2.0], [0.5]]
    assert completeness_error(torch.zeros(1, 2), torch.zeros(1)).item() == 0
