import pytest
import torch

from xinc_captum.batch import Batch, chunks


def test_rows_are_cut_taken_and_repeated_together():
    x, along, other = torch.arange(5.0)[:, None], torch.arange(5) * 10, torch.ones(3)
    batch = Batch.of((x, x + 1), (along, other, "word"), [0, 1, 2, 3, 4])
    part = batch.cut(1, 3)
    assert part.inputs[0].flatten().tolist() == [1, 2]
    assert part.inputs[1].flatten().tolist() == [2, 3]
    assert part.args[0].tolist() == [10, 20]
    assert part.args[1] is other
    assert part.args[2] == "word"
    assert part.target == [1, 2]
    assert (part.rows, part.start) == (2, 1)
    assert part.repeat(2).inputs[0].flatten().tolist() == [1, 2, 1, 2]
    assert part.repeat(2).target == [1, 2, 1, 2]
    assert batch.take(torch.tensor([4, 0])).args[0].tolist() == [40, 0]
    assert Batch.of(x, None, torch.arange(5)).cut(3, 5).target.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ([torch.ones(2)], TypeError, r"inputs are \(list\); wanted a tensor or a tuple"),
        ((torch.ones(2), torch.ones(3)), ValueError, r"inputs have \[2, 3\] rows"),
        (torch.ones(0, 2), ValueError, r"inputs have shape \(0, 2\): no rows to explain"),
        (torch.tensor(1.0), ValueError, "no rows to explain"),
    ],
)
def test_wrong_inputs(inputs, error, text):
    with pytest.raises(error, match=text):
        Batch.of(inputs)


def test_chunks_cover_everything_once():
    assert chunks(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert chunks(2, 0) == [(0, 1), (1, 2)]
