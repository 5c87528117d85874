from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from xinc_captum.attributions import Accentuation
from xinc_captum.cli.accentuate_results import (
    AccentuationResults,
    FeatureResult,
    format_number,
    select_features,
    write_images,
)
from xinc_captum.cli.command import UsageError
from xinc_captum.cli.inputs import InputPhoto
from xinc_captum.cli.models import Network
from xinc_captum.metrics.trust import Trust, judge_accentuation
from xinc_captum.zoo import Classifier


@pytest.fixture
def network():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Network(Classifier("tiny", model.eval(), lambda x: 2 * x, 8, ("fox", "lion", "lynx")), 8)


VIEW = torch.rand(1, 3, 8, 8)


def test_a_class_is_scored_by_its_logit(network):
    (one,) = select_features(network, ["lion"], [], [])
    assert (one.title, one.index, one.layer, one.unit) == ("lion", 1, None, "logit")
    torch.testing.assert_close(one.scores(VIEW), network.classifier(VIEW)[:, 1].detach())
    assert one.where(VIEW, (5, 6)).shape == (5, 6)


def test_a_unit_is_scored_by_its_mean_and_located_by_its_activation(network):
    (one,) = select_features(network, [], ["1"], [2])
    active = network.classifier.model[:2](2 * VIEW).detach()[:, 2]
    torch.testing.assert_close(one.scores(VIEW), active.mean((1, 2)))
    torch.testing.assert_close(one.where(VIEW, (8, 8)), active[0])
    assert (one.title, one.unit) == ("1, unit 2", "mean activation")


def test_many_images_are_scored_in_batches(network):
    (one,) = select_features(network, ["0"], [], [])
    views = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(one.scores(views, batch_size=2), one.scores(views))


def test_a_network_without_feature_maps_gives_no_location():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    flat = Network(Classifier("flat", model, lambda x: x, 8, ("a", "b", "c")), 8)
    assert select_features(flat, ["a"], [], [])[0].where(VIEW, (8, 8)) is None
    assert select_features(flat, [], ["1"], [0])[0].where(VIEW, (8, 8)) is None


def test_a_network_without_classes_needs_units(network):
    nameless = Network(Classifier("image", nn.Conv2d(3, 3, 1), lambda x: x, 8, ()), None)
    with pytest.raises(UsageError, match=r"output of image is not \(images, classes\).*give --layer and --unit"):
        select_features(nameless, ["0"], [], [])


def accentuation(before=1.0, after=3.0):
    photo = torch.rand(1, 3, 6, 8)
    return Accentuation(
        images=photo, masks=photo.abs(), seeds=photo, scores=torch.ones(2, 1), distances=None,
        before=None if before is None else torch.tensor([before]), after=torch.tensor([after]), dose=None, level=None,
        steps=2, interrupted=False, feature="logit 1", layer=None, settings={}, _assess=lambda _: Trust.of([judge_accentuation()]),
    )  # fmt: skip


def feature(before=1.0, after=3.0, reference=2.0, title="Red fox, Vulpes!"):
    asked = SimpleNamespace(title=title, unit="logit", layer=None)
    scores = [2.0, 3.0]
    return FeatureResult(
        asked, accentuation(before, after), torch.ones(6, 8), [], [], torch.rand(2, 3, 6, 8), scores, reference
    )


def test_doses_by_hand():
    """From 1, the dose-1 score is 2: scores of 2 and 3 are doses 1 and 2."""
    one = feature()
    assert one.endpoints == (1.0, 3.0) and one.line == "logit 1 → 3" and one.doses == [1.0, 2.0]
    assert feature(reference=None).doses is None
    assert feature(reference=1.1).doses is None, "20 doses are beyond the scale"
    assert feature(reference=1.25).doses == [4.0, 8.0]
    assert feature(reference=0.5).doses is None, "the photo is beyond dose 1 already"


def test_without_a_photo_there_is_no_score_before():
    before, after = feature(before=None).endpoints
    assert before != before and after == 3.0


def test_file_names_are_ascii():
    assert feature().file(2) == "2_red_fox_vulpes"
    assert feature(title="é1 " + "a" * 60).file(1) == "1_1_" + "a" * 38


def test_the_manifest_has_numbers_and_verdict():
    numbers = feature().numbers()
    assert (numbers["before"], numbers["after"], numbers["steps"], numbers["interrupted"]) == (1.0, 3.0, 2, False)
    assert numbers["verdict"] == "weak" and numbers["because"].startswith("no natural images were given")


def test_all_results_are_stored(tmp_path):
    one, photo = feature(), torch.rand(3, 6, 8)
    write_images(tmp_path, AccentuationResults(InputPhoto("cat", photo, {}), None, [one], None, None))
    kept = load_file(tmp_path / "accentuation.safetensors")
    assert torch.equal(kept["photo"], photo) and torch.equal(kept["1_red_fox_vulpes.image"], one.result.images[0])
    assert "1_red_fox_vulpes.distances" not in kept, "there were none"
    with Image.open(tmp_path / "1_red_fox_vulpes_through_mask.png") as through:
        assert through.mode == "RGBA" and through.size == (8, 6)


@pytest.mark.parametrize(
    ("number", "said"), [(-0.734, "−0.73"), (0.0, "0.00"), (1234.5, "1.23e+03"), (-12.34, "−12.3"), (1, "1")]
)
def test_numbers(number, said):
    assert format_number(number) == said
    assert format_number(12.34, plus=True) == "+12.3"
