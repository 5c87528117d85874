import pytest
import torch
import torch.nn.functional as F

from xinc_captum.attributions.canvas.rules.expansion import Expansion
from xinc_captum.attributions.canvas.rules.stages import Box, Near, Place, Pointwise

BOX = Box((3, 3), (1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize("sigma", [F.gelu, torch.cos])
def test_stages_one_by_one(sigma):
    act = Pointwise(sigma, zero_stays=sigma is F.gelu)
    expansion = Expansion((Place(3), act, BOX, Near(2), act, BOX))
    low = torch.rand(4, 2, 3) - 0.5
    assert (expansion.phases, expansion.size((2, 3))) == (9, (12, 18))
    fine = torch.zeros(4, 1, 6, 9)
    fine[:, 0, 1::3, 2::3] = low
    expected = F.avg_pool2d(sigma(fine), 3, 1, 1)
    expected = F.avg_pool2d(sigma(F.interpolate(expected, scale_factor=2)), 3, 1, 1)[:, 0]
    torch.testing.assert_close(expansion.at(5)(low, None), expected)
    into = torch.empty(2, 4, 12, 18)[1]
    expansion.at(5)(low, list(into))
    torch.testing.assert_close(into, expected)


def test_nothing_to_do_copies():
    into = [torch.empty(2, 3)]
    Expansion(())(torch.ones(1, 2, 3), into)
    assert torch.equal(into[0], torch.ones(2, 3))
