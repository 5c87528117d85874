"""One eigendecomposition gives every ridge, its GCV, its held-out error and its leverages."""

import pytest
import torch

from xinc_captum.links.moments import Moments
from xinc_captum.links.ridge import RidgePath


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


def test_error_on_others_is_that_of_their_rows(path):
    path, _, _ = path
    generator = torch.Generator().manual_seed(5)
    r, w = (torch.randn(15, k, generator=generator, dtype=torch.float64) for k in (5, 3))
    other = Moments(5, 3)
    other.add(r, w)
    weight, bias = path.solution(0.3)
    assert path.error(0.3, other) == pytest.approx(float((w - r @ weight.T - bias).square().sum(1).mean()))


def test_the_report_counts(path):
    path, _, _ = path
    assert (path.report.pairs, path.report.units, path.report.alive, path.report.rank) == (40, 5, 4, 3)
    assert path.report.deficient
    assert 1 < path.report.effective_rank <= 3
    assert "4 of 5 units alive, rank 3" in str(path.report)
    assert "units that depend on one another, so the map of least norm is taken" in str(path.report)
    assert path.report.to_dict()["latent_constant"] == 0


def test_where_nothing_is_left_gcv_is_infinite():
    moments = Moments(4, 1)
    generator = torch.Generator().manual_seed(0)
    moments.add(torch.randn(4, 4, generator=generator), torch.randn(4, 1, generator=generator))
    path = RidgePath(moments)
    assert path.gcv(0.0) == float("inf")
    assert path.gcv(1.0) < float("inf")
    assert path.ridges()[0] == 0
