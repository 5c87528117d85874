"""A line for each class, and no answer for a class without one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.per_class_map import PerClassMap

# Class 7 is w = -r, class -1 is w = 2 r + 1.
R = torch.tensor([[0.0], [1.0], [3.0], [0.0], [2.0], [4.0]], dtype=torch.float64)
CLASSES = torch.tensor([7, 7, 7, -1, -1, -1])
W = torch.where(CLASSES[:, None] == 7, -R, 2 * R + 1)


def mapped(r=R, w=W, classes=CLASSES, ridge=0.0):
    own = PerClassMap(r, w, ridge)
    own.add(r, w, classes)
    return own


@pytest.fixture
def lines():
    own = mapped()
    own.solve()
    return own


def test_by_hand(lines):
    assert lines.class_ids.tolist() == [-1, 7]
    assert lines.weight.flatten().tolist() == pytest.approx([2.0, -1.0])
    assert lines.bias.flatten().tolist() == pytest.approx([1.0, 0.0])
    asked = torch.tensor([[10.0], [10.0], [0.5]], requires_grad=True)
    answer = lines(asked, torch.tensor([-1, 7, 7]))
    assert answer.dtype == torch.float32
    assert answer.flatten().tolist() == pytest.approx([21.0, -10.0, -0.5])
    assert torch.autograd.grad(answer.sum(), asked)[0].flatten().tolist() == pytest.approx([2.0, -1.0, -1.0])
    assert lines.partial(torch.tensor([0]), 7).item() == pytest.approx(-1.0)
    assert lines.partial(torch.tensor([0]), -1).item() == pytest.approx(2.0)


def test_each_class_has_its_own_ridge_and_the_worst_report_is_told():
    generator = torch.Generator().manual_seed(0)
    r, classes = torch.randn(80, 3, generator=generator, dtype=torch.float64), torch.arange(80) % 2
    r[classes == 1, 2] = r[classes == 1, 0]  # of the three units of class 1, two are one
    noise = 3 * torch.randn(80, 2, generator=generator, dtype=torch.float64)
    w = r[:, :2] + noise * classes[:, None]
    own = mapped(r, w, classes, "gcv")
    report, ridges = own.solve()
    assert (report.pairs, report.alive, report.rank) == (40, 3, 2)
    assert set(ridges) == {"0", "1"}
    assert ridges["1"] > 100 * ridges["0"]


@pytest.mark.parametrize("solved", [True, False])
def test_leaving_out_is_the_line_of_the_others_of_the_class(solved):
    w = W.clone()
    w[1] = 4.0  # class 7 now: (0, 0), (1, 4), (3, -3)
    own = mapped(w=w)
    if solved:
        own.solve()
    expected = [7.5, -1.0, 12.0, 1.0, 5.0, 9.0]
    assert own.left_out(R, w, CLASSES).flatten().tolist() == pytest.approx(expected)


@given(st.permutations(range(4)), st.integers(0, 20))
def test_shards_in_any_order_are_one_pass_even_where_some_lack_a_class(order, seed):
    generator = torch.Generator().manual_seed(seed)
    r, w = (torch.randn(60, k, generator=generator, dtype=torch.float64) for k in (3, 2))
    classes = torch.randint(3, (60,), generator=generator).sort().values
    whole, merged = mapped(r, w, classes, 0.1), PerClassMap(r, w, 0.1)
    shards = [mapped(r[rows], w[rows], classes[rows], 0.1) for rows in torch.arange(60).split([5, 25, 20, 10])]
    for shard in order:
        merged.merge(shards[shard])
    for own in (whole, merged):
        own.solve()
    assert torch.equal(merged.class_ids, whole.class_ids)
    torch.testing.assert_close(merged.weight, whole.weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(merged.bias, whole.bias, atol=1e-9, rtol=0)
    assert merged.moments.n == 60


def test_it_comes_back_and_goes_on(lines):
    again = PerClassMap.restored(lines.tensors(), 0.0)
    for own in (lines, again):
        own.add(R + 1, W, CLASSES)
        own.solve()
    assert torch.equal(again.class_ids, lines.class_ids)
    assert torch.equal(again.weight, lines.weight)
    assert again.moments.n == 12


def test_what_it_refuses(lines):
    wants = "a per_class link wants the class of each row: give classes=, for real pictures what the model predicts"
    unknown = r"class 5 is not linked; the fit saw the classes \[-1, 7\]"
    five = torch.full((6,), 5)
    lone = mapped(classes=torch.tensor([7, 7, 7, -1, -1, 9]))
    for call, text in (
        (lambda: PerClassMap(R, W, 0.0).add(R, W, None), wants),
        (lambda: lines(R), wants),
        (lambda: lines.left_out(R, W, None), wants),
        (lambda: lines(R, five), unknown),
        (lambda: lines.left_out(R, W, five), unknown),
        (lambda: lines.partial(torch.tensor([0]), 5), unknown),
        (lambda: lines.partial(torch.tensor([0])), "the link has a map for each class; say of which one with class_="),
        (lone.solve, r"class 9 cannot be linked on its own: got 1 pair\(s\) to link"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_a_chunk_refused_for_want_of_classes_leaves_the_link_as_it_was():
    link = LatentLink("per_class", 0.0)
    with pytest.raises(ValueError, match="wants the class of each row"):
        link.partial_fit(R, W)
    link.partial_fit(R, W, CLASSES)
    assert link(torch.tensor([[10.0]]), 7).item() == pytest.approx(-10.0)
    assert len(link.seen) == 6
