"""The ridge path: solutions, GCV and leverages, also for units of very different scales."""

import pytest
import torch

from xinc_captum.attributions.linking.moments import Moments
from xinc_captum.attributions.linking.ridge import RidgePath


@pytest.fixture
def path():
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    r[:, 2] = 1.0
    r[:, 4] = r[:, 0] + r[:, 1]
    w = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    moments = Moments(5, 3)
    moments.add(r, w)
    return RidgePath(moments), r, w


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


def solved(r, w):
    moments = Moments(r.shape[1], w.shape[1])
    moments.add(r, w)
    return RidgePath(moments)


@pytest.mark.parametrize("scales", [(1e8, 1.0, 1.0, 1e-3), (1e-9, 1.0, 2.0, 3.0), (1e12, 1e6, 1.0, 1e-6)])
def test_units_of_very_different_scales_get_the_map_of_standardised_units(scales):
    r, scaled, w = graded(scales)
    plain, path = solved(r, w), solved(scaled, w)
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
    path = solved(torch.tensor(r, dtype=torch.float64), torch.tensor(w, dtype=torch.float64)[:, None])
    torch.testing.assert_close(
        path.solution(ridge)[0][0], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0
    )


def test_gcv_of_units_of_other_scales_is_that_of_the_hat_matrix():
    """Units beside each other that repeat: the map is of less than full rank on any scale."""
    r, _, w = graded((1.0, 1.0, 1.0))
    r = torch.cat([r, r[:, :1] + r[:, 1:2]], 1)
    scales = torch.tensor([1.0, 2.0, 1e7, 1.0], dtype=torch.float64)
    path = solved(r * scales, w)
    assert (path.report.rank, path.report.alive) == (3, 4)
    plain = solved(r, w)
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
    path = solved(r, w)
    m = path.moments
    values, vectors = torch.linalg.eigh(m.rr)
    for ridge in (0.0, 2.0):
        expected = (vectors @ ((vectors.T @ m.rw) / (values + ridge)[:, None])).T
        torch.testing.assert_close(path.solution(ridge)[0], expected, rtol=1e-12, atol=0)
    top = float(values[-1])
    assert path.ridges()[1] == pytest.approx(1e-10 * top) and path.ridges()[-1] == pytest.approx(10 * top)


def test_the_ridges_reach_below_the_smallest_unit():
    _, r, w = graded((1e8, 1.0))
    ridges = solved(r, w).ridges()
    assert ridges[0] == 0 and ridges[1] < 1e-7 and ridges[-1] > 1e16


def test_constant_units_are_left_out_beside_units_of_other_scales():
    _, r, w = graded((1e8, 1.0, 1.0))
    r[:, 1] = 0.1
    path = solved(r, w)
    assert (path.report.alive, path.report.rank, path.report.units) == (2, 2, 3)
    assert path.solution(0.0)[0][:, 1].abs().max() == 0
