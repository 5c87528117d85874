"""Per-class and Fourier maps, by hand, in chunks and from their tensors."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.regressions import KINDS, FourierMap, PerClassMap, Variant, new_map


def test_there_is_a_map_for_every_name():
    assert tuple(KINDS) == get_args(Variant)


@pytest.mark.parametrize("variant", KINDS)
def test_a_new_map_has_no_pairs(variant):
    r, w = torch.rand(20, 4), torch.rand(20, 3)
    own = new_map(variant, r, w, 0.5, features=6, seed=2)
    assert type(own) is KINDS[variant]
    assert (own.moments.n, own.moments.units, own.moments.latent_dim) == (0, 4, 3)
    own.add(r, w, torch.arange(20) % 2)
    assert own.moments.n == 20
    assert set(own.solve()[1].values()) == {0.5}


def test_features_and_seed_reach_the_map_that_has_them():
    r, w = torch.rand(20, 4), torch.rand(20, 3)
    first, again, other = (new_map("fourier_features", r, w, 0.5, features=6, seed=s) for s in (2, 2, 3))
    assert first.features(r).shape == (20, 6)
    assert torch.equal(first.phases, again.phases)
    assert not torch.equal(first.phases, other.phases)


# Class 7 is w = -r, class -1 is w = 2 r + 1.
PER_CLASS_MAP_R = torch.tensor([[0.0], [1.0], [3.0], [0.0], [2.0], [4.0]], dtype=torch.float64)
CLASSES = torch.tensor([7, 7, 7, -1, -1, -1])
PER_CLASS_MAP_W = torch.where(CLASSES[:, None] == 7, -PER_CLASS_MAP_R, 2 * PER_CLASS_MAP_R + 1)


def per_class_map_mapped(r=PER_CLASS_MAP_R, w=PER_CLASS_MAP_W, classes=CLASSES, ridge=0.0):
    own = PerClassMap(r, w, ridge)
    own.add(r, w, classes)
    return own


@pytest.fixture
def lines():
    own = per_class_map_mapped()
    own.solve()
    return own


def test_per_class_map_by_hand(lines):
    assert lines.class_ids.tolist() == [-1, 7]
    assert lines.weight.flatten().tolist() == pytest.approx([2.0, -1.0])
    assert lines.bias.flatten().tolist() == pytest.approx([1.0, 0.0])
    asked = torch.tensor([[10.0], [10.0], [0.5]], requires_grad=True)
    output = lines(asked, torch.tensor([-1, 7, 7]))
    assert output.dtype == torch.float32
    assert output.flatten().tolist() == pytest.approx([21.0, -10.0, -0.5])
    assert torch.autograd.grad(output.sum(), asked)[0].flatten().tolist() == pytest.approx([2.0, -1.0, -1.0])
    assert lines.partial(torch.tensor([0]), 7).item() == pytest.approx(-1.0)
    assert lines.partial(torch.tensor([0]), -1).item() == pytest.approx(2.0)


def test_each_class_has_its_own_ridge_and_the_worst_report_is_returned():
    generator = torch.Generator().manual_seed(0)
    r, classes = torch.randn(80, 3, generator=generator, dtype=torch.float64), torch.arange(80) % 2
    r[classes == 1, 2] = r[classes == 1, 0]  # of the three units of class 1, two are one
    noise = 3 * torch.randn(80, 2, generator=generator, dtype=torch.float64)
    w = r[:, :2] + noise * classes[:, None]
    own = per_class_map_mapped(r, w, classes, "gcv")
    report, ridges = own.solve()
    assert (report.pairs, report.alive, report.rank) == (40, 3, 2)
    assert set(ridges) == {"0", "1"}
    assert ridges["1"] > 100 * ridges["0"]


@pytest.mark.parametrize("solved", [True, False])
def test_leave_one_out_uses_the_other_pairs_of_the_class(solved):
    w = PER_CLASS_MAP_W.clone()
    w[1] = 4.0  # class 7 now: (0, 0), (1, 4), (3, -3)
    own = per_class_map_mapped(w=w)
    if solved:
        own.solve()
    expected = [7.5, -1.0, 12.0, 1.0, 5.0, 9.0]
    assert own.leave_one_out(PER_CLASS_MAP_R, w, CLASSES).flatten().tolist() == pytest.approx(expected)


@given(st.permutations(range(4)), st.integers(0, 20))
def test_merged_shards_without_some_classes_equal_one_pass(order, seed):
    generator = torch.Generator().manual_seed(seed)
    r, w = (torch.randn(60, k, generator=generator, dtype=torch.float64) for k in (3, 2))
    classes = torch.randint(3, (60,), generator=generator).sort().values
    whole, merged = per_class_map_mapped(r, w, classes, 0.1), PerClassMap(r, w, 0.1)
    shards = [
        per_class_map_mapped(r[rows], w[rows], classes[rows], 0.1) for rows in torch.arange(60).split([5, 25, 20, 10])
    ]
    for shard in order:
        merged.merge(shards[shard])
    for own in (whole, merged):
        own.solve()
    assert torch.equal(merged.class_ids, whole.class_ids)
    torch.testing.assert_close(merged.weight, whole.weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(merged.bias, whole.bias, atol=1e-9, rtol=0)
    assert merged.moments.n == 60


def test_a_per_class_map_from_its_tensors_takes_further_pairs(lines):
    again = PerClassMap.from_tensors(lines.tensors(), 0.0)
    for own in (lines, again):
        own.add(PER_CLASS_MAP_R + 1, PER_CLASS_MAP_W, CLASSES)
        own.solve()
    assert torch.equal(again.class_ids, lines.class_ids)
    assert torch.equal(again.weight, lines.weight)
    assert again.moments.n == 12


def test_errors(lines):
    wants = "a per_class link needs the class of each sample; give classes=, for real images the model's predictions"
    unknown = r"class 5 is not linked; the classes of the fit are \[-1, 7\]"
    five = torch.full((6,), 5)
    lone = per_class_map_mapped(classes=torch.tensor([7, 7, 7, -1, -1, 9]))
    for call, text in (
        (lambda: PerClassMap(PER_CLASS_MAP_R, PER_CLASS_MAP_W, 0.0).add(PER_CLASS_MAP_R, PER_CLASS_MAP_W, None), wants),
        (lambda: lines(PER_CLASS_MAP_R), wants),
        (lambda: lines.leave_one_out(PER_CLASS_MAP_R, PER_CLASS_MAP_W, None), wants),
        (lambda: lines(PER_CLASS_MAP_R, five), unknown),
        (lambda: lines.leave_one_out(PER_CLASS_MAP_R, PER_CLASS_MAP_W, five), unknown),
        (lambda: lines.partial(torch.tensor([0]), 5), unknown),
        (
            lambda: lines.partial(torch.tensor([0])),
            "the link has a map for each class; give class_=, the class whose map to use",
        ),
        (lone.solve, r"class 9 cannot be linked on its own: got 1 pair\(s\) to link"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_a_chunk_without_classes_leaves_the_link_unchanged():
    link = LatentLink("per_class", 0.0)
    with pytest.raises(ValueError, match="needs the class of each sample"):
        link.partial_fit(PER_CLASS_MAP_R, PER_CLASS_MAP_W)
    link.partial_fit(PER_CLASS_MAP_R, PER_CLASS_MAP_W, CLASSES)
    assert link(torch.tensor([[10.0]]), 7).item() == pytest.approx(-10.0)
    assert len(link.latent_hashes) == 6


def drawn(n=40, seed=0, units=3):
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(n, units, generator=generator, dtype=torch.float64)
    return r, torch.stack([r[:, 0] * r[:, 1], r[:, 0].sin()], 1)


def fourier_map_mapped(r, w, ridge=0.1, **settings):
    own = FourierMap(r, w, ridge, **settings)
    own.add(r, w, None)
    return own


def test_features_are_the_formula():
    own = FourierMap(*drawn(), 0.1, features=2)
    own.centre = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    own.frequencies = torch.tensor([[math.pi, 0.0, 0.0], [0.0, math.pi / 2, 0.0]], dtype=torch.float64)
    own.phases = torch.tensor([0.0, math.pi], dtype=torch.float64)
    result = own.features(torch.tensor([[1.0, 0.0, 9.0], [2.0, 2.0, 9.0]], dtype=torch.float64))
    # sqrt(2 / 2) is 1: cos(0), cos(pi); cos(pi), cos(2 pi)
    torch.testing.assert_close(result, torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))


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


def test_features_depend_on_the_seed_and_not_on_the_random_state():
    r, w = drawn()
    state = torch.get_rng_state()
    first, again, other = (FourierMap(r, w, 0.1, features=6, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.features(r), again.features(r))
    assert not torch.equal(first.features(r), other.features(r))


def test_features_of_constant_units_and_equal_rows_are_finite():
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
    own = fourier_map_mapped(r, w, 0.5, features=7)
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
    torch.testing.assert_close(own.leave_one_out(r, w, None)[11], without(r[11:12])[0])


@given(st.permutations(range(4)), st.integers(0, 10))
def test_merged_shards_of_one_blank_equal_one_pass(order, seed):
    r, w = drawn(60, seed)
    whole = fourier_map_mapped(r, w, features=9)
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


def test_a_fourier_map_from_its_tensors_takes_further_pairs():
    r, w = drawn()
    first = fourier_map_mapped(r, w, features=6, seed=5)
    again = FourierMap.from_tensors(first.tensors(), 0.1)
    for own in (first, again):
        own.add(r + 0.1, w, None)
        own.solve()
    assert torch.equal(again(r), first(r))
    assert torch.equal(again.moments.rr, first.moments.rr)


def test_fourier_map_errors():
    r, w = drawn()
    own = fourier_map_mapped(r, w, features=4)
    with pytest.raises(ValueError, match=r"the first chunk has 1 pair\(s\); Fourier features need at least 2"):
        FourierMap(r[:1], w[:1], 0.1)
    with pytest.raises(ValueError, match="a fourier_features link is not linear, so a unit has no single partial"):
        own.partial(torch.tensor([0]))
    other = "the links have different Fourier features.*start all of them from one link's blank"
    with pytest.raises(ValueError, match=other):
        own.merge(fourier_map_mapped(r[:20], w[:20], features=4))


@pytest.mark.parametrize("which", ["centre", "frequencies", "phases"])
def test_maps_with_different_features_cannot_be_merged(which):
    r, w = drawn()
    own = fourier_map_mapped(r, w, features=4)
    shifted = own.blank()
    getattr(shifted, which).add_(0.5)
    shifted.add(r, w, None)
    with pytest.raises(ValueError, match="the links have different Fourier features"):
        own.merge(shifted)
    assert own.moments.n == 40
