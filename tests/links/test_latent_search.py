"""Searching finds the latent that a link misses, and never ends worse than it began."""

import pytest
import torch
from torch import nn

from xinc_captum.attributions.linking import Encoder, latent_search
from xinc_captum.generators import from_callable, normal_latents


def test_it_finds_the_representation_and_touches_nothing(found):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3)).eval()
    basis = torch.randn(4, 16)
    paint = from_callable(lambda w: (w @ basis).sigmoid().view(-1, 1, 4, 4), normal_latents(4))
    encode = Encoder(net, "4")
    truth = torch.randn(6, 4)
    r = encode(paint.synthesize(truth))
    start = truth + 0.5 * torch.randn(6, 4)
    record = found(net)
    done = latent_search(encode, paint, r, start, scale=r.std(0), steps=150)
    assert record.differences(net) == []
    assert (done.errors < 0.05 * done.before).all()
    stuck = latent_search(encode, paint, r, truth, scale=r.std(0), steps=3, lr=100.0)
    assert torch.equal(stuck.latents, truth)
    assert (stuck.errors <= stuck.before).all()


def test_a_generator_in_training_is_left_as_found(found):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Sigmoid()).train()
    paint = from_callable(lambda w: net(w + 0.1 * torch.rand_like(w)).view(-1, 1, 2, 2), normal_latents(4))
    encode = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1")
    r, start = torch.rand(3, 4), torch.randn(3, 4)
    record = found(net)
    latent_search(encode, paint, r, start, scale=torch.ones(4), steps=2)
    assert record.differences(net) == []


def test_dead_units_do_not_count():
    paint = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
    encode = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1")
    r = torch.tensor([[0.5, 0.5, 0.5, 9.0]])
    done = latent_search(encode, paint, r, torch.zeros(1, 4), scale=torch.tensor([1.0, 1.0, 1.0, 0.0]), steps=2)
    assert float(done.before) == 0


def test_what_it_refuses():
    blind = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4), differentiable=False)
    encode = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1")
    with pytest.raises(ValueError, match="the generator says that it is not differentiable"):
        latent_search(encode, blind, torch.ones(1, 4), torch.ones(1, 4), scale=torch.ones(4))
    seeing = from_callable(lambda w: w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))
    with pytest.raises(ValueError, match="steps is 0"):
        latent_search(encode, seeing, torch.ones(1, 4), torch.ones(1, 4), scale=torch.ones(4), steps=0)
