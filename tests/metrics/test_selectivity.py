import pytest
import torch

from xinc_captum.metrics import selectivity


def test_means_by_hand():
    responses = torch.tensor([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0], [4.0, 3.0, 5.0], [6.0, 3.0, 5.0]])
    found = selectivity(responses, torch.tensor([3, 3, 1, 1]))
    assert found.classes.tolist() == [1, 3]
    torch.testing.assert_close(found.means[0], torch.tensor([2.0, -2.0]).double() / 5**0.5)
    assert found.means[1].tolist() == [1, -1] and found.explained[1] == 1, "the class says all of the second unit"
    torch.testing.assert_close(found.explained[0], torch.tensor(0.8).double())
    assert found.means[2].tolist() == [0, 0] and found.explained[2].isnan(), "the third never varies"


def test_classes_that_say_nothing():
    generator = torch.Generator().manual_seed(0)
    found = selectivity(torch.randn(4000, 5, generator=generator), torch.arange(4000) % 4)
    assert float(found.explained.max()) < 0.01


def test_one_class_has_no_means_but_zero():
    found = selectivity(torch.randn(999, 5, generator=torch.Generator().manual_seed(0)), torch.full((999,), 7))
    assert found.classes.tolist() == [7] and not found.means.any() and not found.explained.any()


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"responses have shape \(3, 2\) and classes \(4,\); wanted \(n, units\)"):
        selectivity(torch.rand(3, 2), torch.zeros(4))


def test_a_unit_that_is_not_finite_is_no_dead_unit():
    responses = torch.rand(4, 3)
    responses[2, 1] = torch.nan
    with pytest.raises(ValueError, match="responses hold nan or infinity, first of unit 1 in row 2; leave such rows"):
        selectivity(responses, torch.tensor([0, 0, 1, 1]))
