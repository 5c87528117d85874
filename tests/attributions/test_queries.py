import pytest
import torch

from xinc_captum.attributions.canvas.queries import Maps, Regions, Top, Totals, smallest_index

PART = torch.tensor([[[1.0], [-2.0]], [[3.0], [0.5]], [[-1.0], [4.0]]])  # (3 rows, 2 units, 1 channel)


def fed(query):
    query.add(0, PART[:2])
    query.add(2, PART[2:])
    return query.answer((3,))


def test_by_hand():
    assert fed(Totals()).tolist() == [[5.0], [6.5]]
    masks = torch.tensor([[1, 1, 0], [0, 0, 1]])
    assert fed(Regions(masks)).tolist() == [[[4.0], [2.5]], [[1.0], [4.0]]]
    assert fed(Regions(masks, signed=True)).tolist() == [[[4.0], [-1.5]], [[-1.0], [4.0]]]
    assert fed(Maps(3)).tolist() == [[[1.0, 3.0, -1.0]], [[-2.0, 0.5, 4.0]]]
    top = fed(Top(1, 2, 3))
    assert top.values.tolist() == [[2.0, 3.0, 4.0]]
    assert top.indices.tolist() == [[1, 0, 1]]
    assert fed(Top(1, 1, 3)).indices.tolist() == [[0, 0, 0]], "what stands behind the units is left out"


def test_8_bit_masks_would_weigh_255_times():
    with pytest.raises(ValueError, match=r"masks go from 0 to 255; wanted bool, or weights in \[0, 1\]: divide 8-bit"):
        Regions(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    with pytest.raises(ValueError, match="masks go from -1 to 1"):
        Regions(torch.tensor([[[-1.0, 1.0]]]))


@pytest.mark.parametrize("query", [Totals(), Regions(torch.ones(1, 3)), Maps(3), Top(1, 2, 3)])
def test_nothing_seen_is_no_answer(query):
    with pytest.raises(RuntimeError, match="this query saw no rows"):
        query.answer((3,))


def test_indices_are_as_narrow_as_they_can_be_without_being_masks():
    assert [smallest_index(n) for n in (128, 129, 32768, 32769)] == [torch.int8, torch.int16, torch.int16, torch.int32]
    assert smallest_index(1 << 32) == torch.int64
