"""A second model, given as whatever models are given as: contrast= and transfer= take the same."""

from functools import partial

import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, NeuronFeatureAccentuation
from xinc_captum.attributions.accentuation.feature import OutputFeature, UnitFeature
from xinc_captum.attributions.accentuation.objectives import channel
from xinc_captum.attributions.accentuation.reading import Reader
from xinc_captum.attributions.accentuation.second import beside, is_model
from xinc_captum.zoo import Classifier, Normalise

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OPTIONS = {"n_steps": 2, "transforms": (), "regularizer": None}
NORMALISE = Normalise((0.5,) * 3, (0.2,) * 3)


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 3)).eval()


FIRST, OTHER = net(0), net(1)
MODELS = {
    "module": OTHER,
    "classifier": Classifier("other", OTHER, NORMALISE, 8, ("a", "b", "c")),
    "function": lambda images: OTHER(images),
    "method": OTHER.forward,
    "partial": partial(OTHER),
    "parallel": nn.DataParallel(OTHER),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_is_lowered(kind):
    """before = f(x) − g(x), each of the normalised images, once."""
    method = FeatureAccentuation(FIRST, preprocess=NORMALISE)
    found = method.accentuate(X, [1, 2], contrast=MODELS[kind], transfer=MODELS[kind], **OPTIONS)
    rows, classes = torch.arange(2), torch.tensor([1, 2])
    score = lambda model, images: model(NORMALISE(images))[rows, classes].detach()
    torch.testing.assert_close(found.before, score(FIRST, X) - score(OTHER, X))
    assert (found.after > found.before).all()
    gains = [row.transfer for row in found.trust.rows]
    torch.testing.assert_close(torch.tensor(gains), score(OTHER, found.images) - score(OTHER, X), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", MODELS)
def test_beside_a_unit_the_same_layer_is_lowered(kind):
    method = NeuronFeatureAccentuation(FIRST, "1", preprocess=NORMALISE)
    found = method.accentuate(X, 2, contrast=MODELS[kind], **OPTIONS)
    hidden = lambda model: model[1](model[0](NORMALISE(X)))[:, 2].mean((1, 2)).detach()
    torch.testing.assert_close(found.before, hidden(FIRST) - hidden(OTHER))


def test_functions_of_layers_and_of_an_activation_are_no_models():
    probe = lambda: (X[:1], ())
    for thing in (
        lambda seen: seen("1")[:, 0].mean((1, 2)),
        lambda seen: seen.output[:, 0],
        channel("1", 0),
        "1:2",
        3,
        [1, 2],
    ):
        assert not is_model(thing, OutputFeature(1), probe)
    for thing in (lambda a: a[:, 2].mean((1, 2)), lambda a: FIRST[1](a)[:, 0].sum((1, 2)), (1, 2, 2)):
        assert not is_model(thing, UnitFeature(FIRST[1], 1), probe)
    assert all(is_model(model, OutputFeature(1), probe) for model in MODELS.values())
    assert is_model(lambda images: OTHER(images[..., 1:]), OutputFeature(1), probe), (
        "its own error comes when it is read"
    )


def test_functions_still_lower_what_they_say():
    found = FeatureAccentuation(FIRST).accentuate(X, 1, contrast=lambda seen: seen("1")[:, 2].mean((1, 2)), **OPTIONS)
    expected = FIRST(X)[:, 1] - FIRST[1](FIRST[0](X))[:, 2].mean((1, 2))
    torch.testing.assert_close(found.before, expected.detach())
    unit = NeuronFeatureAccentuation(FIRST, "1").accentuate(X, 1, contrast=lambda a: a[:, 2].mean((1, 2)), **OPTIONS)
    hidden = FIRST[1](FIRST[0](X)).mean((2, 3)).detach()
    torch.testing.assert_close(unit.before, hidden[:, 1] - hidden[:, 2])


def test_a_model_of_its_own_preprocess_is_read_without_the_firsts():
    reader = Reader(FIRST, NORMALISE)
    assert beside(reader, OTHER).preprocess is NORMALISE
    assert beside(reader, MODELS["classifier"]).preprocess is None


def test_the_second_models_flags_are_restored():
    FeatureAccentuation(FIRST).accentuate(X, 1, contrast=MODELS["classifier"], **OPTIONS)
    assert all(p.requires_grad and p.grad is None for p in OTHER.parameters())


def test_a_transfer_that_is_no_model():
    with pytest.raises(
        TypeError, match=r"transfer is 3; wanted a second model: a torch.nn.Module, a function of images"
    ):
        FeatureAccentuation(FIRST).accentuate(X, 1, transfer=3, **OPTIONS)
