"""Order between classes and order within them are told apart, and chance is measured beside both."""

import pytest
import torch

from xinc_captum.metrics import semantic_order


def draws(*size, seed):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


CLASSES = torch.arange(240) % 8


def test_a_rotated_space_has_the_same_order_everywhere():
    a = draws(240, 6, seed=0) + 4 * draws(8, 6, seed=1)[CLASSES]
    b = torch.linalg.qr(draws(6, 6, seed=2)).Q
    found = semantic_order(a / a.std(0), a / a.std(0), CLASSES, repeats=50)
    assert (found.between, found.within, found.neighbours) == pytest.approx((1, 1, 1))
    turned = semantic_order(a, a @ b, CLASSES, repeats=50)
    assert turned.between > 0.7
    assert turned.within > 0.7
    assert turned.within_p == turned.neighbours_p == 1 / 51


def test_the_same_classes_with_nothing_in_common_within():
    means = 6 * draws(8, 6, seed=1)
    a, b = (draws(240, 6, seed=seed) + means[CLASSES] for seed in (3, 4))
    found = semantic_order(a, b, CLASSES, repeats=100)
    assert found.between > 0.9
    assert found.between_p < 0.05
    assert abs(found.within) < 0.1
    assert found.within_p > 0.02
    assert found.neighbours == pytest.approx(found.neighbours_chance, abs=0.06)


def test_the_null_is_calibrated():
    ps = [
        semantic_order(draws(60, 3, seed=s), draws(60, 3, seed=s + 99), torch.arange(60) % 2, repeats=40).within_p
        for s in range(40)
    ]
    assert sum(p <= 0.1 for p in ps) <= 9  # 4 expected of 40


def test_shared_neighbours_by_hand():
    a = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    b = torch.tensor([[0.0], [6.0], [7.5], [9.2]])
    found = semantic_order(a, b, torch.zeros(4, dtype=torch.long), neighbours=1, repeats=5)
    # nearest in a: 1, 0, 1, 2; in b: 1, 2, 1, 2
    assert found.neighbours == 0.75
    assert found.between is None


def test_small_classes_are_left_out():
    found = semantic_order(torch.rand(12, 2), torch.rand(12, 2), torch.arange(12) % 6)
    assert (found.within, found.neighbours) == (None, None)
    assert found.between is not None
    assert set(found.to_dict()) >= {"between", "within_p", "neighbours_chance"}


def test_what_it_refuses():
    with pytest.raises(ValueError, match="got 3, 2 and 3 rows; wanted as many of each"):
        semantic_order(torch.ones(3, 1), torch.ones(2, 1), torch.zeros(3))
    with pytest.raises(ValueError, match="wanted >= 1"):
        semantic_order(torch.ones(3, 1), torch.ones(3, 1), torch.zeros(3), repeats=0)


def test_rows_that_are_not_finite_are_refused():
    rows = torch.rand(60, 3)
    rows[7, 1] = torch.nan
    with pytest.raises(ValueError, match="row 7 holds nan or infinity; distances to it mean nothing"):
        semantic_order(torch.rand(60, 2), rows, torch.arange(60) % 4)
