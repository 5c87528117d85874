"""Tolerance equals one minus R² of each unit on the others; agreement is a correlation."""

import pytest
import torch

from xinc_captum.metrics import r2, tolerance, unit_agreement


def test_tolerance_is_what_a_regression_on_the_others_leaves():
    r = torch.randn(300, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r[:, 2] += r[:, 0] - 0.5 * r[:, 1]
    found = tolerance(r.T.cov())
    for unit in range(5):
        others = torch.cat([r[:, [u for u in range(5) if u != unit]], torch.ones(300, 1, dtype=r.dtype)], 1)
        fitted = others @ torch.linalg.lstsq(others, r[:, unit : unit + 1]).solution
        assert float(found[unit]) == pytest.approx(1 - float(r2(r[:, unit : unit + 1], fitted)), abs=1e-9)


def test_copies_and_dead_units():
    r = torch.randn(100, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r[:, 1] = 3 * r[:, 0]
    r[:, 3] = 7.0
    found = tolerance(r.T.cov())
    assert found[:2].tolist() == [0, 0]
    assert found[2] > 0.9
    assert found[3].isnan()
    assert tolerance(torch.zeros(2, 2)).isnan().all()


def test_agreement_of_each_unit():
    r = torch.tensor([[1.0, 0.0, 1.0], [2.0, 1.0, 1.0], [3.0, 5.0, 1.0]])
    other = torch.stack([r[:, 0] * 2 + 1, -r[:, 1], torch.rand(3)], 1)
    found = unit_agreement(r, other)
    assert found[:2].tolist() == pytest.approx([1, -1])
    assert found[2].isnan()


def test_what_they_refuse():
    with pytest.raises(ValueError, match=r"covariance has shape \(2, 3\)"):
        tolerance(torch.ones(2, 3))
    with pytest.raises(ValueError, match="wanted the same"):
        unit_agreement(torch.ones(2, 3), torch.ones(3, 3))


@pytest.mark.parametrize("value", [0.1, 1e-7, 3.3e8])
def test_a_unit_that_is_constant_but_for_rounding_agrees_with_nothing(value):
    constant, other = torch.full((7, 1), value, dtype=torch.float64), torch.rand(7, 1)
    assert unit_agreement(constant, other).isnan().all() and unit_agreement(other, constant).isnan().all()
