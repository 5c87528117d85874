import pytest
import torch

from xinc_captum.batch import Batch
from xinc_captum.targets import one_score_a_row, selected


def batch(target=None, rows=2):
    return Batch.of(torch.zeros(rows, 1), None, target)


@pytest.mark.parametrize(
    ("output", "target", "error", "text"),
    [
        ({"rgb": torch.zeros(2), "a": 1}, None, TypeError, r"returned a dict with keys \['a', 'rgb'\].*output_fn="),
        ((torch.zeros(2),), None, TypeError, r"returned a tuple of \(Tensor\), wanted a tensor; say which tensor"),
        (torch.zeros(3, 2), None, ValueError, r"returned shape \(3, 2\) for 2 input rows"),
        (torch.tensor(0.0), None, ValueError, r"returned shape \(\)"),
        (torch.zeros(2, 3), 3, ValueError, r"target 3 does not fit the output's shape \(2, 3\)"),
        (torch.zeros(2, 3), (0, 0), ValueError, r"target \(0, 0\) does not fit"),
        (torch.zeros(2, 3), [0, 1, 2], ValueError, r"target \[0, 1, 2\] does not fit"),
        (torch.zeros(2, 3), torch.zeros(4, dtype=torch.long), ValueError, r"target of shape \(4,\) does not fit"),
        (torch.zeros(2, 3), "cat", ValueError, "target 'cat' does not fit"),
    ],
)
def test_outputs_and_targets_that_do_not_fit(output, target, error, text):
    with pytest.raises(error, match=text):
        selected(output, batch(target), None)


def test_output_fn_picks():
    assert selected({"y": torch.ones(2, 3)}, batch(1), lambda o: o["y"]).shape == (2,)


def test_one_number_a_row():
    assert one_score_a_row(torch.zeros(2, 1)).shape == (2,)
    with pytest.raises(ValueError, match=r"target is missing or incomplete: the output still has shape \(2, 3\)"):
        one_score_a_row(torch.zeros(2, 3))
