import pytest
import torch
from torch import nn

from xinc_captum.inr.layers import ACTIVATIONS, Layers, activation_maker, seeded


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_name_bend(name):
    bend = activation_maker(name)()
    assert not torch.allclose(bend(torch.tensor(-2.0)), -bend(torch.tensor(2.0))) or name == "tanh"


def test_activations_of_ones_own():
    assert activation_maker(nn.Mish) is nn.Mish
    with pytest.raises(ValueError, match="activation 'step' is unknown; wanted one of relu, gelu, .*elu"):
        activation_maker("step")


def test_a_slice_is_a_plain_chain():
    class Own(Layers):
        def __init__(self):
            super().__init__(nn.ReLU(), nn.Tanh())

    assert type(Own()[:1]) is nn.Sequential
    assert isinstance(Own()[1], nn.Tanh)


def test_seeded_puts_the_state_back_and_none_does_nothing():
    state = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), state)
    with seeded(3):
        assert torch.equal(torch.rand(2), first)
    with seeded(None):
        torch.rand(2)
    assert not torch.equal(torch.get_rng_state(), state)
