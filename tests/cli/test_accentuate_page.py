"""The page, from results made by hand; the whole command is tested in test_accentuate.py."""

from types import SimpleNamespace

import pytest
import torch

from xinc_captum.attributions import Accentuation
from xinc_captum.cli.accentuate import write_page
from xinc_captum.cli.accentuate_results import AccentuationResults, FeatureResult
from xinc_captum.cli.inputs import InputPhoto
from xinc_captum.metrics.trust import Trust, judge_accentuation

PHOTO = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))


def told(*, layer=None, natural=None, second=None, reference=2.0, interrupted=False, steps=(2,), where=True):
    evidence = {"path": 0.6, "natural": 0.7, "transfer": -1.5, "high_frequency": 0.25}
    features = []
    for number, count in enumerate(steps):
        result = Accentuation(
            images=PHOTO[None].flip(-1), masks=PHOTO[None].clone(), seeds=PHOTO[None], scores=torch.ones(count, 1),
            distances=torch.ones(count, 1), before=torch.tensor([1.0]), after=torch.tensor([3.0]), dose=None,
            level=None, steps=count, interrupted=interrupted, feature="f", layer=layer, settings={},
            _assess=lambda _: Trust.of([judge_accentuation(**evidence)]),
        )  # fmt: skip
        asked = SimpleNamespace(title=f"thing {number}", unit="logit" if layer is None else "activation", layer=layer)
        classes = [] if layer else [("fox", 0.5), (f"thing {number}", 0.25)]
        place = torch.rand(24, 32) if where else None
        way = PHOTO.expand(2, 3, 24, 32)
        features.append(FeatureResult(asked, result, place, classes, classes, way, [2.0, 3.0], reference))
    return AccentuationResults(
        InputPhoto("the cat", PHOTO, {}), SimpleNamespace(name="tinynet"), features, natural, second
    )


@pytest.fixture
def page(tmp_path):
    def write(**results):
        write_page(tmp_path, told(**results))
        return (tmp_path / "index.html").read_text(), {p.name for p in tmp_path.iterdir()}

    return write


def test_classes(page):
    natural, second = SimpleNamespace(description="12 squares out of 3 photos"), SimpleNamespace(name="othernet")
    html, files = page(natural=natural, second=second)
    assert {"accentuated.png", "answers.png", "steps.png", "1_thing_0_way.png", "accentuation.safetensors"} <= files
    assert "What tinynet sees in the cat" in html and "32 x 24" in html and "othernet" in html
    assert "Grad-CAM, which shows where" in html and "score, of 12 squares out of 3 photos" in html
    assert "logit 1 → 3" in html and "−1.5" in html and "25 %" in html and "0.60" in html and ">fails<" in html
    assert "Only 2 % of the natural images exceed dose 1" in html and "Ctrl-C" not in html


def test_units(page, no_ink):
    html, files = page(layer="conv")
    assert "where the unit is active in it" in html and "answers.png" not in files
    assert (
        "There are no natural images to compare the path with" in html and "second network" in html and "none" in html
    )


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (None, "Doses need natural images"),
        (1.01, "give no scale of doses here (2 % of the natural images exceed 1.01, the photo has 1)"),
    ],
)
def test_without_a_scale_of_doses_scores_are_shown(page, no_ink, reference, words):
    assert words in page(reference=reference)[0]


def test_interrupted_runs_and_features_of_different_length(page, no_ink):
    html, files = page(interrupted=True, steps=(2, 5), where=False)
    assert "by Ctrl-C" in html and {"1_thing_0_way.png", "2_thing_1_way.png"} <= files
