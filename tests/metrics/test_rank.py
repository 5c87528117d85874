import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import average_ranks, canvas_agreement, rank_vectors, spearman


@given(seed=st.integers(0, 999), n=st.integers(2, 30), ties=st.booleans())
def test_equals_scipy(seed, n, ties):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 3, n))
    if ties:
        a, b = a.round(0), b.round(0)
    ours = spearman(torch.from_numpy(a), torch.from_numpy(b))
    kept = [i for i in range(3) if np.ptp(a[i]) and np.ptp(b[i])]
    theirs = [scipy.stats.spearmanr(a[i], b[i]).statistic for i in kept]
    assert ours.left_out == 3 - len(kept)
    np.testing.assert_allclose(ours.values.numpy(), theirs, atol=1e-12)
    np.testing.assert_array_equal(average_ranks(torch.from_numpy(a))[0], scipy.stats.rankdata(a[0]))


def test_round_off_does_not_split_ties():
    a = torch.zeros(1, 1000, dtype=torch.float64)
    a[0, :300] = torch.linspace(1, 2, 300)
    noisy = a + 1e-9 * torch.randn(1, 1000, dtype=torch.float64)
    assert scipy.stats.spearmanr(a[0], noisy[0]).statistic < 0.9
    assert spearman(a, noisy).values.item() == pytest.approx(1.0, abs=1e-9)


def test_constant_maps_are_left_out_and_counted():
    maps = torch.rand(3, 2, 20)
    truth = maps.clone()
    maps[1] = 0
    agreement = canvas_agreement(maps, truth)
    assert agreement.spatial == pytest.approx(1.0)
    assert agreement.left_out == 1
    assert np.isnan(canvas_agreement(torch.zeros(2, 1, 5), truth[:2, :, :5]).spatial)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(3, 3\)"):
        spearman(torch.zeros(2, 3), torch.zeros(3, 3))


@given(seed=st.integers(0, 999), n=st.integers(3, 30))
def test_rank_vectors_multiply_to_spearman(seed, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 4, n)).round(1)
    table = rank_vectors(torch.from_numpy(a)) @ rank_vectors(torch.from_numpy(b)).T
    for i in range(4):
        for j in range(4):
            if np.ptp(a[i]) and np.ptp(b[j]):
                assert table[i, j].item() == pytest.approx(scipy.stats.spearmanr(a[i], b[j]).statistic, abs=1e-9)
            else:
                assert table[i, j].isnan(), "constant rows rank nothing"


def test_rank_vectors_of_any_shape():
    rows = torch.rand(2, 3, 9)
    torch.testing.assert_close(rank_vectors(rows)[1, 2], rank_vectors(rows[1, 2:])[0])  # norms of other shapes
    torch.testing.assert_close(rank_vectors(rows).norm(dim=-1), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_not_finite_rank_nothing(value):
    rows, others = torch.rand(2, 9), torch.rand(2, 9)
    rows[1, 4] = value
    found = spearman(rows, others)
    assert found.left_out == 1 and torch.equal(found.values, spearman(rows[:1], others[:1]).values)
    assert spearman(others, rows).left_out == 1
    assert rank_vectors(rows).isnan().all(1).tolist() == [False, True]
    assert average_ranks(torch.tensor([[1.0, torch.nan], [3.0, 2.0]])).tolist()[1] == [2.0, 1.0]
    assert average_ranks(torch.tensor([[1.0, torch.nan]])).isnan().all()
