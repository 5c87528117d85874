"""Every row has the same chance, whatever the chunks."""

import pytest
import torch

from xinc_captum.attributions.linking.reservoir import Reservoir


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


def test_all_rows_have_the_same_chance():
    rows = torch.arange(100.0)[:, None] + 0.5
    counts = torch.zeros(100)
    for seed in range(400):
        counts[(_kept(rows, seed)[:, 0] - 0.5).long()] += 1
    # 160 expected each; binomial sd 9.8
    assert counts.min() > 110
    assert counts.max() < 210


def test_few_rows_are_all_kept_and_repeats_once():
    reservoir = Reservoir(9)
    reservoir.add(torch.tensor([[1.0], [2.0], [1.0]]))
    reservoir.add(torch.tensor([[2.0]]))
    assert sorted(reservoir.rows[:, 0].tolist()) == [1.0, 2.0]
    with pytest.raises(ValueError, match="reservoir of 9 rows and seed 1 to merge into one of 9 rows and seed 0"):
        reservoir.merge(Reservoir(9, seed=1))


def test_a_smaller_reservoir_would_tilt_the_sample():
    with pytest.raises(ValueError, match="got a reservoir of 4 rows and seed 0 to merge into one of 9 rows"):
        Reservoir(9).merge(Reservoir(4))
