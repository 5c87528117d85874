"""Moments, class means and the reservoir: chunks and shards equal one pass. The ridge path and the linear map."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking.moments import ClassMeans, LinearMap, Moments, Reservoir, RidgePath, wide


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
    torch.testing.assert_close(moments.rw - means.between(moments)[1], within)
    again = ClassMeans.from_tensors(means.tensors())
    assert again.counts == means.counts
    torch.testing.assert_close(again.between(moments)[0], means.between(moments)[0])


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


@pytest.fixture
def path():
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    r[:, 2] = 1.0
    r[:, 4] = r[:, 0] + r[:, 1]
    w = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    return path_of(r, w), r, w


@pytest.mark.parametrize("ridge", [0.0, 0.7, 50.0])
def test_gcv_and_leverage_are_those_of_the_hat_matrix(path, ridge):
    path, r, w = path
    x = r - r.mean(0)
    hat = x @ torch.linalg.pinv(x.T @ x + ridge * torch.eye(5), rtol=1e-10) @ x.T + 1 / 40
    torch.testing.assert_close(path.leverage(r, ridge), hat.diagonal())
    weight, bias = path.solution(ridge)
    torch.testing.assert_close(r @ weight.T + bias, hat @ w)
    rss = float((w - hat @ w).square().sum())
    assert path.gcv(ridge) == pytest.approx(40 * rss / (40 - float(hat.trace())) ** 2)


def test_the_report_counts(path):
    path, _, _ = path
    assert (path.report.pairs, path.report.units, path.report.alive, path.report.rank) == (40, 5, 4, 3)
    assert path.report.deficient
    assert 1 < path.report.effective_rank <= 3
    assert "4 of 5 units alive, rank 3" in str(path.report)
    assert "units that depend on one another, so the map of least norm is used" in str(path.report)
    assert path.report.to_dict()["latent_constant"] == 0


def test_gcv_without_degrees_of_freedom_is_infinite():
    moments = Moments(4, 1)
    generator = torch.Generator().manual_seed(0)
    moments.add(torch.randn(4, 4, generator=generator), torch.randn(4, 1, generator=generator))
    path = RidgePath(moments)
    assert path.gcv(0.0) == float("inf")
    assert path.gcv(1.0) < float("inf")
    assert path.ridges()[0] == 0


def graded(scales, n=400, noise=0.02):
    generator = torch.Generator().manual_seed(3)
    r = torch.randn(n, len(scales), generator=generator, dtype=torch.float64)
    w = r @ torch.randn(len(scales), 3, generator=generator, dtype=torch.float64)
    w = w + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return r, r * torch.tensor(scales, dtype=torch.float64), w


def path_of(r, w):
    return RidgePath(gathered(r, w))


@pytest.mark.parametrize("scales", [(1e8, 1.0, 1.0, 1e-3), (1e-9, 1.0, 2.0, 3.0), (1e12, 1e6, 1.0, 1e-6)])
def test_units_of_very_different_scales_get_the_map_of_standardised_units(scales):
    r, scaled, w = graded(scales)
    plain, path = path_of(r, w), path_of(scaled, w)
    assert (path.report.rank, path.report.alive) == (4, 4) and not path.report.deficient
    weight, bias = path.solution(0.0)
    expected, offset = plain.solution(0.0)
    torch.testing.assert_close(weight * torch.tensor(scales, dtype=torch.float64), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(bias, offset, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(path.leverage(scaled, 0.0), plain.leverage(r, 0.0), rtol=1e-9, atol=0)
    assert path.gcv(0.0) == pytest.approx(plain.gcv(0.0), rel=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 1e-10, 3.0, 1e9])
def test_ridges_of_units_of_other_scales_are_those_of_exact_arithmetic(ridge):
    """Two units, so that the inverse can be written down: fractions of integers have no rounding."""
    from fractions import Fraction

    r = [(10**8 * a, b) for a, b in ((1, 2), (3, -1), (-2, 1), (0, 4), (-2, -6))]
    w = [1, 4, -3, 2, -4]
    mean = [Fraction(sum(row[k] for row in r), 5) for k in (0, 1)]
    a, b, d = (
        sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in r) + (Fraction(ridge) if i == j else 0)
        for i, j in ((0, 0), (0, 1), (1, 1))
    )
    x, y = (sum((row[k] - mean[k]) * value for row, value in zip(r, w, strict=True)) for k in (0, 1))
    expected = [float((d * x - b * y) / (a * d - b * b)), float((a * y - b * x) / (a * d - b * b))]
    path = path_of(torch.tensor(r, dtype=torch.float64), torch.tensor(w, dtype=torch.float64)[:, None])
    torch.testing.assert_close(
        path.solution(ridge)[0][0], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_gcv_of_units_of_other_scales_is_that_of_the_hat_matrix():
    """Units beside each other that repeat: the map is of less than full rank on any scale."""
    r, _, w = graded((1.0, 1.0, 1.0))
    r = torch.cat([r, r[:, :1] + r[:, 1:2]], 1)
    scales = torch.tensor([1.0, 2.0, 1e7, 1.0], dtype=torch.float64)
    path = path_of(r * scales, w)
    assert (path.report.rank, path.report.alive) == (3, 4)
    plain = path_of(r, w)
    assert path.gcv(0.0) == pytest.approx(plain.gcv(0.0), rel=1e-6)
    x = (r - r.mean(0)) * scales
    for ridge in (0.5, 1e6):
        augmented = torch.cat([x, ridge**0.5 * torch.eye(4).double()])  # QR is exact enough on any scale of columns
        q = torch.linalg.qr(augmented / augmented.norm(dim=0)).Q[: len(x)]
        hat = q @ q.T + 1 / len(x)
        rss = float((w - hat @ w).square().sum())
        expected = len(x) * rss / (len(x) - float(hat.trace())) ** 2
        assert path.gcv(ridge) == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(path.leverage(r * scales, ridge), hat.diagonal(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("most", [1.0, 1e4])
def test_up_to_a_factor_of_1e5_nothing_is_scaled(most):
    """The solution is that of one eigendecomposition of the sums as they are, in the same operations: equal."""
    _, r, w = graded((most, 1.0, 1.0))
    path = path_of(r, w)
    m = path.moments
    values, vectors = torch.linalg.eigh(m.rr)
    for ridge in (0.0, 2.0):
        expected = (vectors @ ((vectors.T @ m.rw) / (values + ridge)[:, None])).T
        torch.testing.assert_close(path.solution(ridge)[0], expected, rtol=1e-12, atol=0)
    top = float(values[-1])
    assert path.ridges()[1] == pytest.approx(1e-10 * top) and path.ridges()[-1] == pytest.approx(10 * top)


def test_the_ridges_reach_below_the_smallest_unit():
    _, r, w = graded((1e8, 1.0))
    ridges = path_of(r, w).ridges()
    assert ridges[0] == 0 and ridges[1] < 1e-7 and ridges[-1] > 1e16


def test_constant_units_are_left_out_beside_units_of_other_scales():
    _, r, w = graded((1e8, 1.0, 1.0))
    r[:, 1] = 0.1
    path = path_of(r, w)
    assert (path.report.alive, path.report.rank, path.report.units) == (2, 2, 3)
    assert path.solution(0.0)[0][:, 1].abs().max() == 0


R = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
W = torch.tensor([[1.0], [5.0]], dtype=torch.float64)


def mapped(r, w, ridge=0.0):
    own = LinearMap(r, w, ridge)
    own.add(r, w, None)
    return own


@pytest.mark.parametrize(
    ("ridge", "weight", "bias"),
    [
        (0.0, 2.0, 1.0),  # the line through both
        (2.0, 1.0, 2.0),  # S_rr = 2 and S_rw = 4, so B = 4 / (2 + 2) and b = 3 - 1
    ],
)
def test_by_hand(ridge, weight, bias):
    own = mapped(R, W, ridge)
    report, ridges = own.solve()
    assert (float(own.weight), float(own.bias)) == pytest.approx((weight, bias))
    assert (report.pairs, report.rank, ridges) == (2, 1, {"all": ridge})
    assert own(torch.tensor([[10.0]])).item() == pytest.approx(10 * weight + bias)
    assert own.partial(torch.tensor([0, 0])).flatten().tolist() == pytest.approx([weight] * 2)


def test_leave_one_out_is_the_line_through_the_other_two():
    r = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    w = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    solved = mapped(r, w)
    solved.solve()
    for own in (solved, mapped(r, w)):
        assert own.leave_one_out(r, w, None).flatten().tolist() == pytest.approx([-3.0, 2.5, 2.0])


def test_outputs_keep_dtype_and_gradient():
    own = mapped(R, W)
    own.solve()
    asked = torch.tensor([[3.0]], requires_grad=True)
    output = own(asked)
    assert output.dtype == torch.float32
    assert torch.autograd.grad(output.sum(), asked)[0].item() == pytest.approx(2.0)


@given(st.permutations(range(5)), st.integers(0, 20), st.sampled_from([0.1, "gcv"]))
def test_merged_shards_in_any_order_equal_one_pass(order, seed, ridge):
    generator = torch.Generator().manual_seed(seed)
    r, w = (torch.randn(60, k, generator=generator, dtype=torch.float64) for k in (4, 2))
    whole, merged = mapped(r, w, ridge), LinearMap(r, w, ridge)
    shards = [mapped(r[rows], w[rows], ridge) for rows in torch.arange(60).split([3, 1, 30, 16, 10])]
    for shard in order:
        merged.merge(shards[shard])
    for own in (whole, merged):
        own.solve()
    torch.testing.assert_close(merged.weight, whole.weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(merged.bias, whole.bias, atol=1e-9, rtol=0)


@pytest.mark.parametrize("ridge", [0.1, "gcv"])
def test_a_linear_map_from_its_tensors_takes_further_pairs(ridge):
    r, w = torch.randn(50, 3), torch.randn(50, 2)
    first = mapped(r[:40], w[:40], ridge)
    again = LinearMap.from_tensors(first.tensors(), ridge)
    for own in (first, again):
        own.add(r[40:], w[40:], None)
        own.solve()
    assert torch.equal(again.weight, first.weight)
    assert torch.equal(again.bias, first.bias)
