import pytest
import torch
from torch import nn

from xinc_captum.generators import (
    FeatureParts,
    FewShotHead,
    ProjectionHead,
    cluster_features,
    from_callable,
    normal_latents,
)
from xinc_captum.generators.features import stack_maps
from xinc_captum.generators.parts import even

pytest.importorskip("sklearn.cluster")


def generator():
    net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.ConvTranspose2d(1, 3, 2, 2), nn.Sigmoid())
    return from_callable(net, normal_latents(4))


def test_masks_share_out_every_pixel_and_pass_gradients():
    parts = FeatureParts(ProjectionHead([1, 3], 3, width=4), ["a", "b", "c"], ["0", "1"])
    latents = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pictures, masks = parts.draw(generator(), latents)
    assert pictures.shape == (2, 3, 4, 4) and masks.shape == (2, 3, 4, 4)
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 4, 4))
    assert torch.autograd.grad(masks[:, 0].sum(), latents)[0].abs().sum() > 0


@pytest.mark.parametrize("head", [ProjectionHead([1, 3], 2), FewShotHead([1, 3], 2, widths=(4,), dilations=(1, 2))])
def test_reads_are_applied_during_the_pass_and_in_place_layers_do_not_change_maps(head):
    net = nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.ConvTranspose2d(1, 3, 2, 2), nn.ReLU(inplace=True), nn.Sigmoid())
    latents = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    maps = [net[0](latents), net[:2](latents)]
    generator, parts = from_callable(net, normal_latents(4)), FeatureParts(head, ["a", "b"], ["0", "1"])
    expected = head(maps, (4, 4)).softmax(1)
    with torch.no_grad():
        torch.testing.assert_close(parts.draw(generator, latents)[1], expected)
    torch.testing.assert_close(parts.draw(generator, latents.requires_grad_())[1], expected)
    parts.draw(generator, latents)[1][:, 0].sum().backward()
    assert latents.grad.isfinite().all() and not net[1]._forward_hooks
    with pytest.raises(ValueError, match=r"map 1 has 1 channels; this head was made for maps of \(1, 3\)"):
        FeatureParts(head, ["a", "b"], ["1", "0"]).draw(generator, latents)


def blocks(n=5):
    """Two maps in which three kinds of pixels differ: left, right top, right bottom."""
    g = torch.Generator().manual_seed(0)
    kinds = torch.zeros(8, 8).long()
    kinds[:4, 4:], kinds[4:, 4:] = 1, 2
    fine = torch.stack([kinds == 1, kinds == 2]).float().expand(n, 2, 8, 8) * 3 + 7
    coarse = (kinds[::2, ::2] > 0).float().expand(n, 1, 4, 4) * 100
    noise = [torch.randn(t.shape, generator=g) * s for t, s in ((coarse, 5), (fine, 0.3))]
    return [coarse + noise[0], fine + noise[1]], kinds


def test_clusters_are_independent_of_the_scale():
    maps, kinds = blocks()
    found = cluster_features(maps, 3)(maps, (8, 8)).argmax(1)
    for kind in range(3):
        own = found[:, kinds == kind]
        assert (own == own.flatten().mode().values).float().mean() > 0.98
    assert len({int(found[:, kinds == kind].flatten().mode().values) for kind in range(3)}) == 3


def test_patterns_of_alternating_pixels_are_no_parts():
    """What transposed convolutions leave behind, stronger than what the picture shows."""
    maps, kinds = blocks()
    checks = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2 - 1) * 20.0
    found = cluster_features([maps[0], maps[1] + checks], 3)([maps[0], maps[1] + checks], (8, 8)).argmax(1)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    for kind in range(3):
        own = found[:, (kinds == kind) & inside]
        assert (own == own.flatten().mode().values).float().mean() > 0.9
    assert even(checks[None, None].float())[..., 1:-1, 1:-1].abs().max() == 0


def test_a_pixel_joins_its_nearest_centre():
    """The head never makes the features side by side at one size; the centres would."""
    maps, _ = blocks(2)
    clusters = cluster_features(maps, 4, seed=3)
    features = (
        (stack_maps([even(m) for m in maps], (8, 8)) - clusters.mean.view(-1, 1, 1)) / clusters.scale.view(-1, 1, 1)
    ).movedim(1, -1)
    distances = (features[..., None, :] - clusters.centres).square().sum(-1)
    logits = clusters(maps, (8, 8))
    assert torch.equal(logits.argmax(1), distances.argmin(-1))
    torch.testing.assert_close(logits.softmax(1).movedim(1, -1), (-10 * distances).softmax(-1), rtol=1e-3, atol=1e-4)
    parts = FeatureParts(clusters, ["a", "b", "c", "d"])
    assert parts.names == ("a", "b", "c", "d")


def test_mismatched_arguments_raise_errors():
    maps, _ = blocks(1)
    with pytest.raises(ValueError, match="clusters is 1 for 64 pixels"):
        cluster_features(maps, 1)
    with pytest.raises(ValueError, match="the features hold NaN or infinity"):
        cluster_features([m * torch.nan for m in maps], 2)
    with pytest.raises(ValueError, match=r"the maps have \(2, 1\) channels; this head was made for \(1, 2\)"):
        cluster_features(maps, 2)(maps[::-1], (8, 8))
    with pytest.raises(ValueError, match="names are a, but the head has 2 parts"):
        FeatureParts(ProjectionHead([1], 2), ["a"])
    with pytest.raises(ValueError, match="a different word for each part"):
        FeatureParts(ProjectionHead([1], 2), ["a", "a"])


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(ModuleNotFoundError, match=r"k-means needs sklearn.*xinc-captum\[analysis\]"):
        cluster_features(blocks(1)[0], 2)
