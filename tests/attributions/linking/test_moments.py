"""Moments, class means and the reservoir: chunks and shards equal one pass."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking.moments import ClassMeans, Moments, Reservoir, wide


def drawn(n, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(n, 4, generator=generator, dtype=torch.float64) + shift
    return r, torch.randn(n, 3, generator=generator, dtype=torch.float64) - shift


def gathered(r, w):
    moments = Moments(r.shape[1], w.shape[1])
    moments.add(r, w)
    return moments


def same(a, b, tolerance=1e-12):
    assert a.n == b.n
    for name in a.tensors():
        torch.testing.assert_close(a.tensors()[name], b.tensors()[name], rtol=tolerance, atol=tolerance)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 50))
def test_chunks_and_merges_are_one_pass(sizes, seed):
    n = sum(sizes) + 1
    r, w = drawn(n, seed, shift=3.0)
    chunked, merged = Moments(4, 3), Moments(4, 3)
    for rows in torch.arange(n).split([*sizes, 1]):
        chunked.add(r[rows], w[rows])
        shard = Moments(4, 3)
        shard.add(r[rows], w[rows])
        merged.merge(shard)
    same(chunked, gathered(r, w))
    same(merged, gathered(r, w))


def test_moments_equal_their_definition():
    r, w = drawn(50, 0)
    m = gathered(r, w)
    torch.testing.assert_close(m.rr / 49, r.T.cov())
    torch.testing.assert_close(m.rw, (r - r.mean(0)).T @ (w - w.mean(0)))
    torch.testing.assert_close(m.ww / 49, w.var(0))
    torch.testing.assert_close(m.r_sd, r.std(0))
    assert torch.equal(m.r_min, r.amin(0))
    assert torch.equal(m.r_max, r.amax(0))


def test_large_means_cause_no_cancellation():
    r, w = drawn(4000, 1)
    near, far = Moments(4, 3), Moments(4, 3)
    for rows in torch.arange(4000).split(64):
        near.add(r[rows], w[rows])
        far.add(r[rows] + 1e6, w[rows])
    torch.testing.assert_close(far.rr, near.rr, rtol=1e-8, atol=1e-6)


def test_dead_units_and_moments_from_tensors():
    r, w = drawn(10, 3)
    r[:, 1] = 0.1
    m = gathered(r.float(), w)
    assert m.alive.tolist() == [True, False, True, True]
    same(Moments.from_tensors(m.tensors()), m, 0)
    assert wide(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float64


def test_moments_from_tensors_are_independent():
    r, w = drawn(10, 4)
    first = gathered(r, w)
    Moments.from_tensors(first.tensors()).add(r, w)
    same(first, gathered(r, w), 0)


def test_moments_of_other_sizes_raise():
    with pytest.raises(ValueError, match=r"got moments of \(2 units, 3 latents\) to merge into moments of \(4, 3\)"):
        Moments(4, 3).merge(Moments(2, 3))


def test_constant_columns_have_no_variance():
    generator = torch.Generator().manual_seed(0)
    for n in range(2, 40):
        r = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        w = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        r[:, 1], w[:, 0] = 0.1, -0.3
        moments = Moments(3, 2)
        moments.add(r, w)
        moments.add(r[: n // 2], w[: n // 2])
        assert moments.r_sd[1] == 0 and moments.rr[1].abs().max() == 0 and moments.rw[1].abs().max() == 0
        assert moments.ww[0] == 0 and moments.rw[:, 0].abs().max() == 0
        assert moments.latent_constant.tolist() == [True, False]


def test_between_and_within_add_up_whatever_the_chunks():
    generator = torch.Generator().manual_seed(0)
    r, w = (torch.randn(90, k, generator=generator, dtype=torch.float64) for k in (4, 3))
    classes = torch.randint(3, (90,), generator=generator) + 5
    moments, means, other = Moments(4, 3), ClassMeans(), ClassMeans()
    moments.add(r, w)
    for rows in torch.arange(60).split(7):
        means.add(r[rows], w[rows], classes[rows])
    other.add(r[60:], w[60:], classes[60:])
    means.merge(other)
    within = torch.zeros(4, 3, dtype=torch.float64)
    for c in (5, 6, 7):
        own = classes == c
        assert means.counts[c] == int(own.sum())
        torch.testing.assert_close(means.w_means[c], w[own].mean(0))
        within += (r[own] - r[own].mean(0)).T @ (w[own] - w[own].mean(0))
    torch.testing.assert_close(moments.rw - means.between(moments).rw, within)
    again = ClassMeans.from_tensors(means.tensors())
    assert again.counts == means.counts
    torch.testing.assert_close(again.between(moments).rr, means.between(moments).rr)


def test_chunks_and_shards_keep_the_same_rows():
    rows = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    whole, parts = Reservoir(40, seed=2), Reservoir(40, seed=2)
    whole.add(rows)
    for chunk in rows.flip(0).split(33):
        shard = Reservoir(40, seed=2)
        shard.add(chunk)
        parts.merge(shard)
    assert torch.equal(whole.rows, parts.rows)
    assert not torch.equal(whole.rows[0], _kept(rows, seed=3)[0])


def _kept(rows, seed):
    reservoir = Reservoir(40, seed=seed)
    reservoir.add(rows)
    return reservoir.rows


def test_all_rows_have_equal_probability():
    rows = torch.arange(100.0)[:, None] + 0.5
    counts = torch.zeros(100)
    for seed in range(400):
        counts[(_kept(rows, seed)[:, 0] - 0.5).long()] += 1
    # 160 expected each; binomial sd 9.8
    assert counts.min() > 110
    assert counts.max() < 210


def test_few_rows_are_all_stored_and_repeats_once():
    reservoir = Reservoir(9)
    reservoir.add(torch.tensor([[1.0], [2.0], [1.0]]))
    reservoir.add(torch.tensor([[2.0]]))
    assert sorted(reservoir.rows[:, 0].tolist()) == [1.0, 2.0]
    with pytest.raises(ValueError, match="reservoir of 9 rows and seed 1 to merge into one of 9 rows and seed 0"):
        reservoir.merge(Reservoir(9, seed=1))


def test_reservoirs_of_different_size_cannot_be_merged():
    with pytest.raises(ValueError, match="got a reservoir of 4 rows and seed 0 to merge into one of 9 rows"):
        Reservoir(9).merge(Reservoir(4))
