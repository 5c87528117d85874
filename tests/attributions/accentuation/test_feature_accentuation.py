"""The two classes as their users meet them: any images, any feature, any start."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from xinc_captum import FeatureAccentuation, LayerError, NeuronFeatureAccentuation, capture, layer_to_grid
from xinc_captum.attributions.accentuation import (
    Ball,
    Crops,
    FeatureDistance,
    Noise,
    Phase,
    Pixel,
    Rotation,
    natural_magnitude,
)
from xinc_captum.attributions.accentuation.objectives import channel, logit

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
CALM = {"n_steps": 3, "lr": 0.05, "optimizer": torch.optim.Adam, "transforms": ()}  # no chance, so that scores rise
CALM["regularizer"] = FeatureDistance(weight=0.05)


def net_for(channels):
    layers = nn.Conv2d(channels, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(*layers).eval()


def test_a_linear_model_by_hand():
    """f = w·x: every step's gradient is w, so the mask is n_steps · |w|, and pixels move along w."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2, bias=False))
    x = torch.full((1, 3, 4, 4), 0.5)
    result = FeatureAccentuation(net).accentuate(
        x, target=1, n_steps=5, transforms=(), regularizer=None, parameterization=Pixel()
    )
    w = net[1].weight[1].detach().reshape(1, 3, 4, 4)
    torch.testing.assert_close(result.masks, 5 * w.abs())
    assert float(((result.images - x) * w).sum()) > 0
    torch.testing.assert_close(result.after - result.before, ((result.images - x) * w).sum((1, 2, 3)))


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 28, 28), (1, 2, 9, 9), (1, 3, 65, 65), (2, 3, 13, 20), (1, 4, 7, 30), (1, 7, 12, 12), (1, 3, 3, 3)],
    ids=str,
)
@pytest.mark.parametrize("parameterization", [None, Pixel(), Phase()], ids=["Fourier", "Pixel", "Phase"])
def test_any_channels_and_any_size(shape, parameterization):
    x, options = torch.rand(shape), {} if parameterization is None else {"parameterization": parameterization}
    method = FeatureAccentuation(net_for(shape[1]))
    first = []
    result = method.accentuate(x, target=1, n_steps=3, on_step=lambda step, x, s: first.append(x), **options)
    assert result.images.shape == result.masks.shape == shape
    assert -10 * (first[0] - x).double().square().mean().clamp_min(1e-30).log10() >= 120, "step 0 is the seed"
    assert (result.masks >= 0).all() and result.masks.sum() > 0
    assert (result.images != x).any()


def test_attribute_perturb_and_accentuate_agree(smooth):
    method = FeatureAccentuation(smooth)
    result = method.accentuate(X, target=[1, 2], **CALM)
    assert torch.equal(method.attribute(X, target=[1, 2], **CALM), result.masks)
    (images,) = method.perturb((X,), target=[1, 2], **CALM)
    assert torch.equal(images, result.images)
    assert (result.after > result.before).all() and result.layer is not None
    assert (result.steps, result.interrupted, result.scores.shape) == (3, False, (3, 2))


def test_larger_images_for_a_model_of_fixed_size():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    big = torch.rand(1, 3, 20, 31)
    assert FeatureAccentuation(net, size=8).perturb(big, target=1, n_steps=2).shape == big.shape
    assert FeatureAccentuation(net, size=(8, 8)).accentuate(big, target=1, n_steps=2).trust.verdict


def test_preprocess_is_the_models_own_normalisation(smooth):
    normal = lambda x: (x - 0.5) / 0.2
    outside = FeatureAccentuation(smooth, preprocess=normal).attribute(X, target=1, n_steps=3)
    inside = FeatureAccentuation(lambda x: smooth(normal(x))).attribute(X, target=1, n_steps=3)
    torch.testing.assert_close(outside, inside)


def test_every_unit_of_a_layer(smooth):
    method = NeuronFeatureAccentuation(smooth, "1")
    channels = method.accentuate(X, 2, **CALM)
    assert channels.feature == "Softplus:2" and (channels.after > channels.before).all()
    as_target = FeatureAccentuation(smooth).accentuate(X, "1:2", **CALM)
    assert torch.equal(channels.images, as_target.images)
    for selector in ((2, 3, 3), (2, slice(0, 2), 3), lambda a: a[:, 2, 3, 3], torch.randn(4), channel("1", 2)):
        result = method.accentuate(X, selector, **CALM)
        assert (result.after > result.before).all()
    several = method.accentuate(X, [2, (2, 3, 3)], **CALM)
    torch.testing.assert_close(several.images[:1], channels.images[:1])
    with torch.no_grad():
        torch.testing.assert_close(channels.before, smooth[1](smooth[0](X))[:, 2].mean((1, 2)))


def test_targets_of_every_kind(smooth):
    method = FeatureAccentuation(smooth)
    plain = method.attribute(X, target=1, n_steps=2)
    for target in (logit(1), lambda seen: seen.output[:, 1], lambda seen: seen("6")[:, 1], (1,), torch.tensor([1, 1])):
        torch.testing.assert_close(method.attribute(X, target=target, n_steps=2), plain)
    both = method.accentuate(X, target=logit(1) - 0.5 * channel("1", 0), n_steps=2)
    assert both.feature == "logit 1 - 0.5 * 1:0"


def test_rows_are_independent(smooth):
    x, targets = torch.rand(5, 3, 12, 12), [0, 1, 2, 1, 0]
    options = {"n_steps": 6, "n_draws": 2, "transforms": (Crops(3), Rotation(), Noise())}
    method = FeatureAccentuation(smooth)
    full = method.accentuate(x, target=targets, **options)
    for size in (1, 2):
        chunks = method.accentuate(x, target=targets, internal_batch_size=size, **options)
        torch.testing.assert_close(chunks.images, full.images, atol=3e-5, rtol=0)
        torch.testing.assert_close(chunks.masks, full.masks, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(chunks.distances, full.distances, atol=1e-6, rtol=1e-4)
    alone = method.accentuate(x[3:4], target=1, **options)
    torch.testing.assert_close(alone.images, full.images[3:4], atol=1e-5, rtol=0)


def test_chunks_that_reach_their_levels_at_different_steps(smooth):
    doses = [0.005, 0, 0.002]
    x = torch.rand(3, 3, 12, 12)
    options = {**CALM, "target": 1, "dose": doses, "n_steps": 60, "lr": 0.1}
    chunks = FeatureAccentuation(smooth).accentuate(x, internal_batch_size=1, **options)
    assert torch.equal(chunks.images[1], x[1])
    assert chunks.scores.shape[1] == chunks.distances.shape[1] == 3
    assert chunks.dose.tolist() == pytest.approx(doses, abs=1e-4)


def test_views_depend_on_the_random_seed(smooth):
    method = FeatureAccentuation(smooth)
    first = method.accentuate(X, target=1, n_steps=3)
    torch.rand(7)
    assert torch.equal(method.accentuate(X, target=1, n_steps=3).images, first.images)
    other = method.accentuate(X, target=1, n_steps=3, seed=1)
    assert not torch.equal(other.images, first.images) and not torch.equal(other.scores[0], first.scores[0])


def test_rounding_errors_are_not_amplified(smooth):
    """The original's first step follows the sign of rounding noise: 1e-7 in the seed moved its pixels by .049."""
    method = FeatureAccentuation(smooth)
    x = torch.rand(1, 3, 24, 24) * 0.9 + 0.05
    moved = (x + 1e-7 * torch.randn_like(x).sign()).clamp(0, 1)
    for steps in (1, 4):
        one, other = (method.accentuate(y, target=1, n_steps=steps, lr=0.05) for y in (x, moved))
        assert one.distances[0].abs().max() < 1e-6
        assert (one.images - x).abs().max() > 1e-3
        assert (one.images - other.images).abs().max() < 1e-4 * (one.images - x).abs().max() + 1e-6


def test_the_seed_needs_one_short_pass_for_each_draw(smooth):
    graded, ended = [], []
    smooth[1].register_forward_hook(lambda m, a, out: graded.append(out.requires_grad and torch.is_grad_enabled()))
    smooth[6].register_forward_hook(lambda *_: ended.append(1))
    counts = []
    for steps in (8, 16):
        graded.clear(), ended.clear()
        FeatureAccentuation(smooth).attribute(X, target=1, n_steps=steps, n_draws=4, regularizer=FeatureDistance("1"))
        counts.append((sum(graded), len(graded) - sum(graded), len(ended)))
    assert counts[1][0] - counts[0][0] == counts[1][2] - counts[0][2] == 8, "one whole pass a step"
    assert counts[1][1] == counts[0][1], "the seed's features are held"


def test_a_hidden_target_stops_at_its_layer(smooth):
    ran = []
    smooth[2].register_forward_hook(lambda *_: ran.append(1))
    counts = []
    for steps in (2, 9):
        ran.clear()
        NeuronFeatureAccentuation(smooth, "1").attribute(X, 2, n_steps=steps)
        counts.append(len(ran))
    assert counts[0] == counts[1], "later modules run while layers are looked up, and never again"


def test_from_noise(smooth):
    result = FeatureAccentuation(smooth).accentuate(None, target=1, shape=(2, 3, 12, 12), n_steps=3)
    assert result.images.shape == result.masks.shape == (2, 3, 12, 12)
    assert result.seeds is None and result.before is None and result.distances is None
    assert result.scores[-1].mean() > result.scores[0].mean()
    assert result.trust.verdict == "weak"
    natural = Phase(natural_magnitude(torch.rand(4, 3, 12, 12)))
    phase = NeuronFeatureAccentuation(smooth, "1").accentuate(
        None, 1, shape=(1, 3, 12, 12), n_steps=2, parameterization=natural
    )
    assert phase.images.shape == (1, 3, 12, 12)
    for shape in (None, (3, 12, 12), (0, 3, 12, 12)):
        with pytest.raises(ValueError, match=r"inputs is None and shape is .*; to start from noise, give the shape of"):
            FeatureAccentuation(smooth).accentuate(None, target=1, shape=shape)


def test_lucent_objectives_and_parameterizations(smooth):
    objectives = pytest.importorskip("lucent.optvis.objectives", reason="pip install torch-lucent")
    param = pytest.importorskip("lucent.optvis.param", reason="pip install torch-lucent")
    method = FeatureAccentuation(smooth)
    result = method.accentuate(X, target=objectives.channel("1", 2) + objectives.channel("6", 1), **CALM)
    assert result.feature == "lucent channel, channel" and (result.after > result.before).all()
    named = nn.Sequential()
    named.add_module("block", smooth)
    dotted, joined = (FeatureAccentuation(named).attribute(X, target=t, n_steps=2) for t in ("block.1:2", "block_1:2"))
    assert torch.equal(dotted, joined)
    noise = method.accentuate(
        None,
        target=objectives.channel("1", 2),
        shape=(1, 3, 12, 12),
        n_steps=3,
        parameterization=lambda: param.image(12),
    )
    assert noise.images.shape == (1, 3, 12, 12) and noise.scores[-1] > noise.scores[0]


@pytest.fixture(scope="module")
def vit():
    return VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3).eval()


def test_a_transformers_channels(vit):
    x, layer = torch.rand(2, 3, 16, 16), "encoder.layers.encoder_layer_1"
    method = NeuronFeatureAccentuation(vit, layer, layer_to_grid=layer_to_grid)
    result = method.accentuate(x, 3, **CALM)
    assert (result.after > result.before).all() and result.distances.isfinite().all()
    default = NeuronFeatureAccentuation(vit, layer).accentuate(x, 3, **CALM)
    torch.testing.assert_close(default.before, result.before)
    with capture(vit, layer) as calls:
        vit(x)
    tokens = calls[vit.get_submodule(layer)].detach()
    torch.testing.assert_close(default.before, tokens[:, 1:, 3].mean(1), msg="the class token is left out")
    every = NeuronFeatureAccentuation(vit, layer, unit_axis=-1).accentuate(x, 3, **CALM)
    torch.testing.assert_close(every.before, tokens[..., 3].mean(1))
    one = NeuronFeatureAccentuation(vit, layer).accentuate(x, (5, 3), **CALM)
    assert (one.after > one.before).all(), "a token's channel needs no grid"


def test_contrast_by_target_unit_and_model(smooth):
    options = CALM | {"n_steps": 6, "lr": 0.1, "regularizer": None}
    method = FeatureAccentuation(smooth)
    target_score = method.accentuate(X, target=1, **options)
    apart = method.accentuate(X, target=1, contrast=2, **options)
    gap = lambda y: (smooth(y)[:, 1] - smooth(y)[:, 2]).detach()
    assert (gap(apart.images) > gap(target_score.images)).all()
    torch.testing.assert_close(apart.before, gap(X))
    torch.manual_seed(5)
    other = nn.Sequential(*(type(m)(3, 4, 3, padding=1) if i == 0 else m for i, m in enumerate(smooth))).eval()
    models = method.accentuate(X, target=1, contrast=other, **options)
    torch.testing.assert_close(models.after, (smooth(models.images) - other(models.images))[:, 1].detach())
    assert (models.after > models.before).all()
    unit = NeuronFeatureAccentuation(smooth, "1")
    two = unit.accentuate(X, [1, 0], contrast=[2, 3], internal_batch_size=1, **options)
    torch.testing.assert_close(
        two.images, unit.accentuate(X, [1, 0], contrast=[2, 3], **options).images, atol=1e-5, rtol=0
    )
    assert (two.after > two.before).all()
    same_place = unit.accentuate(X, 1, contrast=other, **options)
    hidden = lambda net, y: net[1](net[0](y))[:, 1].mean((1, 2)).detach()
    torch.testing.assert_close(same_place.before, hidden(smooth, X) - hidden(other, X))


def test_images_stay_inside_the_ball(smooth):
    for ball, size in ((Ball(0.5), 0.5), (Ball(0.02, "Linf"), 0.02)):
        change = (FeatureAccentuation(smooth).perturb(X, target=1, regularizer=ball, n_steps=8) - X).flatten(1)
        result = change.norm(dim=1) if ball.norm == "L2" else change.abs().amax(1)
        assert (result <= size * (1 + 1e-6)).all() and (result > 0.5 * size).all()


def test_constructing_does_not_change_the_model(conv, found):
    before = found(conv)
    FeatureAccentuation(conv), NeuronFeatureAccentuation(conv, "relu")
    assert before.differences(conv) == []
    assert FeatureAccentuation(conv).get_name() == "Feature Accentuation"
    with pytest.raises(LayerError, match="did you mean 'relu'"):
        NeuronFeatureAccentuation(conv, "relo")
