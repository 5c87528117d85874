import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, NeuronFeatureAccentuation
from xinc_captum.hooks import check_preprocess, preprocesses
from xinc_captum.links import Encoder
from xinc_captum.zoo import Classifier, Normalise

NORMALISE = Normalise((0.5,), (0.5,))
NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2))
CLASSIFIER = Classifier("small", NET, NORMALISE, 6, ("a", "b"))


def test_classifiers_preprocess_and_modules_do_not():
    assert preprocesses(CLASSIFIER)
    assert not any(map(preprocesses, (NET, NET.forward, lambda x: NET(x), None)))
    check_preprocess(CLASSIFIER, None)
    check_preprocess(NET, NORMALISE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureAccentuation(CLASSIFIER, preprocess=NORMALISE),
        lambda: NeuronFeatureAccentuation(CLASSIFIER, "0", preprocess=NORMALISE),
        lambda: Encoder(CLASSIFIER, "2", preprocess=NORMALISE),
    ],
)
def test_normalising_twice_is_refused(make):
    with pytest.raises(
        ValueError, match="preprocess is given, and small preprocesses its images itself, so they would"
    ):
        make()


def test_alone_it_is_what_its_parts_are():
    x = torch.rand(1, 1, 6, 6)
    options = {"n_steps": 1, "transforms": ()}
    alone = FeatureAccentuation(CLASSIFIER).perturb(x, 1, **options)
    assert torch.equal(alone, FeatureAccentuation(NET, preprocess=NORMALISE).perturb(x, 1, **options))
