"""Chunks follow the budget, the width of the network and the size of the answer."""

import pytest
import torch

from xinc_captum.inr import FourierMLP
from xinc_captum.propagation import Batch, Tail
from xinc_captum.propagation.budget import SMALL, rows_at_once


def rows(budget, hidden=16, answers=48, count=100_000):
    model = FourierMLP(hidden=hidden)
    return rows_at_once(Tail(model, model.activation1), Batch.of(torch.rand(count, 2)), answers, budget)


def test_a_larger_budget_takes_more_rows_in_proportion():
    small, large = rows(1 << 20), rows(1 << 23)
    assert 1 < small < large < 100_000
    assert large / small == pytest.approx(8, rel=0.01)


def test_wider_networks_and_answers_take_fewer():
    assert rows(1 << 20, hidden=64) < rows(1 << 20)
    assert rows(1 << 20, answers=4800) < rows(1 << 20)


def test_bounds():
    assert rows(1) == 1
    assert rows(1 << 40) == 100_000
    assert rows(None, count=SMALL) == SMALL
    assert rows(1, count=1) == 1
    with pytest.raises(ValueError, match="memory_budget is -1; wanted a positive number of bytes"):
        rows(-1)


def test_a_chunk_keeps_to_its_budget():
    model, budget = FourierMLP(hidden=32), 4 << 20
    tail = Tail(model, model.activation1)
    n = rows_at_once(tail, Batch.of(torch.rand(100_000, 2)), 96, budget)
    held = 0

    def note(t):
        nonlocal held
        held += t.nbytes
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        tail.run(Batch.of(torch.rand(n, 2)))
    weights = sum(p.nbytes for p in model.parameters()) * 2
    assert held - weights + 3 * n * 96 * 4 <= budget * 1.1
