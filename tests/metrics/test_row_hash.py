"""Hashes depend on every value and its place, and on nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.metrics import row_hashes
from xinc_captum.metrics.row_hash import mixed


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
    first, second = (int(v) % 2**64 for v in mixed(torch.tensor([0, golden])))
    assert (first, second) == (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4)
