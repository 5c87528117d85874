"""Random features stand for a Gaussian kernel, are settled by the first chunk and the seed, and by nothing later."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking.fourier_map import FourierMap


def drawn(n=40, seed=0, units=3):
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(n, units, generator=generator, dtype=torch.float64)
    return r, torch.stack([r[:, 0] * r[:, 1], r[:, 0].sin()], 1)


def mapped(r, w, ridge=0.1, **settings):
    own = FourierMap(r, w, ridge, **settings)
    own.add(r, w, None)
    return own


def test_features_are_the_formula():
    own = FourierMap(*drawn(), 0.1, features=2)
    own.centre = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    own.frequencies = torch.tensor([[math.pi, 0.0, 0.0], [0.0, math.pi / 2, 0.0]], dtype=torch.float64)
    own.phases = torch.tensor([0.0, math.pi], dtype=torch.float64)
    found = own.features(torch.tensor([[1.0, 0.0, 9.0], [2.0, 2.0, 9.0]], dtype=torch.float64))
    # sqrt(2 / 2) is 1: cos(0), cos(pi); cos(pi), cos(2 pi)
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))


def test_products_of_features_are_the_kernel_of_median_width():
    """Rows 0, 1 and 3 are, over their deviation s, 1/s, 2/s and 3/s apart; the middle one is the width."""
    r = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    phi = torch.cat([FourierMap(r, r, 0.1, features=400, seed=seed).features(r) for seed in range(50)], 1)
    expected = torch.exp(-0.5 * (torch.cdist(r, r) / 2) ** 2)
    torch.testing.assert_close(phi @ phi.T / 50, expected, atol=0.03, rtol=0)


@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(0, 5))
def test_units_of_any_scale_have_the_same_features(scale, shift, seed):
    r, w = drawn(20, seed)
    near = FourierMap(r, w, 0.1, features=8).features(r)
    far = r * scale + shift
    torch.testing.assert_close(FourierMap(far, w, 0.1, features=8).features(far), near, atol=1e-9, rtol=0)


def test_the_seed_decides_and_the_random_state_stays():
    r, w = drawn()
    state = torch.get_rng_state()
    first, again, other = (FourierMap(r, w, 0.1, features=6, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.features(r), again.features(r))
    assert not torch.equal(first.features(r), other.features(r))


def test_dead_units_and_rows_that_are_mostly_alike_have_finite_features():
    r, w = drawn()
    r[:, 1] = 0.3
    own = FourierMap(r, w, 0.1, features=5)
    moved = r.clone()
    moved[:, 1] += 7.0
    assert torch.equal(own.features(moved), own.features(r))
    alike = torch.zeros(30, 2, dtype=torch.float64)
    alike[0] = 1.0
    assert FourierMap(alike, w[:30], 0.1).features(alike).isfinite().all()


def test_the_solution_is_ridge_regression_on_the_features():
    r, w = drawn()
    own = mapped(r, w, 0.5, features=7)
    report, ridges = own.solve()
    phi = own.features(r)
    x, y = phi - phi.mean(0), w - w.mean(0)
    weight = torch.linalg.solve(x.T @ x + 0.5 * torch.eye(7), x.T @ y)
    torch.testing.assert_close(own.weight, weight.T)
    torch.testing.assert_close(own(r), x @ weight + w.mean(0))
    assert (report.units, ridges) == (7, {"all": 0.5})
    assert own.moments.units == 3
    rest = torch.arange(40) != 11
    without = own.blank()
    without.add(r[rest], w[rest], None)
    without.solve()
    torch.testing.assert_close(own.left_out(r, w, None)[11], without(r[11:12])[0])


@given(st.permutations(range(4)), st.integers(0, 10))
def test_shards_of_one_blank_in_any_order_are_one_pass(order, seed):
    r, w = drawn(60, seed)
    whole = mapped(r, w, features=9)
    merged = whole.blank()
    shards = [whole.blank() for _ in order]
    for shard, rows in zip(shards, torch.arange(60).split([1, 29, 20, 10]), strict=True):
        shard.add(r[rows], w[rows], None)
    for which in order:
        merged.merge(shards[which])
    for own in (whole, merged):
        own.solve()
    torch.testing.assert_close(merged(r), whole(r), atol=1e-9, rtol=0)
    torch.testing.assert_close(merged.moments.rr, whole.moments.rr)


def test_it_comes_back_and_goes_on():
    r, w = drawn()
    first = mapped(r, w, features=6, seed=5)
    again = FourierMap.restored(first.tensors(), 0.1)
    for own in (first, again):
        own.add(r + 0.1, w, None)
        own.solve()
    assert torch.equal(again(r), first(r))
    assert torch.equal(again.moments.rr, first.moments.rr)


def test_what_it_refuses():
    r, w = drawn()
    own = mapped(r, w, features=4)
    with pytest.raises(ValueError, match=r"the first chunk has 1 pair\(s\); Fourier features want a fair sample"):
        FourierMap(r[:1], w[:1], 0.1)
    with pytest.raises(ValueError, match="a fourier_features link is curved, so that a unit has no one partial"):
        own.partial(torch.tensor([0]))
    other = "the links have other Fourier features.*start all of them from one link's blank"
    with pytest.raises(ValueError, match=other):
        own.merge(mapped(r[:20], w[:20], features=4))


@pytest.mark.parametrize("which", ["centre", "frequencies", "phases"])
def test_features_are_other_ones_if_any_of_the_three_is(which):
    r, w = drawn()
    own = mapped(r, w, features=4)
    shifted = own.blank()
    getattr(shifted, which).add_(0.5)
    shifted.add(r, w, None)
    with pytest.raises(ValueError, match="the links have other Fourier features"):
        own.merge(shifted)
    assert own.moments.n == 40
