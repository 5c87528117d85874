"""LatentLink: against scikit-learn, in chunks and shards; directions and bounds of units by hand; files."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rounding import assert_equal_but_for_rounding

from xinc_captum.attributions.linking import LatentLink

DATA = np.load(Path(__file__).parents[2] / "data" / "linking.npz")


def recorded(name):
    return torch.from_numpy(DATA[name])


@pytest.fixture
def pairs():
    """120 pairs of 6 units and 3 latents in 3 classes; unit 4 is dead."""
    generator = torch.Generator().manual_seed(3)
    classes = torch.arange(120) % 3
    r = torch.rand(120, 6, generator=generator, dtype=torch.float64) + classes[:, None]
    r[:, 4] = 0.25
    w = torch.sin(r @ torch.randn(6, 3, generator=generator, dtype=torch.float64))
    return r, w, classes


def test_least_squares_equals_scikit_learn():
    link = LatentLink(ridge=0.0).fit(recorded("A_r"), recorded("A_w"))
    torch.testing.assert_close(link.weight, recorded("A_LR_coef"), atol=1e-9, rtol=0)
    torch.testing.assert_close(link.bias, recorded("A_LR_intercept"), atol=1e-9, rtol=0)
    mse = (link(recorded("A_r")) - recorded("A_w")).square().mean()
    assert abs(float(mse - recorded("A_LR_mse"))) < 1e-9


@pytest.mark.parametrize("which", range(4))
def test_ridge_equals_scikit_learn(which):
    link = LatentLink(ridge=float(DATA["A_ridge_alphas"][which])).fit(recorded("A_r"), recorded("A_w"))
    torch.testing.assert_close(link.weight, recorded("A_ridge_coefs")[which], atol=1e-9, rtol=0)
    torch.testing.assert_close(link.bias, recorded("A_ridge_intercepts")[which], atol=1e-9, rtol=0)


def test_default_ridge_of_the_released_code_equals_scikit_learn():
    link = LatentLink(ridge=1.0).fit(recorded("A_r"), recorded("A_w"))
    torch.testing.assert_close(link.weight, recorded("A_Ridge_coef"), atol=1e-9, rtol=0)
    torch.testing.assert_close(link.bias, recorded("A_Ridge_intercept"), atol=1e-9, rtol=0)
    mse = (link(recorded("A_r")) - recorded("A_w")).square().mean()
    assert abs(float(mse - recorded("A_Ridge_mse"))) < 1e-9


def test_fewer_pairs_than_units_give_the_map_of_least_norm():
    link = LatentLink(ridge=0.0).fit(recorded("A_r")[:16], recorded("A_w")[:16])
    torch.testing.assert_close(link.weight, recorded("A_under_coef"), atol=1e-9, rtol=0)
    torch.testing.assert_close(link.bias, recorded("A_under_intercept"), atol=1e-9, rtol=0)
    assert link.report.rank == 15
    assert "fewer pairs than the 24 alive units + 1, so the map of least norm is used" in str(link.report)


@pytest.mark.parametrize("variant", ["linear", "per_class", "fourier_features"])
@pytest.mark.parametrize("ridge", ["gcv", 0.1])
def test_chunks_and_shards_equal_one_pass(variant, ridge, pairs):
    r, w, classes = pairs
    whole = LatentLink(variant, ridge, features=20, reservoir=16).fit(r, w, classes)
    base = whole.blank()
    shards = [base.blank() for _ in range(3)]
    for shard, rows in zip(shards, torch.randperm(120).split([50, 7, 63]), strict=True):
        for part in rows.split(11):
            shard.partial_fit(r[part], w[part], classes[part])
        base.merge(shard)
    torch.testing.assert_close(base(r, classes), whole(r, classes), atol=1e-8, rtol=0)
    for kind in ("marginal", "within_class"):
        torch.testing.assert_close(base.direction(2, kind), whole.direction(2, kind), atol=1e-12, rtol=1e-12)
    for kind in ("minmax", "quantile", "sd"):
        torch.testing.assert_close(base.bounds([0, 5], kind), whole.bounds([0, 5], kind), atol=1e-12, rtol=0)
    assert torch.equal(base.latent_hashes.sort().values, whole.latent_hashes.sort().values)


@pytest.mark.parametrize("variant", ["linear", "per_class", "fourier_features"])
@pytest.mark.parametrize("ridge", [0.3, "gcv"])
def test_leave_one_out_equals_refitting(variant, ridge, pairs):
    r, w, classes = pairs
    link = LatentLink(variant, ridge, features=12).fit(r, w, classes)
    quick = link.leave_one_out(r, w, classes)
    for row in (0, 17, 119):
        rest = torch.arange(120) != row
        own = link.ridges.get(str(int(classes[row])), link.ridges.get("all"))
        without = link.blank()
        without.ridge = own
        if without.map is None:
            without.fit(r[rest], w[rest], classes[rest])
        else:
            without.map.ridge = own
            without.partial_fit(r[rest], w[rest], classes[rest])
        slow = without(r[row : row + 1], classes[row : row + 1])[0]
        torch.testing.assert_close(quick[row], slow, atol=1e-8, rtol=0)


def test_leave_one_out_errors(pairs):
    r, w, _ = pairs
    link = LatentLink(ridge=0.0).fit(r, w)
    with pytest.raises(ValueError, match="got 119 pairs that are not the 120 pairs of the fit"):
        link.leave_one_out(r[1:], w[1:])
    with pytest.raises(ValueError, match="are not the 120 pairs of the fit"):
        link.leave_one_out(r, w + 1)
    few = LatentLink(ridge=0.0).fit(r[:4], w[:4])
    with pytest.raises(ValueError, match="alone determines some direction.*give ridge > 0, or more pairs"):
        few.leave_one_out(r[:4], w[:4])


def test_gcv_prefers_a_small_ridge_where_the_map_is_exact_and_a_large_one_in_noise():
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(300, 8, generator=generator)
    clean = r @ torch.randn(8, 4, generator=generator)
    noise = torch.randn(300, 4, generator=generator)
    assert LatentLink().fit(r, clean).ridges["all"] < 1e-3
    assert LatentLink().fit(r, noise).ridges["all"] > 100


def test_dead_units_get_no_weight(pairs):
    r, w, _ = pairs
    link = LatentLink(ridge=0.0).fit(r, w)
    assert not link.weight[:, 4].any()
    assert (link.report.units, link.report.alive, link.report.rank) == (6, 5, 5)


def test_links_keep_gradient_and_dtype(pairs):
    r, w, _ = pairs
    link = LatentLink("fourier_features", features=8).fit(r, w)
    asked = r[:2].float().requires_grad_()
    output = link(asked)
    assert output.dtype == torch.float32
    (gradient,) = torch.autograd.grad(output.sum(), asked)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(link.float()(r[:2].float()), output, atol=1e-5, rtol=0)


def test_per_class_and_fourier_links_fit_non_linear_pairs_better(pairs):
    r, w, classes = pairs
    scores = {v: float(LatentLink(v, features=64).fit(r, w, classes).score(r, w, classes)) for v in VARIANTS}
    assert scores["per_class"] > scores["linear"]
    assert scores["fourier_features"] > scores["linear"]


VARIANTS = ("linear", "per_class", "fourier_features")


def test_errors(pairs):
    r, w, classes = pairs
    refused(lambda: LatentLink("cubic"), "variant is 'cubic'; expected one of 'linear'")
    refused(lambda: LatentLink(ridge="cv"), "ridge is 'cv'; expected a number >= 0, or 'gcv'")
    refused(lambda: LatentLink(ridge=-1.0), "ridge is -1.0")
    refused(lambda: LatentLink(ridge=None), "ridge is None; expected a number >= 0")
    refused(lambda: LatentLink(ridge=True), "ridge is True; expected a number >= 0")
    refused(lambda: LatentLink(features=0), "features is 0; expected at least 1")
    refused(lambda: LatentLink()(r), "has no pairs yet; call fit")
    refused(lambda: LatentLink().fit(r[:1], w[:1]), r"got 1 pair\(s\) to link")
    refused(lambda: LatentLink().fit(torch.ones_like(r), w), "none of the 6 units varies over the 120 pairs")
    refused(lambda: LatentLink().fit(r, torch.ones_like(w) / 3), "none of the 3 latents varies over the 120 pairs")
    link = LatentLink().fit(r, w)
    refused(lambda: link.partial_fit(r[:, :5], w), "the link has")
    refused(lambda: link.partial_fit(r, w, classes), "some chunks have classes and some do not")
    refused(lambda: link.merge(LatentLink(ridge=0.0)), "ridge 0.0 to merge into a linear link with ridge 'gcv'")
    refused(lambda: link.merge(LatentLink().fit(r, w, classes)), "one link has classes and the other has none")


def refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_errors_leave_the_link_unchanged(pairs):
    r, w, classes = pairs
    link = LatentLink(ridge=0.0).fit(r, w, classes)
    before, report = link(r), link.report
    other = LatentLink(ridge=0.0, seed=1).fit(r + 1, w, classes)
    refused(lambda: link.merge(other), "seed 1 to merge into one of 1024 rows and seed 0; expected the same")
    refused(lambda: link.partial_fit(r[:, :5], w, classes), r"got pairs of \(5 units, 3 latents\); the link has")
    refused(lambda: link.leave_one_out(r, w[:, :2], classes), r"got pairs of \(6 units, 2 latents\)")
    assert link.moments.n == len(link.latent_hashes) == 120
    assert link.report is report
    assert torch.equal(link(r), before)


def test_fewer_pairs_than_live_units_give_a_warning():
    r, w = torch.rand(5, 4, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"4 pairs, 4 of 4 units alive, rank 3 .* Make more pairs"):
        LatentLink().fit(r[:4], w[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LatentLink().fit(r, w)


@pytest.mark.parametrize("ridge", ["gcv", 0.0])
@pytest.mark.parametrize("variant", ["linear", "per_class", "fourier_features"])
def test_links_do_not_depend_on_the_scale_of_units(variant, ridge):
    generator = torch.Generator().manual_seed(0)
    r = torch.randn(600, 5, generator=generator, dtype=torch.float64)
    w = r @ torch.randn(5, 3, generator=generator, dtype=torch.float64)
    w = w + 0.02 * torch.randn(600, 3, generator=generator, dtype=torch.float64)
    classes = torch.arange(600) % 2
    scaled = r * torch.tensor([1e8, 1.0, 1e-3, 1.0, 50.0], dtype=torch.float64)
    result = []
    for rows in (r, scaled):
        link = LatentLink(variant, ridge, features=100).fit(rows[:450], w[:450], classes[:450])
        result.append(float(link.score(rows[450:], w[450:], classes[450:])))
    assert result[0] > 0.99 and result[1] == pytest.approx(result[0], abs=1e-4)
    assert "depend on one another" not in str(link.report)


@pytest.mark.parametrize("variant", ["linear", "fourier_features"])
def test_a_constant_unit_changes_nothing(variant):
    generator = torch.Generator().manual_seed(0)
    for n in range(30, 40):  # the mean of so many equal numbers is rounded for some of these
        r = torch.rand(n, 2, generator=generator, dtype=torch.float64)
        w = r.sin()
        more = torch.cat([r, torch.full((n, 1), 0.1, dtype=torch.float64)], 1)
        link = LatentLink(variant, 1e-6, features=50, seed=1).fit(more, w)
        assert float(link.score(more, w)) > 0.9
        assert link.r_sd[2] == 0


def test_leave_one_out_compares_every_latent_with_the_fit():
    generator = torch.Generator().manual_seed(0)
    r = torch.rand(20, 2, generator=generator, dtype=torch.float64)
    w = torch.stack([1e8 * r[:, 0], r[:, 1]], 1)
    link = LatentLink(ridge=1.0).fit(r, w)
    link.leave_one_out(r, w)
    with pytest.raises(ValueError, match="not the 20 pairs of the fit"):
        link.leave_one_out(r, w + torch.tensor([0.0, 0.5]))


def test_by_hand():
    link = LatentLink(ridge=0.0).partial_fit(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0], [5.0]]))
    assert link.direction(0).tolist() == [[2.0]]
    assert link.r_mean.tolist() == [1.0, 1.0]
    assert link.r_sd.tolist() == pytest.approx([2**0.5, 0.0])
    assert link.alive.tolist() == [True, False]
    assert link.covariance.tolist() == [[2.0, 0.0], [0.0, 0.0]]
    assert link.bounds(0).tolist() == [[0.0, 2.0]]
    assert link.bounds(0, "quantile", tail=0.25).tolist() == [[0.5, 1.5]]
    assert link.bounds(0, "sd", sds=0.5)[0].tolist() == pytest.approx([1 - 0.5**0.5, 1 + 0.5**0.5])


def test_the_three_directions(pairs):
    r, w, classes = pairs
    link = LatentLink(ridge=0.0).fit(r, w, classes)
    centred, moved = r - r.mean(0), w - w.mean(0)
    expected = (centred[:, 1, None] * moved).sum(0) / centred[:, 1].square().sum()
    torch.testing.assert_close(link.direction(1)[0], expected)
    rc, wc = r.clone(), w.clone()
    for c in range(3):
        rc[classes == c] -= rc[classes == c].mean(0)
        wc[classes == c] -= wc[classes == c].mean(0)
    expected = (rc[:, 1, None] * wc).sum(0) / rc[:, 1].square().sum()
    torch.testing.assert_close(link.direction([1], "within_class")[0], expected)
    torch.testing.assert_close(link.direction(torch.tensor([1, 2]), "partial"), link.weight[:, [1, 2]].T)
    own = LatentLink("per_class", 0.1).fit(r, w, classes)
    torch.testing.assert_close(own.direction(-5, "partial", class_=2)[0], own.weight[2, :, 1])


def test_bounds_and_spread(pairs):
    r, w, _ = pairs
    link = LatentLink().fit(r, w)
    torch.testing.assert_close(link.bounds(3), torch.stack([r[:, 3].min(), r[:, 3].max()])[None])
    levels = torch.tensor([0.1, 0.9], dtype=torch.float64)
    torch.testing.assert_close(link.bounds(3, "quantile", tail=0.1)[0], r[:, 3].quantile(levels), atol=1e-6, rtol=0)
    torch.testing.assert_close(link.bounds(3, "sd", sds=99.0), link.bounds(3))
    torch.testing.assert_close(link.covariance, r.T.cov())
    torch.testing.assert_close(link.r_sd, r.std(0))
    torch.testing.assert_close(link.r_mean, r.mean(0))
    assert link.alive.tolist() == [True, True, True, True, False, True]


def test_direction_and_bounds_errors(pairs):
    r, w, classes = pairs
    link, own = LatentLink().fit(r, w), LatentLink("per_class").fit(r, w, classes)
    for call, text in (
        (lambda: link.direction(0, "total"), "kind is 'total'; expected 'marginal', 'partial' or 'within_class'"),
        (lambda: link.bounds(0, "iqr"), "kind is 'iqr'"),
        (lambda: link.direction(4), "unit 4 is dead"),
        (lambda: link.bounds([0, 4]), "unit 4 is dead"),
        (lambda: link.direction(0, "within_class"), "need the classes of the pairs; give them to fit"),
        (lambda: own.direction(1, "partial"), "give class_=, the class whose map to use"),
        (lambda: LatentLink().r_mean, "has no pairs yet"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


# Within its class the latent rises with the unit, by one for one; between classes it falls.
R = torch.tensor([[0.0], [2.0], [10.0], [12.0]], dtype=torch.float64)
W = torch.tensor([[0.0], [2.0], [-5.0], [-3.0]], dtype=torch.float64)
CLASSES = torch.tensor([0, 0, 1, 1])


def test_marginal_and_within_class_by_hand():
    link = LatentLink().partial_fit(R, W, CLASSES)
    # Around the means, r is -6, -4, 4, 6 and w is 1.5, 3.5, -3.5, -1.5.
    assert link.direction(0, "marginal").item() == pytest.approx(-46 / 104)
    assert link.direction(0, "within_class").item() == pytest.approx(1.0)


@given(st.integers(0, 30))
def test_within_a_single_class_is_marginal(seed):
    generator = torch.Generator().manual_seed(seed)
    r, w = torch.randn(20, 4, generator=generator), torch.randn(20, 3, generator=generator)
    link = LatentLink().partial_fit(r, w, torch.full((20,), 5))
    torch.testing.assert_close(link.direction([3, 0], "within_class"), link.direction([3, 0], "marginal"))


def test_bounds_by_hand():
    link = LatentLink(reservoir=20).partial_fit(torch.arange(11.0)[:, None], torch.zeros(11, 1))

    def ends(kind, tail=0.05, sds=2.0):
        return link.bounds(0, kind, tail=tail, sds=sds)[0].tolist()

    sd = 11**0.5  # mean 5, squares 110 over 10
    assert ends("minmax") == [0, 10]
    assert ends("quantile", tail=0.1) == pytest.approx([1, 9])
    assert ends("quantile", tail=0.0) == [0, 10]
    assert ends("sd", sds=1.0) == pytest.approx([5 - sd, 5 + sd])
    assert ends("sd", sds=2.0) == [0, 10], "clipped to the values of the pairs"
    assert ends("sd", sds=torch.inf) == [0, 10]
    for kind, more, text in (
        ("iqr", {}, "kind is 'iqr'; expected 'minmax', 'quantile' or 'sd'"),
        ("quantile", {"tail": 0.5}, r"tail is 0.5; expected a fraction in \[0, .5\)"),
        ("quantile", {"tail": -0.1}, "tail is -0.1"),
        ("sd", {"sds": -1.0}, "sds is -1.0; expected a number of standard deviations above 0"),
        ("sd", {"sds": torch.nan}, "sds is nan"),
    ):
        with pytest.raises(ValueError, match=text):
            ends(kind, **more)


def test_within_class_needs_classes_and_variation_within_one():
    r = torch.cat([CLASSES[:, None].double(), R], 1)
    with pytest.raises(ValueError, match=r"directions within classes need the classes of the pairs; give them to fit"):
        LatentLink().partial_fit(r, W).direction(0, "within_class")
    link = LatentLink().fit(r, W, CLASSES)
    with pytest.raises(ValueError, match="unit 0 does not vary within any class; use kind='marginal'"):
        link.direction([1, 0], "within_class")
    assert link.direction(1, "within_class").item() == pytest.approx(1.0)


def test_only_links_of_the_same_kind_are_merged():
    r, w, classes = torch.rand(20, 3), torch.rand(20, 2), torch.arange(20) % 2
    plain, classed = LatentLink().fit(r, w), LatentLink().fit(r, w, classes)
    assert plain.merge(LatentLink()) is plain
    assert LatentLink().merge(classed).moments.n == 20
    for first, second, text in (
        (plain, LatentLink("per_class"), "got a per_class link with ridge 'gcv' to merge into a linear link with"),
        (
            plain,
            LatentLink(ridge=0.5),
            "got a linear link with ridge 0.5 to merge into .* ridge 'gcv'; expected the same",
        ),
        (plain, classed, "one link has classes and the other has none; give classes to both or to neither"),
        (plain, LatentLink(seed=1), "reservoir of 1024 rows and seed 1 to merge into one of 1024 rows and seed 0"),
        (plain, LatentLink(reservoir=9), "reservoir of 9 rows and seed 0"),
    ):
        with pytest.raises(ValueError, match=text):
            first.merge(second)


@pytest.fixture
def saved_pairs():
    generator = torch.Generator().manual_seed(1)
    classes = torch.arange(60) % 2
    r = torch.rand(60, 5, generator=generator) + classes[:, None]
    return r, torch.sin(r @ torch.randn(5, 3, generator=generator)), classes


@pytest.mark.parametrize("variant", ["linear", "per_class", "fourier_features"])
@pytest.mark.parametrize("ridge", ["gcv", 0.5])
def test_load_restores_the_link(variant, ridge, saved_pairs, tmp_path):
    r, w, classes = saved_pairs
    note = {"layer": "fc", "preprocess": "to 224 pixels", "truncation": 0.7, "classes": [0, 1]}
    link = LatentLink(variant, ridge, features=9, reservoir=20, seed=4).fit(r, w, classes, manifest=note)
    link.save(tmp_path / "link.safetensors")
    again = LatentLink.load(tmp_path / "link.safetensors")
    tensors, others = link.map.state_dict(), again.map.state_dict()
    assert tensors.keys() == others.keys() and all(torch.equal(others[k], tensors[k]) for k in tensors)
    assert all(others[k].stride() == tensors[k].stride() for k in tensors), "products round by the layout"
    assert_equal_but_for_rounding(again(r, classes), link(r, classes), terms=9 + 5)  # features and units; in float64
    assert (again.manifest, again.ridges, again.settings) == (note, link.ridges, link.settings)
    assert str(again.report) == str(link.report)
    for kind in ("minmax", "quantile", "sd"):
        assert torch.equal(again.bounds([0, 4], kind), link.bounds([0, 4], kind))
    torch.testing.assert_close(again.direction(1, "within_class"), link.direction(1, "within_class"))
    torch.testing.assert_close(again.leave_one_out(r, w, classes), link.leave_one_out(r, w, classes))
    for one in (again, link):
        one.partial_fit(r + 0.1, w, classes)
    torch.testing.assert_close(again(r, classes), link(r, classes))


def test_equal_links_give_equal_files(saved_pairs, tmp_path):
    for name in "ab":
        LatentLink().fit(*saved_pairs).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_header_length_like_a_pickle_opcode_is_read(saved_pairs, tmp_path):
    path, first = tmp_path / "link", set()
    for extra in range(256):
        LatentLink().fit(*saved_pairs, manifest={"layer": "x" * extra}).save(path)
        first.add(path.read_bytes()[0])
        assert LatentLink.load(path).manifest == {"layer": "x" * extra}
        if 0x80 in first:
            break
    assert 0x80 in first


def test_a_failed_save_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="has no pairs yet"):
        LatentLink().save(tmp_path / "link")
    assert not list(tmp_path.iterdir())
