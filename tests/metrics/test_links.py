"""R² over all pairs and within classes, against explicit sums.

Tolerance equals one minus R² of each unit on the others; agreement is a correlation.

Order between classes and order within them are told apart, and chance is measured beside both.

Repeated rows are counted whatever the dtype and the sign of zero.

Hashes depend on every value and its place, and on nothing else.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import (
    class_means,
    duplicates,
    leaks,
    r2,
    r2_within,
    row_hashes,
    selectivity,
    semantic_order,
    tolerance,
    unit_agreement,
)
from xinc_captum.metrics.links import mix_bits


def test_class_means_fool_r2_and_not_r2_within():
    classes = torch.arange(200) % 4
    w = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + 10 * classes[:, None]
    guess = class_means(w, classes)
    assert r2(w, guess) > 0.98
    assert abs(float(r2_within(w, guess, classes))) < 1e-9


def test_known_values():
    w = torch.tensor([[0.0, 0.0], [2.0, 4.0], [4.0, 8.0]])
    off = w + torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    assert float(r2(w, off)) == pytest.approx(1 - 5 / 40)
    classes = torch.tensor([0, 0, 5])
    assert float(r2_within(w, off, classes)) == pytest.approx(1 - 5 / 10)
    assert r2(w, w) == 1
    assert r2_within(w[:1], w[:1], classes[:1]).isnan()


def test_mismatched_rows_are_refused():
    with pytest.raises(ValueError, match=r"got shapes \(3, 2\) and \(2, 2\); expected the same"):
        r2(torch.ones(3, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"got classes of shape \(2,\) for 3 rows"):
        r2_within(torch.ones(3, 2), torch.ones(3, 2), torch.tensor([0, 1]))


@pytest.mark.parametrize("value", [0.1, 1e-7, 3.3e8])
def test_equal_rows_have_no_variance_to_explain(value):
    """The mean of equal numbers is rounded, and what rounding leaves of them is no variance."""
    w = torch.full((7, 2), value, dtype=torch.float64)
    assert not r2(w, w + 0.01).isfinite() and not r2_within(w, w + 0.01, torch.arange(7) % 2).isfinite()
    w[0, 0] *= 1 + 1e-6
    assert r2(w, w) == 1


def test_class_means_of_half_precision_do_not_overflow():
    rows = torch.full((3000, 1), 30.0).half()
    assert class_means(rows, torch.zeros(3000).long())[0].item() == 30.0
    assert class_means(rows, torch.zeros(3000).long()).dtype == torch.float16


def test_tolerance_equals_one_minus_r2_of_a_regression_on_the_others():
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


def test_identifiability_invalid_input_is_refused():
    with pytest.raises(ValueError, match=r"covariance has shape \(2, 3\)"):
        tolerance(torch.ones(2, 3))
    with pytest.raises(ValueError, match="expected the same"):
        unit_agreement(torch.ones(2, 3), torch.ones(3, 3))


def test_constant_units_have_no_agreement_despite_rounding():
    for n in range(3, 40):
        r = torch.rand(n, 2, dtype=torch.float64)
        constant = torch.stack([torch.full((n,), 0.1, dtype=torch.float64), r[:, 1]], 1)
        for pair in ((constant, r), (r, constant), (constant, constant)):
            assert unit_agreement(*pair).isnan().tolist() == [True, False]


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


def test_equal_classes_without_common_structure_within_them():
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


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="got 3, 2 and 3 rows; expected equal numbers"):
        semantic_order(torch.ones(3, 1), torch.ones(2, 1), torch.zeros(3))
    with pytest.raises(ValueError, match="expected >= 1"):
        semantic_order(torch.ones(3, 1), torch.ones(3, 1), torch.zeros(3), repeats=0)


def test_rows_that_are_not_finite_are_refused():
    rows = torch.rand(60, 3)
    rows[7, 1] = torch.nan
    with pytest.raises(ValueError, match="row 7 holds nan or infinity; expected finite values"):
        semantic_order(torch.rand(60, 2), rows, torch.arange(60) % 4)


def test_means_by_hand():
    responses = torch.tensor([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0], [4.0, 3.0, 5.0], [6.0, 3.0, 5.0]])
    found = selectivity(responses, torch.tensor([3, 3, 1, 1]))
    assert found.classes.tolist() == [1, 3]
    torch.testing.assert_close(found.means[0], torch.tensor([2.0, -2.0]).double() / 5**0.5)
    assert found.means[1].tolist() == [1, -1] and found.explained[1] == 1, "the class says all of the second unit"
    torch.testing.assert_close(found.explained[0], torch.tensor(0.8).double())
    assert found.means[2].tolist() == [0, 0] and found.explained[2].isnan(), "the third never varies"


def test_classes_without_information():
    generator = torch.Generator().manual_seed(0)
    found = selectivity(torch.randn(4000, 5, generator=generator), torch.arange(4000) % 4)
    assert float(found.explained.max()) < 0.01


def test_one_class_has_no_means_but_zero():
    found = selectivity(torch.randn(999, 5, generator=torch.Generator().manual_seed(0)), torch.full((999,), 7))
    assert found.classes.tolist() == [7] and not found.means.any() and not found.explained.any()


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match=r"responses have shape \(3, 2\) and classes \(4,\); expected \(n, units\)"):
        selectivity(torch.rand(3, 2), torch.zeros(4))


def test_a_unit_that_is_not_finite_is_no_dead_unit():
    responses = torch.rand(4, 3)
    responses[2, 1] = torch.nan
    with pytest.raises(ValueError, match="responses hold nan or infinity, first of unit 1 in row 2; leave such rows"):
        selectivity(responses, torch.tensor([0, 0, 1, 1]))


def test_repeats_are_found():
    rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    assert duplicates(rows) == 0
    assert duplicates(torch.cat([rows, rows[:100]])) == 100 / 600


def test_leaks_are_the_fitted_rows():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    seen = row_hashes(rows[:20].double())
    assert leaks(rows, seen).nonzero()[:, 0].tolist() == list(range(20))
    assert not leaks(rows + 1e-3, seen).any()


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=6), st.integers(0, 5))
def test_one_value_changes_the_hash(values, place):
    row = torch.tensor([values])
    other = row.clone()
    other[0, place % len(values)] += 1000
    assert row_hashes(row) != row_hashes(other)
    assert torch.equal(row_hashes(row), row_hashes(row.double()))
    assert torch.equal(row_hashes(torch.cat([other, row]))[1:], row_hashes(row))


def test_place_and_sign_of_zero():
    a, b, c = row_hashes(torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]]))
    assert a == b
    assert a != c


def test_many_rows_do_not_collide():
    grid = torch.cartesian_prod(torch.arange(200.0), torch.arange(200.0))
    assert len(row_hashes(grid).unique()) == 40000


def test_splitmix():
    # SplitMix64 from seed 0: its first two published outputs
    golden = 0x9E3779B97F4A7C15 - 2**64
    first, second = (int(v) % 2**64 for v in mix_bits(torch.tensor([0, golden])))
    assert (first, second) == (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)
