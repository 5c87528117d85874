import pytest
import torch

from xinc_captum.attributions.linking.unit_tables import quantify, screen
from xinc_captum.generators import FeatureParts, PictureParts, ProjectionHead, from_callable, normal_latents
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


def test_classes_and_a_null_that_costs_nothing(planted):
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


def test_what_has_no_gradient_is_said(planted):
    ask = (planted.generator, planted.link, planted.latents[:2])
    with pytest.raises(ValueError, match="entropy cannot be screened: no gradient passes"):
        screen(*ask, measures=["entropy"])
    with pytest.raises(ValueError, match="down, right, speed cannot be screened"):
        screen(*ask, measures=["motion"])
    with pytest.raises(ValueError, match="area of part 0 has no gradient .* Give soft masks"):
        screen(*ask, parts=planted.parts, measures=["area"])
    stuck = from_callable(planted.generator.synthesize, normal_latents(30), differentiable=False)
    with pytest.raises(ValueError, match="says that it is not differentiable"):
        screen(stuck, *ask[1:])
    cut = from_callable(lambda w: planted.generator.synthesize(w.detach()), normal_latents(30))
    with pytest.raises(ValueError, match="luminance of part 0 has no gradient"):
        screen(cut, *ask[1:], parts=PictureParts(planted.masks, ["a", "b", "c"]), measures=["luminance"])
