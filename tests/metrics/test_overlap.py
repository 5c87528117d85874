import pytest
import torch

from xinc_captum.metrics import top_overlap


def test_by_hand():
    one = torch.tensor([[[9.0, 8.0, 1.0, 0.0]], [[9.0, 8.0, 1.0, 0.0]]])
    other = torch.tensor([[[2.0, 3.0, 0.0, 0.0]], [[0.0, 1.0, 2.0, 0.0]]])
    torch.testing.assert_close(top_overlap(one, other, share=0.5), torch.tensor([1.0, 1 / 3]))
    assert top_overlap(one, one).tolist() == [1.0, 1.0], "at least one pixel"


def test_strangers_meet_by_chance():
    strangers = top_overlap(torch.rand(50, 40, 40), torch.rand(50, 40, 40))
    assert abs(strangers.mean() - 0.1 / 1.9) < 0.005


def test_no_maps_have_no_overlap():
    assert top_overlap(torch.rand(0, 2, 2), torch.rand(0, 2, 2)).shape == (0,)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 2\) and \(1, 2, 3\); wanted the same"):
        top_overlap(torch.rand(1, 2, 2), torch.rand(1, 2, 3))
    with pytest.raises(ValueError, match="share is 0.0; wanted a part of the pixels"):
        top_overlap(torch.rand(1, 2, 2), torch.rand(1, 2, 2), share=0.0)


def test_a_map_that_is_not_finite_overlaps_with_nothing():
    maps, others = torch.rand(3, 4, 4), torch.rand(3, 4, 4)
    maps[0, 1, 1], others[2, 0, 0] = torch.nan, torch.inf
    assert top_overlap(maps, others).isnan().tolist() == [True, False, True]
