"""One ridge regression, by hand and whatever the chunks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking.linear_map import LinearMap

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


def test_leaving_out_is_the_line_through_the_other_two():
    r = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    w = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    solved = mapped(r, w)
    solved.solve()
    for own in (solved, mapped(r, w)):
        assert own.left_out(r, w, None).flatten().tolist() == pytest.approx([-3.0, 2.5, 2.0])


def test_answers_in_the_callers_dtype_and_with_its_gradient():
    own = mapped(R, W)
    own.solve()
    asked = torch.tensor([[3.0]], requires_grad=True)
    answer = own(asked)
    assert answer.dtype == torch.float32
    assert torch.autograd.grad(answer.sum(), asked)[0].item() == pytest.approx(2.0)


@given(st.permutations(range(5)), st.integers(0, 20), st.sampled_from([0.1, "gcv", "held_out"]))
def test_shards_in_any_order_are_one_pass(order, seed, ridge):
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


@pytest.mark.parametrize("ridge", [0.1, "held_out"])
def test_it_comes_back_and_goes_on(ridge):
    r, w = torch.randn(50, 3), torch.randn(50, 2)
    first = mapped(r[:40], w[:40], ridge)
    again = LinearMap.restored(first.tensors(), ridge)
    for own in (first, again):
        own.add(r[40:], w[40:], None)
        own.solve()
    assert torch.equal(again.weight, first.weight)
    assert torch.equal(again.bias, first.bias)
