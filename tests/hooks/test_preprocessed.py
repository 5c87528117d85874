import warnings

import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, NeuronFeatureAccentuation
from xinc_captum.attributions.linking import Encoder
from xinc_captum.hooks import check_preprocess, cropped_to, preprocesses
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


def test_what_a_crop_leaves():
    x = torch.rand(2, 3, 40, 20)
    assert cropped_to(lambda y: y[..., 6:-3, 5:], x) == ((6, 36), (5, 19))
    assert cropped_to(lambda y: y[..., 6:-3, 5:].mul_(2), x) == ((6, 36), (5, 19))
    for whole in (
        lambda y: (y - 0.5) / 0.2,
        lambda y: nn.functional.avg_pool2d(y, 2),
        lambda y: y.detach(),
        lambda y: 3,
    ):
        assert cropped_to(whole, x) is None


def test_a_cropping_preprocess_is_said_and_its_mask_is_right():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    x, options = torch.rand(1, 3, 20, 20), {"n_steps": 2, "transforms": ()}
    crop = lambda y: y[..., 4:16, 4:16]
    text = "preprocess looks at rows 4 to 15 and columns 4 to 15 of images of 20 x 20 pixels only"
    with pytest.warns(UserWarning, match=text):
        found = FeatureAccentuation(net, preprocess=crop).accentuate(x, 1, **options)
    assert torch.equal(found.masks[..., 4:16, 4:16] > 0, torch.ones(1, 3, 12, 12, dtype=torch.bool))
    assert float(found.masks.sum()) == pytest.approx(float(found.masks[..., 4:16, 4:16].sum()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FeatureAccentuation(net, preprocess=lambda y: y * 2, size=12).accentuate(x, 1, **options)
