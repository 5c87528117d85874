import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import chance_of, false_discovery_rate

stats = pytest.importorskip("scipy.stats")


@given(seed=st.integers(0, 99), n=st.integers(1, 40))
def test_rates_are_scipys(seed, n):
    p = torch.rand(n, generator=torch.Generator().manual_seed(seed)).double().round(decimals=2)
    theirs = torch.from_numpy(stats.false_discovery_control(p.numpy()))
    torch.testing.assert_close(false_discovery_rate(p), theirs)


def test_chances_by_hand():
    null = torch.tensor([3.0, 1.0, torch.nan, 2.0, 2.0])
    assert chance_of(torch.tensor([2.0, 9.0, 0.0, torch.nan]), null).tolist() == [4 / 5, 1 / 5, 1, 1]


def test_chances_of_the_null_itself_are_even():
    g = torch.Generator().manual_seed(0)
    p = chance_of(torch.randn(4000, generator=g), torch.randn(4000, generator=g))
    for level in (0.01, 0.05, 0.5):
        assert (p <= level).double().mean().item() == pytest.approx(
            level, abs=4 * (2 * level * (1 - level) / 4000) ** 0.5
        )


def test_the_rate_holds_among_planted_findings():
    g = torch.Generator().manual_seed(1)
    false = []
    for _ in range(60):
        values, true = torch.randn(400, generator=g), torch.arange(400) < 40
        values[true] += 4
        kept = false_discovery_rate(chance_of(values, torch.randn(8000, generator=g))) <= 0.1
        assert (kept & true).sum() >= 20
        false.append((kept & ~true).sum() / kept.sum())
    assert 0.06 < torch.stack(false).mean() < 0.12, "nine in ten units are null, so the rate is .09"


def test_mismatched_arguments_raise_errors():
    with pytest.raises(ValueError, match="with values in the null that are not nan"):
        chance_of(torch.ones(2), torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="p-values from 0 to 1"):
        false_discovery_rate(torch.tensor([2.0]))
