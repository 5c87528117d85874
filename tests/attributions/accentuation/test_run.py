import pytest
import torch

from xinc_captum import FeatureAccentuation
from xinc_captum.attributions.accentuation import Ball, Crops, FeatureDistance, Fourier, Phase, Pixel, Settings
from xinc_captum.attributions.accentuation.accentuate import run
from xinc_captum.attributions.accentuation.activations import ImageModel, needs
from xinc_captum.attributions.accentuation.objectives import logit
from xinc_captum.attributions.accentuation.score import Aim

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def outcome(net, *, seeds=X, layer=None, level=None, **options):
    settings = Settings(**{"n_steps": 4, "lr": 0.05, "optimizer": torch.optim.Adam, "regularizer": None, **options})
    model, objective = ImageModel(net.requires_grad_(False)), logit(1)
    _, whole = needs(model, X, (), objective)
    return run(Aim(model, objective, (), whole), None, seeds, X, (), settings, (12, 12), layer, level)


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel(), Phase()], ids=lambda p: type(p).__name__)
def test_the_score_rises(smooth, parameterization):
    found = outcome(smooth, parameterization=parameterization)
    assert (found.after > found.before).all()
    assert found.images.min() >= 0 and found.images.max() <= 1 and not found.images.requires_grad
    assert found.climb.mask.shape == X.shape and found.climb.scores.shape == (4, 2)


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel()])
@pytest.mark.parametrize("seeds", [X, (X > 0.5).float()], ids=["normal", "saturated"])
def test_a_ball_that_nothing_leaves_changes_nothing(smooth, parameterization, seeds):
    free = outcome(smooth, seeds=seeds, parameterization=parameterization)
    held = outcome(smooth, seeds=seeds, parameterization=parameterization, regularizer=Ball(100.0))
    torch.testing.assert_close(held.images, free.images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel(), Phase()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("norm", "radius"), [("L2", 0.3), ("Linf", 0.02)])
def test_a_ball_keeps_its_radius(smooth, parameterization, norm, radius):
    found = outcome(smooth, parameterization=parameterization, regularizer=Ball(radius, norm), n_steps=8, lr=0.2)
    change = (found.images - X).flatten(1)
    size = change.norm(dim=1) if norm == "L2" else change.abs().amax(1)
    assert (size <= radius * (1 + 1e-6)).all() and (size > 0.5 * radius).all()
    assert (found.after > found.before).all()


@pytest.mark.parametrize("parameterization", [Fourier(), Pixel()])
def test_every_step_begins_inside_the_ball_also_where_pixels_are_saturated(smooth, parameterization):
    seeds, seen = (X > 0.5).float(), []
    outcome(
        smooth,
        seeds=seeds,
        parameterization=parameterization,
        regularizer=Ball(0.05, "Linf"),
        lr=10.0,
        transforms=(),
        on_step=lambda step, images, scores: seen.append((images - seeds).abs().max()),
    )
    assert max(seen) <= 0.05 + 1e-5 and seen[-1] > 0.04, seen


def test_the_weight_is_balanced_or_given(smooth):
    measured = outcome(smooth, layer=smooth[1], regularizer=FeatureDistance(weight=2.0)).weight
    single = outcome(smooth, layer=smooth[1], regularizer=FeatureDistance(weight=1.0)).weight
    torch.testing.assert_close(measured, 2 * single)
    given = outcome(smooth, layer=smooth[1], regularizer=FeatureDistance(weight=2.0, balance=0.5)).weight
    assert given.tolist() == 1.0


def test_a_heavier_distance_stays_nearer(smooth):
    far = [
        outcome(
            smooth, layer=smooth[1], regularizer=FeatureDistance(weight=w), n_steps=8, transforms=()
        ).climb.distances
        for w in (0.01, 1.0)
    ]
    assert (far[1][-1] < far[0][-1]).all()


def test_levels_are_met(smooth):
    levels = torch.tensor([0.01, -0.02])
    found = outcome(smooth, level=lambda before: (before + 1, before + levels), n_steps=30, lr=0.1, dose=1.0)
    torch.testing.assert_close(found.after, found.before + levels, atol=2e-5, rtol=0)
    torch.testing.assert_close(found.dose, levels, atol=2e-5, rtol=0)


def test_already_there_is_the_seed_itself(smooth):
    found = outcome(smooth, level=lambda before: (before, before), dose=0.0)
    assert torch.equal(found.images, X) and found.climb.steps == 0
    assert found.climb.mask.abs().sum() == 0 and found.dose.tolist() == [0, 0]
    assert outcome(smooth, level=lambda before: (before, before), activation=0.0).dose is None


def test_from_noise(smooth):
    found = outcome(smooth, seeds=None)
    assert found.images.shape == X.shape and found.before is None and found.weight is None
    assert torch.equal(found.images, outcome(smooth, seeds=None).images)
    assert not torch.equal(found.images, outcome(smooth, seeds=None, seed=1).images)
    (params,), decode = Fourier().random(tuple(X.shape), torch.Generator().manual_seed(0))
    start = smooth(decode((params,)))[:, 1]
    assert (found.after > start).all()


def test_a_param_f_starts_from_noise_alone(smooth):
    params = torch.zeros(2, 3, 12, 12, requires_grad=True)
    param_f = lambda: ([params], lambda: torch.sigmoid(params))
    assert (outcome(smooth, seeds=None, parameterization=param_f, transforms=(Crops(2),)).images != 0.5).any()
    with pytest.raises(ValueError, match="is a function without an image .*cannot start from inputs; give inputs=None"):
        outcome(smooth, parameterization=param_f)


def test_noise_does_not_depend_on_how_the_batch_is_cut(smooth):
    options = {"n_steps": 2, "lr": 0.05, "transforms": (), "shape": (3, 3, 8, 8)}
    for parameterization in (Fourier(), Pixel(), Phase()):
        whole, cut = (
            FeatureAccentuation(smooth).accentuate(
                None, [0, 1, 2], parameterization=parameterization, internal_batch_size=size, **options
            )
            for size in (None, 1)
        )
        torch.testing.assert_close(cut.images, whole.images, atol=1e-5, rtol=0)
        assert (whole.images[0] - whole.images[1]).abs().max() > 1e-3
