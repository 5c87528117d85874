"""Intervals hold what they should, as often as they should."""

import math

import pytest
import torch

from xinc_captum.metrics import flipped, mean_interval, ratio_interval
from xinc_captum.metrics.bootstrap import Interval


def test_the_interval_of_a_share_is_about_two_standard_errors():
    hits = (torch.arange(400) % 4 > 0).float()
    found = ratio_interval(hits, torch.ones(400))
    assert found.value == 0.75
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert found.low == pytest.approx(0.75 - half, abs=0.01)
    assert found.high == pytest.approx(0.75 + half, abs=0.01)


def test_it_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for seed in range(100):
        hits = (torch.rand(100, generator=generator) < 0.6).float()
        found = ratio_interval(hits, torch.ones(100), level=0.9, repeats=200, seed=seed)
        inside += found.low <= 0.6 <= found.high
    assert 80 <= inside <= 97


def test_seed_flip_and_text():
    rows = torch.rand(30, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(30)
    assert ratio_interval(rows, ones, seed=1) == ratio_interval(rows, ones, seed=1)
    assert ratio_interval(rows, ones, seed=1) != ratio_interval(rows, ones, seed=2)
    assert str(flipped(Interval(0.2, 0.1, 0.4))) == "0.80 [0.60, 0.90]"


def test_what_it_refuses():
    with pytest.raises(ValueError, match="wanted the same"):
        ratio_interval(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="level is 1; wanted a share"):
        ratio_interval(torch.ones(3), torch.ones(3), level=1)
    with pytest.raises(ValueError, match="repeats is 0; wanted at least 1 resample"):
        ratio_interval(torch.ones(3), torch.ones(3), repeats=0)


def test_resamples_with_nothing_below_the_line_are_left_out():
    seldom = torch.tensor([0.0, 0.0, 1.0])  # no resample of three rows is sure to hold the third
    found = ratio_interval(seldom * 2, seldom)
    assert found == (2.0, 2.0, 2.0)
    assert all(end != end for end in ratio_interval(torch.zeros(2), torch.zeros(2)))


def test_means_are_over_what_is_a_number():
    found = mean_interval(torch.tensor([1.0, torch.nan, 3.0, torch.inf]))
    assert found == (2.0, 1.0, 3.0), "two values: both ends are resamples of one of them"
    assert math.isnan(mean_interval(torch.tensor([torch.nan])).low)
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    error = 1.96 * float(values.std()) / 20
    assert mean_interval(values).high == pytest.approx(float(values.mean()) + error, abs=0.02)


def test_one_number_has_no_interval():
    found = mean_interval(torch.tensor([2.0, torch.nan]))
    assert found.value == 2 and math.isnan(found.low) and math.isnan(found.high)
