"""Chunks follow the budget, the width of the network and the size of the answer."""

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.budget import measure
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP


def rows(budget, hidden=16, units=16, count=1000):
    model = FourierMLP(hidden=hidden)
    return measure(Tail(model, model.activation1), Batch.of(torch.rand(count, 2))).rows(units, budget)


def test_a_larger_budget_takes_more_rows_in_proportion():
    small, large = rows(1 << 20), rows(1 << 23)
    assert 1 < small < large
    assert large / small == pytest.approx(8, rel=0.01)


def test_wider_networks_and_answers_take_fewer():
    assert rows(1 << 20, hidden=64) < rows(1 << 20)
    assert rows(1 << 20, units=1600) < rows(1 << 20)


def test_one_row_is_measured_like_many():
    assert rows(1 << 20, count=1) == rows(1 << 20)
    assert rows(1) == 1
    with pytest.raises(ValueError, match="memory_budget is -1; wanted a positive number of bytes"):
        rows(-1)


def test_a_few_rows_in_a_large_budget_are_looked_at_once():
    model = FourierMLP(hidden=16)
    ran = []
    model.register_forward_hook(lambda *_: ran.append(1))
    look = measure(Tail(model, model.activation1), Batch.of(torch.rand(3, 2)))
    assert look.rows(16, None, enough=3) >= 3
    assert look.stack(16, 3, None) == 16
    assert len(ran) == 1
    assert look.rows(16, 1 << 20) == rows(1 << 20)  # asked how many there could be, it looks again, once
    look.rows(16, 1 << 20)
    assert len(ran) == 2


@given(budget=st.integers(1 << 10, 1 << 24), count=st.integers(1, 64))
def test_what_it_says_of_the_rows_there_are_is_the_same_either_way(budget, count):
    model = FourierMLP(hidden=16)
    look = measure(Tail(model, model.activation1), Batch.of(torch.rand(count, 2)))
    assert min(count, look.rows(16, budget, enough=count)) == min(count, look.rows(16, budget))


def test_a_chunk_keeps_to_its_budget():
    model, budget = FourierMLP(hidden=32), 4 << 20
    tail = Tail(model, model.activation1)
    n = measure(tail, Batch.of(torch.rand(100, 2))).rows(32, budget)
    held = 0

    def note(t):
        nonlocal held
        held += t.nbytes
        return t.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        tail.run(Batch.of(torch.rand(n, 2)))
    weights = sum(p.nbytes for p in model.parameters()) * 2
    assert held - weights + 3 * n * 96 * 4 <= budget * 1.1


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.ELU, lambda: nn.Softmax(1)])
def test_a_measurement_keeps_no_activation(activation):
    # These operations save their own output; a graph that holds the tensor itself would never be freed.
    model, seen = nn.Sequential(nn.Linear(2, 4), activation(), nn.Linear(4, 3)), []
    model[1].register_forward_hook(lambda _m, _a, output: seen.append(weakref.ref(output)))
    measure(Tail(model, model[0]), Batch.of(torch.rand(3, 2))).rows(4, 1000)
    gc.collect()
    assert len(seen) == 2 and not any(ref() is not None for ref in seen)


def test_a_model_that_takes_gradients_inside_is_measured():
    field = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1))

    def slope(x):
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(field(x).sum(), x, create_graph=True)[0]

    points = torch.rand(3, 2)
    wanted = slope(points)
    torch.testing.assert_close(measure(Tail(slope, field[1]), Batch.of(points)).output, wanted.detach())
