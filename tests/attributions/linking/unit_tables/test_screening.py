import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_tables import quantify, screen, shuffled_directions
from xinc_captum.generators import FeatureParts, ImageParts, ProjectionHead, from_callable, normal_latents
from xinc_captum.metrics import spearman

SMOOTH = ["area", "luminance", "rgb", "centroid", "ellipse", "smooth_entropy"]


def test_small_steps_are_what_the_sweep_measures(planted):
    """Every column, relative areas and turned axes too."""
    generator = from_callable(lambda w: planted.generator.synthesize(w), normal_latents(30))
    bases = planted.latents[:3].double()
    settings = {"parts": planted.soft, "measures": [m for m in SMOOTH if m != "smooth_entropy"], "reach": 1e-4}
    slow = quantify(generator, planted.link, bases, range(25, 35), **settings)
    fast = screen(generator, planted.link, bases, range(25, 35), **settings)
    assert fast.measures == slow.measures and fast.change.shape == slow.change.shape
    scale = slow.change.abs().amax(0, keepdim=True)
    assert ((fast.change - slow.change).abs() / scale).max() < 1e-3
    torch.testing.assert_close(fast.base_value, slow.base_value)
    assert torch.equal(fast.bases, slow.bases)


def test_units_rank_as_in_the_sweep_at_half_a_deviation(planted):
    settings = {"parts": planted.soft, "measures": SMOOTH}
    slow = quantify(planted.generator, planted.link, planted.latents[:4], **settings)
    fast = screen(planted.generator, planted.link, planted.latents[:4], **settings)
    for part in slow.parts:
        for measure in slow.measures:
            columns = [t.column(part, measure).abs()[None] for t in (fast, slow)]
            assert spearman(*columns).values.item() > 0.9, (part, measure)
    assert set(fast.strongest("left", "luminance", 10).tolist()) <= set(
        slow.strongest("left", "luminance", 35).tolist()
    )


def test_one_forward_pass_for_all_units(planted):
    drawn = []

    def counted(latents):
        drawn.append(len(latents))
        return planted.generator.synthesize(latents)

    table = screen(from_callable(counted, normal_latents(30)), planted.link, planted.latents[:6], parts=planted.soft)
    assert drawn == [6] and len(table.units) == 200


def test_screening_with_classes_and_a_null(planted):
    null = planted.link.direction([9, 8, 7])
    table = screen(
        planted.generator,
        planted.link,
        planted.latents[:6],
        [7, 8, 9],
        classes=planted.classes[:6],
        measures=["luminance"],
        null=null,
    )
    assert table.null.shape == (3, 2, 1, 1) and table.classes == (0, 1)
    torch.testing.assert_close(table.null[1], table.change[1])


def test_through_a_head_on_features():
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (2, 3, 3)), torch.nn.ConvTranspose2d(2, 3, 2, 2), torch.nn.Sigmoid()
    )
    generator = from_callable(net, normal_latents(18))
    from xinc_captum.attributions.linking import LatentLink

    latents = torch.randn(60, 18, generator=torch.Generator().manual_seed(0))
    link = LatentLink().fit(latents, latents)
    parts = FeatureParts(ProjectionHead([2, 3], 2), ["back", "front"], ["0", "1"])
    settings = {"parts": parts, "measures": ["area", "luminance"], "reach": 0.01}
    slow, fast = (f(generator, link, latents[:4], **settings) for f in (quantify, screen))
    assert (fast.change - slow.change).abs().max() < 0.02 * slow.change.abs().max()
    assert all(p.grad is None for p in (*net.parameters(), *parts.head.parameters()))


def test_measures_without_gradient_raise(planted):
    ask = (planted.generator, planted.link, planted.latents[:2])
    with pytest.raises(ValueError, match="entropy cannot be screened, because it has no gradient"):
        screen(*ask, measures=["entropy"])
    with pytest.raises(ValueError, match="down, right, speed cannot be screened"):
        screen(*ask, measures=["motion"])
    with pytest.raises(ValueError, match="area of part 0 has no gradient .* Give soft masks"):
        screen(*ask, parts=planted.parts, measures=["area"])
    stuck = from_callable(planted.generator.synthesize, normal_latents(30), differentiable=False)
    with pytest.raises(ValueError, match="the generator is not differentiable"):
        screen(stuck, *ask[1:])
    cut = from_callable(lambda w: planted.generator.synthesize(w.detach()), normal_latents(30))
    with pytest.raises(ValueError, match="luminance of part 0 has no gradient"):
        screen(cut, *ask[1:], parts=ImageParts(planted.masks, ["a", "b", "c"]), measures=["luminance"])


def pairs(n=300):
    g = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (n,), generator=g)
    w = torch.randn(n, 4, generator=g).double() + 5 * classes[:, None]
    r = w @ torch.randn(4, 6, generator=g).double()
    return r, w, classes


def test_each_direction_is_that_of_a_link_fitted_to_permuted_pairs():
    """Few pairs, so that the exchange can be found again among all."""
    from itertools import permutations

    r, w, _ = pairs(5)
    (result,) = shuffled_directions(r, w, [2], generator=torch.Generator().manual_seed(3))
    candidates = [LatentLink(ridge=1.0).fit(r, w[list(order)]).direction([2])[0] for order in permutations(range(5))]
    assert min((c - result).norm() for c in candidates) < 1e-9


def test_directions_within_classes_exclude_differences_of_classes():
    r, w, classes = pairs()
    g = torch.Generator().manual_seed(1)
    within = shuffled_directions(r, w, range(6), classes=classes, repeats=200, generator=g)
    assert within.shape == (1200, 4)
    residual_w = w - torch.stack([w[classes == c].mean(0) for c in range(3)])[classes]
    residual_r = r - torch.stack([r[classes == c].mean(0) for c in range(3)])[classes]
    square = residual_r.square().sum(0)
    for u in range(6):
        own = within.view(200, 6, 4)[:, u]
        expected = (
            sum(
                residual_r[classes == c, u].square().sum()
                * residual_w[classes == c].square().sum(0)
                / (int((classes == c).sum()) - 1)
                for c in range(3)
            )
            / square[u] ** 2
        )
        assert own.mean(0).abs().max() < 4 * (expected / 200).sqrt().max()
        torch.testing.assert_close(own.var(0), expected, rtol=0.45, atol=0)


def test_correlated_units_get_independent_directions():
    r, w, _ = pairs()
    twins = r[:, :1].expand(-1, 40)
    result = shuffled_directions(twins, w, range(40), generator=torch.Generator().manual_seed(2))
    others = torch.corrcoef(result[:, :2].T)
    assert others.shape == (2, 2) and torch.linalg.matrix_rank(result) == 4
    assert len(result.unique(dim=0)) == 40


def test_invalid_arguments_raise():
    r, w, classes = pairs(20)
    g = torch.Generator()
    with pytest.raises(ValueError, match="with 0 repeats"):
        shuffled_directions(r, w, [0], repeats=0, generator=g)
    with pytest.raises(ValueError, match=r"expected \(n, units\) and \(n, latent_dim\) of the same pairs"):
        shuffled_directions(r[:3], w, [0], generator=g)
    with pytest.raises(ValueError, match=r"classes have shape \(3,\) for 20 pairs"):
        shuffled_directions(r, w, [0], classes=classes[:3], generator=g)
    with pytest.raises(ValueError, match="unit 1 does not vary"):
        shuffled_directions(r * torch.tensor([1.0, 0, 1, 1, 1, 1]), w, [0, 1], generator=g)


def test_constant_units_raise():
    r, w, classes = pairs()
    for value in (0.1, -7.7, 1e6 / 3):
        r[:, 2] = value
        for labels in (None, classes):
            with pytest.raises(ValueError, match="unit 2 does not vary within classes; leave it out"):
                shuffled_directions(r, w, [1, 2], classes=labels, generator=torch.Generator())
    r[:, 2] = 1e-9 * r[:, 1] + 1  # small beside its mean, but no rounding
    shuffled_directions(r, w, [2], generator=torch.Generator())
