import pytest
import torch

from xinc_captum.attributions.nern import NeRN, embedding_levels


@pytest.mark.parametrize(("fusion", "groups"), [("concat", 3), ("sum", 1)])
def test_parts_and_bias_are_the_weight(mixed, make_drawn, fusion, groups):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=5, fusion=fusion))
    found = embedding_levels(nern, "stem")
    assert found.parts.shape == (groups, 5, 4, 2, 5, 5)
    assert (found.parts.sum((0, 1)) + found.bias - nern.weights()["stem"].detach()).abs().max() < 1e-10


def test_a_level_that_is_not_read_has_no_part(mixed, make_drawn):
    nern = make_drawn(NeRN(mixed.double(), hidden=9, levels=5))
    with torch.no_grad():
        nern.predictor.linear1.weight.view(9, 3, 5, 2)[:, 2, 4] = 0  # the channel's slowest
    parts = embedding_levels(nern, "wide").parts
    silent = (parts.flatten(2).abs().sum(2) == 0).nonzero().tolist()
    assert silent == [[2, 4]]
