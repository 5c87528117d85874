"""Splitting holds out a share of each class and loses nothing."""

import pytest
import torch

from xinc_captum.attributions.linking import Pairs


def some(n=50):
    return Pairs(torch.rand(n, 3), torch.arange(n)[:, None].float(), torch.arange(n) % 5, torch.rand(n, 5), 1.0, {})


def test_split_is_class_by_class_and_whole():
    pairs = some()
    fit, held = pairs.split(0.2, seed=1)
    assert held.classes.bincount().tolist() == [2] * 5
    assert sorted([*fit.latents[:, 0].tolist(), *held.latents[:, 0].tolist()]) == list(range(50))
    assert torch.equal(pairs.split(0.2, seed=1)[1].latents, held.latents)
    assert not torch.equal(pairs.split(0.2, seed=2)[1].latents, held.latents)


def test_take():
    assert some().take(torch.tensor([4, 2])).latents[:, 0].tolist() == [4, 2]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="held_out is 1; wanted a share between 0 and 1"):
        some().split(1)
    with pytest.raises(ValueError, match="leaves one side empty; make more pairs"):
        some(5).split(0.1)
