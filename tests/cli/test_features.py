import pytest
import torch
from torch import nn

from xinc_captum.cli.failures import UsageError
from xinc_captum.cli.features import features_called
from xinc_captum.cli.network import Network
from xinc_captum.zoo import Classifier


@pytest.fixture
def network():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Network(Classifier("tiny", model.eval(), lambda x: 2 * x, 8, ("fox", "lion", "lynx")), 8)


VIEW = torch.rand(1, 3, 8, 8)


def test_a_class_is_scored_by_its_logit(network):
    (one,) = features_called(network, ["lion"], [], [])
    assert (one.title, one.index, one.layer, one.unit) == ("lion", 1, None, "logit")
    torch.testing.assert_close(one.scores(VIEW), network.classifier(VIEW)[:, 1].detach())
    assert one.where(VIEW, (5, 6)).shape == (5, 6)


def test_a_unit_is_scored_by_its_mean_and_found_where_it_is_active(network):
    (one,) = features_called(network, [], ["1"], [2])
    active = network.classifier.model[:2](2 * VIEW).detach()[:, 2]
    torch.testing.assert_close(one.scores(VIEW), active.mean((1, 2)))
    torch.testing.assert_close(one.where(VIEW, (8, 8)), active[0])
    assert (one.title, one.unit) == ("1, unit 2", "mean activation")


def test_many_images_are_scored_a_few_at_a_time(network):
    (one,) = features_called(network, ["0"], [], [])
    views = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(one.scores(views, at_once=2), one.scores(views))


def test_a_network_without_maps_says_no_where():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    flat = Network(Classifier("flat", model, lambda x: x, 8, ("a", "b", "c")), 8)
    assert features_called(flat, ["a"], [], [])[0].where(VIEW, (8, 8)) is None
    assert features_called(flat, [], ["1"], [0])[0].where(VIEW, (8, 8)) is None


def test_a_network_without_classes_wants_units(network):
    nameless = Network(Classifier("image", nn.Conv2d(3, 3, 1), lambda x: x, 8, ()), None)
    with pytest.raises(UsageError, match=r"image does not answer \(images, classes\).*give --layer and --unit"):
        features_called(nameless, ["0"], [], [])
