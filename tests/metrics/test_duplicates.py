"""Repeated rows are counted whatever the dtype and the sign of zero."""

import torch

from xinc_captum.metrics import duplicates, leaks, row_hashes


def test_repeats_are_found():
    rows = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    assert duplicates(rows) == 0
    assert duplicates(torch.cat([rows, rows[:100]])) == 100 / 600


def test_leaks_are_the_rows_seen():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    seen = row_hashes(rows[:20].double())
    assert leaks(rows, seen).nonzero()[:, 0].tolist() == list(range(20))
    assert not leaks(rows + 1e-3, seen).any()
