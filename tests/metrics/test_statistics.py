"""Rank correlations against scipy, coverage of bootstrap intervals, false discovery rates, and probabilities."""

import dataclasses
import math
import warnings
from collections import namedtuple

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from xinc_captum.metrics import (
    canvas_agreement,
    chance_of,
    complement,
    deletion_insertion,
    false_discovery_rate,
    mean_interval,
    predict_classes,
    probabilities,
    probability_kind,
    rank_vectors,
    ratio_interval,
    road,
    shifts,
    shuffle_pixels,
    shuffle_units,
    shuffle_within,
    spearman,
    target_score,
)
from xinc_captum.metrics.statistics import Interval, average_ranks, class_outputs


@given(seed=st.integers(0, 999), n=st.integers(2, 30), ties=st.booleans())
def test_equals_scipy(seed, n, ties):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 3, n))
    if ties:
        a, b = a.round(0), b.round(0)
    ours = spearman(torch.from_numpy(a), torch.from_numpy(b))
    kept = [i for i in range(3) if np.ptp(a[i]) and np.ptp(b[i])]
    theirs = [scipy.stats.spearmanr(a[i], b[i]).statistic for i in kept]
    assert ours.left_out == 3 - len(kept)
    np.testing.assert_allclose(ours.values.numpy(), theirs, atol=1e-12)
    np.testing.assert_array_equal(average_ranks(torch.from_numpy(a))[0], scipy.stats.rankdata(a[0]))


def test_round_off_does_not_split_ties():
    a = torch.zeros(1, 1000, dtype=torch.float64)
    a[0, :300] = torch.linspace(1, 2, 300)
    noisy = a + 1e-9 * torch.randn(1, 1000, dtype=torch.float64)
    assert scipy.stats.spearmanr(a[0], noisy[0]).statistic < 0.9
    assert spearman(a, noisy).values.item() == pytest.approx(1.0, abs=1e-9)


def test_constant_maps_are_left_out_and_counted():
    maps = torch.rand(3, 2, 20)
    truth = maps.clone()
    maps[1] = 0
    agreement = canvas_agreement(maps, truth)
    assert agreement.spatial == pytest.approx(1.0)
    assert agreement.left_out == 1
    assert np.isnan(canvas_agreement(torch.zeros(2, 1, 5), truth[:2, :, :5]).spatial)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(3, 3\)"):
        spearman(torch.zeros(2, 3), torch.zeros(3, 3))


@given(seed=st.integers(0, 999), n=st.integers(3, 30))
def test_rank_vectors_multiply_to_spearman(seed, n):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 4, n)).round(1)
    table = rank_vectors(torch.from_numpy(a)) @ rank_vectors(torch.from_numpy(b)).T
    for i in range(4):
        for j in range(4):
            if np.ptp(a[i]) and np.ptp(b[j]):
                assert table[i, j].item() == pytest.approx(scipy.stats.spearmanr(a[i], b[j]).statistic, abs=1e-9)
            else:
                assert table[i, j].isnan(), "constant rows rank nothing"


def test_rank_vectors_of_any_shape():
    rows = torch.rand(2, 3, 9)
    torch.testing.assert_close(rank_vectors(rows)[1, 2], rank_vectors(rows[1, 2:])[0])  # norms of other shapes
    torch.testing.assert_close(rank_vectors(rows).norm(dim=-1), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_rows_that_are_not_finite_have_no_ranks(value):
    rows, others = torch.rand(2, 9), torch.rand(2, 9)
    rows[1, 4] = value
    found = spearman(rows, others)
    assert found.left_out == 1 and torch.equal(found.values, spearman(rows[:1], others[:1]).values)
    assert spearman(others, rows).left_out == 1
    assert rank_vectors(rows).isnan().all(1).tolist() == [False, True]
    assert average_ranks(torch.tensor([[1.0, torch.nan], [3.0, 2.0]])).tolist()[1] == [2.0, 1.0]
    assert average_ranks(torch.tensor([[1.0, torch.nan]])).isnan().all()


def test_the_interval_of_a_share_is_about_two_standard_errors():
    hits = (torch.arange(400) % 4 > 0).float()
    found = ratio_interval(hits, torch.ones(400))
    assert found.value == 0.75
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert found.low == pytest.approx(0.75 - half, abs=0.01)
    assert found.high == pytest.approx(0.75 + half, abs=0.01)


def test_the_interval_covers_the_truth_at_its_level():
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for seed in range(100):
        hits = (torch.rand(100, generator=generator) < 0.6).float()
        found = ratio_interval(hits, torch.ones(100), level=0.9, repeats=200, seed=seed)
        inside += found.low <= 0.6 <= found.high
    assert 80 <= inside <= 97


def test_seed_flip_and_text():
    rows = torch.rand(30, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(30)
    assert ratio_interval(rows, ones, seed=1) == ratio_interval(rows, ones, seed=1)
    assert ratio_interval(rows, ones, seed=1) != ratio_interval(rows, ones, seed=2)
    assert str(complement(Interval(0.2, 0.1, 0.4))) == "0.80 [0.60, 0.90]"


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="expected the same"):
        ratio_interval(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="level is 1; expected a fraction"):
        ratio_interval(torch.ones(3), torch.ones(3), level=1)
    with pytest.raises(ValueError, match="repeats is 0; expected at least 1 resample"):
        ratio_interval(torch.ones(3), torch.ones(3), repeats=0)


def test_resamples_with_a_zero_denominator_are_left_out():
    seldom = torch.tensor([0.0, 0.0, 1.0])  # no resample of three rows is sure to hold the third
    found = ratio_interval(seldom * 2, seldom)
    assert found == (2.0, 2.0, 2.0)
    assert all(end != end for end in ratio_interval(torch.zeros(2), torch.zeros(2)))


def test_means_ignore_nan():
    found = mean_interval(torch.tensor([1.0, torch.nan, 3.0, torch.inf]))
    assert found == (2.0, 1.0, 3.0), "two values: both ends are resamples of one of them"
    assert math.isnan(mean_interval(torch.tensor([torch.nan])).low)
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    error = 1.96 * float(values.std()) / 20
    assert mean_interval(values).high == pytest.approx(float(values.mean()) + error, abs=0.02)


def test_one_number_has_no_interval():
    found = mean_interval(torch.tensor([2.0, torch.nan]))
    assert found.value == 2 and math.isnan(found.low) and math.isnan(found.high)


@given(units=st.integers(1, 6), pixels=st.integers(1, 9), seed=st.integers(0, 99))
def test_shuffles_preserve_values(units, pixels, seed):
    amounts = torch.rand(units, pixels, 2, generator=torch.Generator().manual_seed(seed))
    by_unit = shuffle_units(amounts, torch.Generator().manual_seed(seed))
    by_pixel = shuffle_pixels(amounts, torch.Generator().manual_seed(seed))
    assert torch.equal(by_unit.sort(0).values, amounts.sort(0).values), "each pixel keeps its values"
    assert torch.equal(by_pixel.flatten(1).sort(1).values, amounts.flatten(1).sort(1).values), "each unit keeps its own"
    assert by_pixel.shape == amounts.shape


def test_they_shuffle_by_their_own_generator():
    amounts = torch.rand(20, 30, generator=torch.Generator().manual_seed(5))
    state = torch.get_rng_state()
    first, again, other = (shuffle_units(amounts, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, amounts)
    assert torch.equal(torch.get_rng_state(), state)
    columns = shuffle_pixels(amounts, torch.Generator().manual_seed(0))
    assert len({tuple(row.argsort().tolist()) for row in columns}) == 20, "each unit by itself"


def test_shifts_are_never_zero():
    drawn = shifts((2, 3), 200, torch.Generator().manual_seed(0))
    assert set(drawn) == {(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)}
    with pytest.raises(ValueError, match=r"got 1 pixel\(s\) and 3 repeats; a shifted control needs at least 2 and 1"):
        shifts((1, 1), 3, torch.Generator())


def test_shuffled_within_keeps_each_class_and_moves_most_rows():
    classes = torch.arange(60) % 3
    rows = torch.stack([torch.arange(60.0), classes.float()], 1)
    shuffled = shuffle_within(rows, classes, torch.Generator().manual_seed(0))
    assert torch.equal(shuffled[:, 1], rows[:, 1])
    assert torch.equal(shuffled[:, 0].sort().values, rows[:, 0])
    assert (shuffled[:, 0] != rows[:, 0]).float().mean() > 0.8
    with pytest.raises(ValueError, match=r"got classes of shape \(2,\) for 60 rows"):
        shuffle_within(rows, classes[:2], torch.Generator())


@given(seed=st.integers(0, 99), n=st.integers(1, 40))
def test_rates_are_scipys(seed, n):
    p = torch.rand(n, generator=torch.Generator().manual_seed(seed)).double().round(decimals=2)
    theirs = torch.from_numpy(scipy.stats.false_discovery_control(p.numpy()))
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


def test_p_values_outside_their_range_raise_errors():
    with pytest.raises(ValueError, match="with values in the null that are not nan"):
        chance_of(torch.ones(2), torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="p-values from 0 to 1"):
        false_discovery_rate(torch.tensor([2.0]))


PHOTOS, MAPS = torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8)


def head(classes, *after):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, classes), *after).eval()
    with torch.no_grad():
        model[2].weight.mul_(8)
    return model


def softmaxes(model):
    """Outputs of the model without its last layer, as logits."""
    return model[:-1]


def measured(model, target, **how):
    return (
        target_score(model, PHOTOS, target, **how),
        *deletion_insertion(model, PHOTOS, MAPS, target, steps=4, **how),
        road(model, PHOTOS, MAPS, target, **how),
    )


def same(left, right):
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_probabilities_by_hand():
    logits = torch.tensor([[0.0, 2.0]])
    e = torch.tensor(2.0).exp()
    torch.testing.assert_close(probabilities(logits), torch.stack([1 / (1 + e), e / (1 + e)])[None])
    torch.testing.assert_close(probabilities(logits, "sigmoid"), torch.stack([torch.tensor(0.5), e / (1 + e)])[None])
    assert probabilities(logits, "none") is logits
    with pytest.warns(UserWarning, match="one output column, which is read as the logit of one class"):
        torch.testing.assert_close(probabilities(logits[:, 1:]), (e / (1 + e))[None, None])
    own = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert torch.equal(probabilities(own), own)


def test_a_softmax_at_the_end_is_not_taken_twice():
    model = head(4, nn.Softmax(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(model, 1)
    assert torch.equal(found[0], model(PHOTOS)[:, 1].detach())
    same(found, measured(softmaxes(model), 1))


def test_one_logit_is_a_sigmoid():
    model = head(1)
    with pytest.warns(UserWarning, match="'none' for a regression"):
        found = measured(model, 0)
    torch.testing.assert_close(found[0], model(PHOTOS).sigmoid()[:, 0].detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(found, measured(model, 0, scores="sigmoid"))
    two = nn.Sequential(model, Beside())
    same(found, measured(two, 1))
    assert (found[3].abs() > 1e-4).any(), "ROAD is not zero for each map"
    with pytest.raises(
        IndexError, match="target 1 is not a class .*Its one column is the logit of one class, target 0"
    ):
        target_score(model, PHOTOS, 1)


class Beside(nn.Module):
    """Two logits whose softmax is the sigmoid of one."""

    def forward(self, logit):
        return torch.cat([torch.zeros_like(logit), logit], 1)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_sigmoid_at_the_end_is_found_in_the_graph(classes):
    model = head(classes, nn.Sigmoid())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(model, 0)
        same(found, measured(lambda x: model(x)[:, :], 0))
        with torch.inference_mode():
            same(found, measured(model, 0))
    assert torch.equal(found[0], model(PHOTOS)[:, 0].detach())
    same(found, measured(softmaxes(model), 0, scores="sigmoid"))
    assert not any(p.grad is not None for p in model.parameters())


def test_ambiguous_values_warn():
    with pytest.warns(UserWarning, match=r"All outputs of the model lie in \[0, 1\] and do not sum to 1"):
        assert probability_kind(torch.tensor([[0.9, 0.8]])) == "softmax"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("softmax", "sigmoid", "identity", "none"):
            assert probability_kind(torch.tensor([[0.9, 0.8]]), kind) == kind
        assert probability_kind(torch.tensor([[0.9, 0.1], [3.0, -2.0]])) == "softmax", "all rows count"
        assert probability_kind(torch.tensor([[0.9, 0.1], [torch.nan, 1.0]])) == "identity", "rows of nan do not"
        assert probability_kind(torch.full((1, 2), torch.nan)) == "softmax"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 1000])
def test_rounded_probabilities_are_still_probabilities(dtype, classes):
    own = (3 * torch.randn(4, classes)).softmax(1).to(dtype)
    assert probability_kind(own) == "identity"
    assert torch.equal(probabilities(own), own.to(torch.promote_types(dtype, torch.float32)))


def test_a_regression_is_measured_on_its_output():
    model = head(1)
    with torch.no_grad():
        model[2].bias.fill_(1152.0)
    found = measured(model, 0, scores="none")
    torch.testing.assert_close(found[0], model(PHOTOS)[:, 0].detach())
    same(found, (found[0], *deletion_insertion(model, PHOTOS, MAPS, 0, steps=4, scores=lambda y: y), found[3]))
    for measure in (
        lambda: target_score(model, PHOTOS, 0, scores="identity"),
        lambda: deletion_insertion(model, PHOTOS, MAPS, 0, steps=2, scores="identity"),
        lambda: road(model, PHOTOS, MAPS, 0, scores="identity"),
        lambda: probabilities(model(PHOTOS), "identity"),
    ):
        with pytest.raises(
            ValueError, match=r"outputs go from 1.1.*expected probabilities in \[0, 1\].*'none' for a regression"
        ):
            measure()


def test_a_saturated_single_column_is_a_regression():
    prices = nn.Sequential(head(1), Shift(120.0))
    with pytest.warns(UserWarning, match=r"outputs rounds to 0 or 1, so it is read as a regression \('none'\)"):
        found = measured(prices, 0)
    torch.testing.assert_close(found[0], prices(PHOTOS)[:, 0].detach())
    same(found, measured(prices, 0, scores="none"))
    columns = torch.tensor([[120.0], [87.5]])
    with pytest.warns(UserWarning, match="read as the logit of one class"):
        assert probability_kind(columns) == "sigmoid"
    for logits in (columns - 80, -columns / 10):  # at least one has a sigmoid that is no 0 or 1
        with pytest.warns(UserWarning, match="read as the logit of one class"):
            assert probability_kind(logits, saturated="none") == "sigmoid"


class Shift(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return x + self.by


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'logit' is no kind of outputs; expected one of 'auto', 'softmax'"):
        probabilities(torch.zeros(1, 2), "logit")
    with pytest.raises(ValueError, match=r"outputs have shape \(2,\); expected \(N, classes\)"):
        probabilities(torch.zeros(2))


@dataclasses.dataclass
class Answer:
    hidden: tuple
    logits: torch.Tensor


Pair = namedtuple("Pair", "features scores")


class Plain:
    def __init__(self, y):
        self.out = y


@pytest.mark.parametrize(
    ("wrapped", "what", "access"),
    [
        (
            lambda y: {"aux": y, "y": 2 * y},
            r"a dict with \['aux'\] \(3, 3\), \['y'\] \(3, 3\)",
            r"model\(images\)\['aux'\]",
        ),
        (lambda y: Pair(y, 2 * y), r"a Pair with features \(3, 3\), scores \(3, 3\)", r"model\(images\).scores"),
        (lambda y: [y, 2 * y], r"a list with \[0\] \(3, 3\), \[1\] \(3, 3\)", r"model\(images\)\[0\]"),
        (Plain, r"a Plain with out \(3, 3\)", r"model\(images\).out"),
        (lambda y: None, "a NoneType; ", r"model\(images\)\[...\]"),
    ],
)
def test_an_output_without_one_tensor_raises_an_error(wrapped, what, access):
    model = head(3)
    for measure in (
        target_score,
        lambda f, *a: deletion_insertion(f, PHOTOS, MAPS, 0),
        lambda f, *a: road(f, PHOTOS, MAPS, 0),
    ):
        with pytest.raises(TypeError, match=f"the model returned {what}.*lambda images: {access}"):
            measure(lambda x: wrapped(model(x)), PHOTOS, 0)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda y: {"aux": 2 * y, "out": y},
        lambda y: Answer((y[0], 2 * y), y),
        lambda y: Pair(None, y),
        lambda y: (None, y),
        lambda y: [y],
    ],
)
def test_scores_in_a_container_are_measured_as_alone(wrapped):
    model = head(3)
    same(measured(lambda x: wrapped(model(x)), 1, scores="softmax"), measured(model, 1, scores="softmax"))


@pytest.mark.parametrize(
    ("shaped", "text"),
    [
        (lambda y: y[:, :, None, None].expand(-1, -1, 4, 4), r"segmentation.*model\(images\).mean\(\(2, 3\)\)"),
        (lambda y: y[:, 0], r"keep its column: .*reshape\(-1, 1\)"),
        (lambda y: y[:1], r"of shape \(1, 3\) for 3 images; expected floats, \(3, classes\)"),
        (lambda y: torch.cat([y, y]), r"of shape \(6, 3\) for 3 images"),
        (lambda y: y.long(), r"returned torch.int64 of shape \(3, 3\)"),
    ],
)
def test_an_output_of_another_shape_is_refused(shaped, text):
    model = head(3)
    with pytest.raises(ValueError, match=text):
        target_score(lambda x: shaped(model(x)), PHOTOS, 0)


def test_one_column_has_two_classes():
    assert predict_classes(torch.tensor([[3.0, 1.0], [0.0, 2.0]])).tolist() == [0, 1]
    assert predict_classes(torch.tensor([[-0.1], [0.2], [5.0]])).tolist() == [0, 1, 1]
    shares = torch.tensor([[0.2], [0.9]])
    assert predict_classes(shares).tolist() == [0, 1], "probabilities"
    assert predict_classes(shares, torch.tensor([[-4.0], [3.0]])).tolist() == [1, 1], "logits, as the others say"


def test_numpy_integers_are_seeds_and_batch_sizes():
    values = torch.rand(20)
    assert mean_interval(values, seed=np.int64(3)) == mean_interval(values, seed=3)
    model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), torch.rand(3, 3, 2, 2)
    assert torch.equal(class_outputs(model, images, np.int64(2)), class_outputs(model, images, 2))
