"""Doses, the evidence for .trust, and second models as contrast= and transfer=."""

import copy
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, NeuronFeatureAccentuation
from xinc_captum.attributions.accentuation.activations import ModelInputs, late_layers
from xinc_captum.attributions.accentuation.evidence import path_of
from xinc_captum.attributions.accentuation.objectives import Feature, channel, is_model, logit
from xinc_captum.batch import Batch
from xinc_captum.image_model import ImageModel, Normalise
from xinc_captum.metrics.trust import high_frequency_energy

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
FAST = {"n_steps": 60, "lr": 0.1, "optimizer": torch.optim.Adam, "regularizer": None, "transforms": ()}


@pytest.fixture
def method(smooth):
    with torch.no_grad():
        smooth[6].weight.mul_(20)
    return FeatureAccentuation(smooth)


@pytest.fixture
def natural(method):
    """Sixteen images; eight of them have a high output 1."""
    images = torch.rand(16, 3, 12, 12)
    images[:8] = method.perturb(images[:8], target=1, **FAST)
    return images


def test_a_dose_of_zero_is_bit_identical_to_the_seed(method):
    result = method.accentuate(X, target=1, dose=0, n_steps=5)
    assert torch.equal(result.images, X) and torch.equal(result.before, result.after)
    assert result.steps == 0 and result.masks.abs().sum() == 0
    assert torch.equal(method.perturb(X, target=1, dose=torch.tensor([0.0, 0.05]), **FAST)[0], X[0])


def test_doses_are_reached_and_scores_grow(method, natural):
    doses = torch.linspace(-0.25, 0.5, 11)
    result = method.accentuate(X[:1].expand(11, -1, -1, -1), target=1, dose=doses, natural=natural, **FAST)
    assert (result.dose - doses).abs().max() <= 0.02
    assert (result.after.diff() > 0).all()
    with torch.no_grad():
        torch.testing.assert_close(result.after, method.forward_func(result.images)[:, 1], atol=1e-4, rtol=1e-4)
        top = method.forward_func(natural)[:, 1].quantile(0.98)
    before = result.before[0]
    torch.testing.assert_close(result.level, before + doses * (top - before), atol=1e-4, rtol=1e-4)
    assert result.after[0] < before, "below 0 it is suppressed"


def test_without_natural_images_the_scale_is_five_deviations_of_the_peers(method, smooth):
    output = method.accentuate(X, target=1, dose=0.02, **FAST)
    with torch.no_grad():
        spread = smooth(X).std(1)
        maps = smooth[1](smooth[0](X)).mean((2, 3))
    torch.testing.assert_close(output.level, output.before + 0.02 * 5 * spread)
    unit = NeuronFeatureAccentuation(smooth, "1").accentuate(X, 1, dose=0.01, **FAST)
    torch.testing.assert_close(unit.level, unit.before + 0.01 * 5 * maps.std(1))


def test_an_absolute_level_is_reached(method):
    before = method.accentuate(X, target=1, n_steps=1).before
    levels = before + torch.tensor([0.1, -0.1])
    result = method.accentuate(X, target=1, activation=levels.tolist(), **FAST)
    torch.testing.assert_close(result.after, levels, atol=2e-4, rtol=0)
    assert result.dose is None
    there = float(method.accentuate(X[:1], target=1, n_steps=1).before)
    assert torch.equal(method.perturb(X[:1], target=1, activation=there), X[:1])


def test_a_level_out_of_reach_warns(method):
    with pytest.warns(
        UserWarning,
        match=r"2 of 2 images did not reach their level: image 0 has the score .*, between .* and the level 1000, after 3 steps\. Give",
    ) as caught:
        result = method.accentuate(X, target=1, activation=1000.0, n_steps=3)
    assert caught[0].filename == __file__, "the caller's own line"
    assert (result.after > result.before).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.accentuate(X, target=1, dose=0.01, **FAST)


@pytest.mark.parametrize("dose", [float("nan"), float("inf"), [0.1, 0.2, 0.3], [[0.1, 0.2]]])
@pytest.mark.parametrize("name", ["dose", "activation"])
def test_impossible_doses_raise(method, name, dose):
    with pytest.raises(ValueError, match=f"{name} is .*; expected one finite number, or one for each of 2 images"):
        method.attribute(X, target=1, **{name: dose})


def test_a_dose_without_a_scale_raises(method, smooth, natural):
    with pytest.raises(ValueError, match="dose= needs a reference level, and none can be computed from the model"):
        method.attribute(X, target=logit(1), dose=1)
    loved = natural[:1]
    with pytest.raises(
        ValueError,
        match=r"dose= cannot be used for image 0: its score .* is not below the reference level .* Give activation=",
    ):
        method.attribute(loved, target=1, dose=1, natural=natural[8:])
    flat = nn.Sequential(smooth, nn.Linear(3, 1)).eval()
    alone = FeatureAccentuation(flat).accentuate(X, target=0, dose=0.001, **FAST)
    torch.testing.assert_close(alone.level, alone.before + 0.005 * alone.before.abs())


def test_natural_images_of_another_size_are_resized(method, natural):
    large = nn.functional.interpolate(natural, (20, 26), mode="bilinear")
    result = method.accentuate(X, target=[1, 2], dose=[0.1, 0], natural=large, **FAST)
    assert result.level[0] > result.before[0] and result.level[1] == result.before[1]
    with pytest.raises(ValueError, match="images hold NaN"):
        method.attribute(X, target=1, dose=0.1, natural=natural * float("nan"))


def test_the_dose_scale_of_a_contrast_is_that_of_the_difference(method, natural):
    result = method.accentuate(X[:1], target=1, contrast=2, dose=0.1, natural=natural, n_steps=1)
    with torch.no_grad():
        scores = method.forward_func(natural)
        top = (scores[:, 1] - scores[:, 2]).quantile(0.98)
    torch.testing.assert_close(result.level, result.before + 0.1 * (top - result.before), atol=1e-4, rtol=1e-4)


CALM = {"n_steps": 4, "lr": 0.05, "optimizer": torch.optim.Adam, "transforms": (), "regularizer": None}


def test_a_path_by_hand(hand_net):
    """x=(2,1) → a=(3,4) → y0 = 5·3 − 1·4 + 7: activation times gradient is (15, −4)."""
    net, x = hand_net
    (first, second) = path_of(ModelInputs(net), Feature(0), [net[0], net[1]], x, Batch.of(x[:1]))
    assert first.tolist() == second.tolist() == [[15.0, -4.0]]


def test_evidence_of_each_row(smooth):
    natural = torch.rand(6, 3, 12, 12)
    other = copy.deepcopy(smooth)
    result = FeatureAccentuation(smooth).accentuate(X, target=[1, 2], natural=natural, transfer=other, **CALM)
    trust = result.trust
    assert len(trust.rows) == 2
    for row, evidence in enumerate(trust.rows):
        assert evidence.gained == pytest.approx(float(result.after[row] - result.before[row]))
        assert evidence.transfer == pytest.approx(evidence.gained, rel=1e-3), "the second model is a copy"
        change = result.images[row : row + 1] - X[row : row + 1]
        assert evidence.high_frequency == pytest.approx(float(high_frequency_energy(change)), abs=1e-4)
        assert evidence.path > 0.9 and evidence.natural > 0.9 and evidence.seed > 0.9, "nearly linear, one path"
        assert evidence.shuffled < evidence.path
    verdicts = ("holds", "weak", "fails")
    assert trust.verdict == max((row.verdict for row in trust.rows), key=verdicts.index)


def test_without_natural_images_there_is_no_path_evidence(smooth):
    row = FeatureAccentuation(smooth).accentuate(X[:1], target=1, **CALM).trust.rows[0]
    assert row.path is row.natural is row.transfer is row.shuffled is None and row.gained is not None
    assert row.verdict != "holds"
    lone = FeatureAccentuation(smooth).accentuate(X[:1], target=1, natural=X[1:], **CALM).trust.rows[0]
    assert lone.path is None, "one picture cannot be compared with others"


def test_nothing_changed_is_no_evidence(smooth):
    natural = {"natural": torch.rand(6, 3, 12, 12), "transfer": copy.deepcopy(smooth)}
    row = FeatureAccentuation(smooth).accentuate(X[:1], target=1, dose=0, **natural).trust.rows[0]
    assert row.high_frequency is None and row.gained == 0
    assert (row.verdict, row.because) == ("weak", "nothing was gained, so there is nothing to judge")


def test_an_unchanged_image_has_no_gain(smooth):
    natural = {"natural": torch.rand(6, 3, 12, 12), "transfer": copy.deepcopy(smooth)}
    still = FeatureAccentuation(smooth).accentuate(X[:1], target=1, dose=0, **natural)
    row = replace(still, after=still.before + 1e-7).trust.rows[0]
    assert (row.verdict, row.gained) == ("weak", 0)


def test_a_suppressed_feature_falls_in_a_second_model_too(smooth):
    options = CALM | {"n_steps": 30}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = FeatureAccentuation(smooth).accentuate(X[:1], 1, dose=-0.2, transfer=copy.deepcopy(smooth), **options)
    row = result.trust.rows[0]
    assert result.after[0] < result.before[0]
    assert row.gained == pytest.approx(float(result.before[0] - result.after[0])) and row.gained > 0
    assert row.transfer == pytest.approx(row.gained, rel=1e-3) and "does not see it" not in row.because


def test_directions_are_judged_row_by_row(smooth):
    directions = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    method = NeuronFeatureAccentuation(smooth, "1")
    natural = torch.rand(6, 3, 12, 12)
    both = method.accentuate(X, directions, natural=natural, **CALM)
    for row in range(2):
        alone = method.accentuate(X[row : row + 1], directions[row], natural=natural, **CALM)
        assert both.trust.rows[row].path == pytest.approx(alone.trust.rows[0].path, abs=1e-4)
    cut = method.accentuate(X, directions, internal_batch_size=1, **CALM)
    torch.testing.assert_close(cut.images, both.images, atol=1e-5, rtol=0)


def test_transfer_of_a_unit_is_to_the_layer_of_the_same_name(smooth):
    other = copy.deepcopy(smooth)
    result = NeuronFeatureAccentuation(smooth, "1").accentuate(X, 2, transfer=other, natural=X, **CALM)
    assert result.trust.rows[0].transfer == pytest.approx(result.trust.rows[0].gained, rel=1e-3)


def test_the_weights_are_shuffled_in_a_copy(smooth, found):
    before = found(smooth)
    result = FeatureAccentuation(smooth).accentuate(X, target=1, natural=X, **CALM)
    first = result.trust.rows[0].shuffled
    assert before.differences(smooth) == []
    again = FeatureAccentuation(smooth).accentuate(X, target=1, natural=X, **CALM)
    assert again.trust.rows[0].shuffled == first


def test_late_layers_end_before_the_unit(smooth):
    model = ModelInputs(smooth)
    layers = late_layers(model, X, (), (smooth[3],))
    assert layers and all(layer in (smooth[0], smooth[1], smooth[2]) for layer in layers)


@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrapped_models_give_the_same_evidence(smooth, wrap):
    with torch.inference_mode():
        there = copy.deepcopy(smooth)
    for net in (smooth, there):
        result = FeatureAccentuation(wrap(net)).accentuate(X, target=1, natural=X, **CALM)
        plain = FeatureAccentuation(smooth).accentuate(X, target=1, natural=X, **CALM)
        torch.testing.assert_close(result.images, plain.images, atol=1e-6, rtol=0)
        assert result.trust.rows[0].path == pytest.approx(plain.trust.rows[0].path, abs=1e-4)
        assert result.trust.rows[0].shuffled == pytest.approx(plain.trust.rows[0].shuffled, abs=1e-4)


SECOND_X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OPTIONS = {"n_steps": 2, "transforms": (), "regularizer": None}
NORMALISE = Normalise((0.5,) * 3, (0.2,) * 3)


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 3)).eval()


FIRST, OTHER = net(0), net(1)
MODELS = {
    "module": OTHER,
    "classifier": ImageModel("other", OTHER, NORMALISE, 8, ("a", "b", "c")),
    "function": lambda images: OTHER(images),
    "method": OTHER.forward,
    "partial": partial(OTHER),
    "parallel": nn.DataParallel(OTHER),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_is_a_contrast(kind):
    """before = f(x) − g(x), each of the normalised images, once."""
    method = FeatureAccentuation(FIRST, preprocess=NORMALISE)
    result = method.accentuate(SECOND_X, [1, 2], contrast=MODELS[kind], transfer=MODELS[kind], **OPTIONS)
    rows, classes = torch.arange(2), torch.tensor([1, 2])
    score = lambda model, images: model(NORMALISE(images))[rows, classes].detach()
    torch.testing.assert_close(result.before, score(FIRST, SECOND_X) - score(OTHER, SECOND_X))
    assert (result.after > result.before).all()
    gains = [row.transfer for row in result.trust.rows]
    torch.testing.assert_close(
        torch.tensor(gains), score(OTHER, result.images) - score(OTHER, SECOND_X), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", MODELS)
def test_the_contrast_of_a_unit_is_in_the_same_layer(kind):
    method = NeuronFeatureAccentuation(FIRST, "1", preprocess=NORMALISE)
    result = method.accentuate(SECOND_X, 2, contrast=MODELS[kind], **OPTIONS)
    hidden = lambda model: model[1](model[0](NORMALISE(SECOND_X)))[:, 2].mean((1, 2)).detach()
    torch.testing.assert_close(result.before, hidden(FIRST) - hidden(OTHER))


def test_functions_of_layers_and_of_an_activation_are_no_models():
    probe = SECOND_X[:1], ()
    for thing in (
        lambda seen: seen("1")[:, 0].mean((1, 2)),
        lambda seen: seen.output[:, 0],
        channel("1", 0),
        "1:2",
        3,
        [1, 2],
    ):
        assert not is_model(thing, Feature(1), *probe)
    for thing in (lambda a: a[:, 2].mean((1, 2)), lambda a: FIRST[1](a)[:, 0].sum((1, 2)), (1, 2, 2)):
        assert not is_model(thing, Feature(1, FIRST[1]), *probe)
    assert all(is_model(model, Feature(1), *probe) for model in MODELS.values())
    assert is_model(lambda images: OTHER(images[..., 1:]), Feature(1), *probe), "its own error comes when it is read"


def test_functions_of_layers_are_contrasts():
    result = FeatureAccentuation(FIRST).accentuate(
        SECOND_X, 1, contrast=lambda seen: seen("1")[:, 2].mean((1, 2)), **OPTIONS
    )
    expected = FIRST(SECOND_X)[:, 1] - FIRST[1](FIRST[0](SECOND_X))[:, 2].mean((1, 2))
    torch.testing.assert_close(result.before, expected.detach())
    unit = NeuronFeatureAccentuation(FIRST, "1").accentuate(
        SECOND_X, 1, contrast=lambda a: a[:, 2].mean((1, 2)), **OPTIONS
    )
    hidden = FIRST[1](FIRST[0](SECOND_X)).mean((2, 3)).detach()
    torch.testing.assert_close(unit.before, hidden[:, 1] - hidden[:, 2])


def test_a_second_model_with_preprocess_does_not_use_the_firsts():
    model = ModelInputs(FIRST, NORMALISE)
    assert model.with_forward_func(OTHER).preprocess is NORMALISE
    assert model.with_forward_func(MODELS["classifier"]).preprocess is None


def test_the_second_models_flags_are_restored():
    FeatureAccentuation(FIRST).accentuate(SECOND_X, 1, contrast=MODELS["classifier"], **OPTIONS)
    assert all(p.requires_grad and p.grad is None for p in OTHER.parameters())


def test_a_transfer_that_is_not_a_model_raises():
    with pytest.raises(
        TypeError, match=r"transfer is 3; expected a second model: a torch.nn.Module, a function of images"
    ):
        FeatureAccentuation(FIRST).accentuate(SECOND_X, 1, transfer=3, **OPTIONS)
