import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, NeuronFeatureAccentuation
from xinc_captum.attributions.accentuation.assessing import path_of
from xinc_captum.attributions.accentuation.early import spaced_layers
from xinc_captum.attributions.accentuation.feature import OutputFeature
from xinc_captum.attributions.accentuation.reading import Reader
from xinc_captum.metrics.trust import high_frequency_energy

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
CALM = {"n_steps": 4, "lr": 0.05, "optimizer": torch.optim.Adam, "transforms": (), "regularizer": None}


def test_a_path_by_hand(hand_net):
    """x=(2,1) → a=(3,4) → y0 = 5·3 − 1·4 + 7: activation times gradient is (15, −4)."""
    net, x = hand_net
    (first, second) = path_of(Reader(net), OutputFeature(0), [net[0], net[1]], x, lambda count: ())
    assert first.tolist() == second.tolist() == [[15.0, -4.0]]


def test_the_evidence(smooth):
    natural = torch.rand(6, 3, 12, 12)
    other = copy.deepcopy(smooth)
    found = FeatureAccentuation(smooth).accentuate(X, target=[1, 2], natural=natural, transfer=other, **CALM)
    trust = found.trust
    assert len(trust.rows) == 2
    for row, evidence in enumerate(trust.rows):
        assert evidence.gained == pytest.approx(float(found.after[row] - found.before[row]))
        assert evidence.transfer == pytest.approx(evidence.gained, rel=1e-3), "the second model is a copy"
        change = found.images[row : row + 1] - X[row : row + 1]
        assert evidence.high_frequency == pytest.approx(float(high_frequency_energy(change)), abs=1e-4)
        assert evidence.path > 0.9 and evidence.natural > 0.9 and evidence.seed > 0.9, "nearly linear, one path"
        assert evidence.shuffled < evidence.path
    verdicts = ("holds", "weak", "fails")
    assert trust.verdict == max((row.verdict for row in trust.rows), key=verdicts.index)


def test_without_pictures_there_is_less_to_go_by(smooth):
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


def test_an_image_that_did_not_change_gained_nothing_whatever_rounding_says(smooth):
    natural = {"natural": torch.rand(6, 3, 12, 12), "transfer": copy.deepcopy(smooth)}
    still = FeatureAccentuation(smooth).accentuate(X[:1], target=1, dose=0, **natural)
    row = replace(still, after=still.before + 1e-7).trust.rows[0]
    assert (row.verdict, row.gained) == ("weak", 0)


def test_what_is_suppressed_falls_in_a_second_model_too(smooth):
    options = CALM | {"n_steps": 30}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = FeatureAccentuation(smooth).accentuate(X[:1], 1, dose=-0.2, transfer=copy.deepcopy(smooth), **options)
    row = found.trust.rows[0]
    assert found.after[0] < found.before[0]
    assert row.gained == pytest.approx(float(found.before[0] - found.after[0])) and row.gained > 0
    assert row.transfer == pytest.approx(row.gained, rel=1e-3) and "does not see it" not in row.because


def test_a_direction_a_row_is_judged_row_by_row(smooth):
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
    found = NeuronFeatureAccentuation(smooth, "1").accentuate(X, 2, transfer=other, natural=X, **CALM)
    assert found.trust.rows[0].transfer == pytest.approx(found.trust.rows[0].gained, rel=1e-3)


def test_the_weights_are_shuffled_in_a_copy(smooth, found):
    before = found(smooth)
    answer = FeatureAccentuation(smooth).accentuate(X, target=1, natural=X, **CALM)
    first = answer.trust.rows[0].shuffled
    assert before.differences(smooth) == []
    again = FeatureAccentuation(smooth).accentuate(X, target=1, natural=X, **CALM)
    assert again.trust.rows[0].shuffled == first


def test_layers_lie_before_the_unit(smooth):
    reader = Reader(smooth)
    layers = spaced_layers(reader, X, (), (smooth[3],))
    assert layers and all(layer in (smooth[0], smooth[1], smooth[2]) for layer in layers)


@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_any_wrapper(smooth, wrap):
    with torch.inference_mode():
        there = copy.deepcopy(smooth)
    for net in (smooth, there):
        answer = FeatureAccentuation(wrap(net)).accentuate(X, target=1, natural=X, **CALM)
        plain = FeatureAccentuation(smooth).accentuate(X, target=1, natural=X, **CALM)
        torch.testing.assert_close(answer.images, plain.images, atol=1e-6, rtol=0)
        assert answer.trust.rows[0].path == pytest.approx(plain.trust.rows[0].path, abs=1e-4)
        assert answer.trust.rows[0].shuffled == pytest.approx(plain.trust.rows[0].shuffled, abs=1e-4)
