import warnings

import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, NeuronFeatureAccentuation
from xinc_captum.attributions.accentuation.objectives import logit

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
FAST = {"n_steps": 60, "lr": 0.1, "optimizer": torch.optim.Adam, "regularizer": None, "transforms": ()}


@pytest.fixture
def method(smooth):
    with torch.no_grad():
        smooth[6].weight.mul_(20)
    return FeatureAccentuation(smooth)


@pytest.fixture
def natural(method):
    """Sixteen pictures, half of them painted so that output 1 likes them."""
    pictures = torch.rand(16, 3, 12, 12)
    pictures[:8] = method.perturb(pictures[:8], target=1, **FAST)
    return pictures


def test_a_dose_of_nothing_is_the_seed_to_the_bit(method):
    found = method.accentuate(X, target=1, dose=0, n_steps=5)
    assert torch.equal(found.images, X) and torch.equal(found.before, found.after)
    assert found.steps == 0 and found.masks.abs().sum() == 0
    assert torch.equal(method.perturb(X, target=1, dose=torch.tensor([0.0, 0.05]), **FAST)[0], X[0])


def test_doses_are_met_and_grow(method, natural):
    doses = torch.linspace(-0.25, 0.5, 11)
    found = method.accentuate(X[:1].expand(11, -1, -1, -1), target=1, dose=doses, natural=natural, **FAST)
    assert (found.dose - doses).abs().max() <= 0.02
    assert (found.after.diff() > 0).all()
    with torch.no_grad():
        torch.testing.assert_close(found.after, method.forward_func(found.images)[:, 1], atol=1e-4, rtol=1e-4)
        top = method.forward_func(natural)[:, 1].quantile(0.98)
    before = found.before[0]
    torch.testing.assert_close(found.level, before + doses * (top - before), atol=1e-4, rtol=1e-4)
    assert found.after[0] < before, "below 0 it is suppressed"


def test_without_pictures_the_scale_is_five_deviations_over_the_peers(method, smooth):
    output = method.accentuate(X, target=1, dose=0.02, **FAST)
    with torch.no_grad():
        spread = smooth(X).std(1)
        maps = smooth[1](smooth[0](X)).mean((2, 3))
    torch.testing.assert_close(output.level, output.before + 0.02 * 5 * spread)
    unit = NeuronFeatureAccentuation(smooth, "1").accentuate(X, 1, dose=0.01, **FAST)
    torch.testing.assert_close(unit.level, unit.before + 0.01 * 5 * maps.std(1))


def test_an_absolute_level(method):
    before = method.accentuate(X, target=1, n_steps=1).before
    levels = before + torch.tensor([0.1, -0.1])
    found = method.accentuate(X, target=1, activation=levels.tolist(), **FAST)
    torch.testing.assert_close(found.after, levels, atol=2e-4, rtol=0)
    assert found.dose is None
    there = float(method.accentuate(X[:1], target=1, n_steps=1).before)
    assert torch.equal(method.perturb(X[:1], target=1, activation=there), X[:1])


def test_out_of_reach_says_how_far_it_got(method):
    with pytest.warns(
        UserWarning,
        match=r"2 of 2 rows did not reach their level: row 0 came to .* on the way from .* to 1000 in 3 steps\. Give more n_steps",
    ) as caught:
        found = method.accentuate(X, target=1, activation=1000.0, n_steps=3)
    assert caught[0].filename == __file__, "the caller's own line"
    assert (found.after > found.before).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.accentuate(X, target=1, dose=0.01, **FAST)


@pytest.mark.parametrize("dose", [float("nan"), float("inf"), [0.1, 0.2, 0.3], [[0.1, 0.2]]])
@pytest.mark.parametrize("name", ["dose", "activation"])
def test_impossible_doses(method, name, dose):
    with pytest.raises(ValueError, match=f"{name} is .*; wanted one finite number, or one a row for 2 rows"):
        method.attribute(X, target=1, **{name: dose})


def test_a_dose_without_a_scale(method, smooth, natural):
    with pytest.raises(ValueError, match="a dose needs a scale, and this feature has no peers to take one from"):
        method.attribute(X, target=logit(1), dose=1)
    loved = natural[:1]
    with pytest.raises(
        ValueError,
        match=r"a dose has no scale for image 0: its score is .* already, and the reference .* Give activation=",
    ):
        method.attribute(loved, target=1, dose=1, natural=natural[8:])
    flat = nn.Sequential(smooth, nn.Linear(3, 1)).eval()
    alone = FeatureAccentuation(flat).accentuate(X, target=0, dose=0.001, **FAST)
    torch.testing.assert_close(alone.level, alone.before + 0.005 * alone.before.abs())


def test_natural_pictures_of_another_size_and_for_each_row_its_own(method, natural):
    large = nn.functional.interpolate(natural, (20, 26), mode="bilinear")
    found = method.accentuate(X, target=[1, 2], dose=[0.1, 0], natural=large, **FAST)
    assert found.level[0] > found.before[0] and found.level[1] == found.before[1]
    with pytest.raises(ValueError, match="images hold NaN"):
        method.attribute(X, target=1, dose=0.1, natural=natural * float("nan"))


def test_a_dose_of_a_contrast_is_on_the_contrasts_own_scale(method, natural):
    found = method.accentuate(X[:1], target=1, contrast=2, dose=0.1, natural=natural, n_steps=1)
    with torch.no_grad():
        scores = method.forward_func(natural)
        top = (scores[:, 1] - scores[:, 2]).quantile(0.98)
    torch.testing.assert_close(found.level, found.before + 0.1 * (top - found.before), atol=1e-4, rtol=1e-4)
