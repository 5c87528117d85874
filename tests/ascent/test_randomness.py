import functools
import random

import numpy as np
import pytest
import torch
from torch import nn

from xinc_captum.attributions.accentuation.randomness import generators_in, reseed, same_draws


def draw():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def test_global_generators_repeat_and_are_restored():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    drawn = []
    for seed in (3, 3, 4):
        with same_draws(seed):
            drawn.append(draw())
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all() and states[2] == random.getstate()


@pytest.mark.parametrize("seed", [-1, 0, 2**33 + 5])
def test_any_int_is_a_seed(seed):
    with same_draws(0):
        reseed(seed)
        first = draw()
        reseed(seed)
        assert draw() == first


def test_states_are_restored_after_an_exception():
    own = np.random.default_rng(7)
    expected, state = np.random.default_rng(7).random(), torch.get_rng_state()
    with pytest.raises(KeyError), same_draws(0, [own]):
        own.random()
        torch.rand(3)
        raise KeyError
    assert own.random() == expected and torch.equal(state, torch.get_rng_state())


GENERATORS = {
    "numpy": (lambda: np.random.default_rng(5), lambda g: g.random()),
    "legacy": (lambda: np.random.RandomState(5), lambda g: g.rand()),
    "python": (lambda: random.Random(5), lambda g: g.random()),
    "torch": (lambda: torch.Generator().manual_seed(5), lambda g: float(torch.rand((), generator=g))),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_of_ones_own(kind):
    make, value = GENERATORS[kind]
    own, drawn = make(), []
    for _ in range(2):
        with same_draws(1, [own]):
            drawn.append(value(own))
    assert drawn[0] == drawn[1]
    assert value(own) == value(make()), "its own stream goes on where it was"


class Shaky(nn.Module):
    def __init__(self, rng):
        super().__init__()
        self.steps = nn.ModuleList([nn.Identity()])
        self.parts = {"rng": [rng]}

    def forward(self, x):
        return x + self.parts["rng"][0].random()


class Caller:
    def __init__(self, rng):
        self.rng = rng

    def __call__(self, x):
        return x + self.rng.random()

    def shifted(self, x):
        return self(x)


RNG = np.random.default_rng(2)


def from_a_global(x):
    return x + RNG.random()


class FromAGlobal:
    def __call__(self, x):
        return from_a_global(x)


def test_where_generators_are_found():
    own = np.random.default_rng(0)
    held = [
        lambda x: x + own.random(),
        lambda x, rng=own: x + rng.random(),
        functools.partial(lambda rng, x: x + rng.random(), own),
        Caller(own),
        Caller(own).shifted,
        nn.Sequential(Shaky(own)),
        [Caller(own), None, 3],
        own.random,
    ]
    for thing in held:
        assert generators_in(thing) == [own], thing
    assert generators_in(from_a_global, FromAGlobal()) == [RNG]
    assert generators_in(lambda x: torch.rand(()) * np.float32(1), nn.Conv2d(1, 1, 1), None, "x") == []
