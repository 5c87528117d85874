import pytest
import torch
from torch import nn

from xinc_captum.inr import FourierMLP, Siren


def test_the_defaults_are_the_papers():
    model = FourierMLP()
    assert sum(p.numel() for p in model.parameters()) == 32_971
    assert [n for n, _ in model.named_children()] == [
        "encoding",
        "linear1",
        "activation1",
        "linear2",
        "activation2",
        "output",
    ]
    assert model.activation1 is not model.activation2, "each can be captured"


@pytest.mark.parametrize("make", [FourierMLP, Siren])
def test_the_seed_decides_and_leaves_torchs_own_alone(make):
    state = torch.get_rng_state()
    first, second, third = make(hidden=4, seed=1), make(hidden=4, seed=1), make(hidden=4, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(3, 2)
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), third(x))
    assert type(first[:2]) is nn.Sequential


def test_siren_starts_as_its_paper():
    model = Siren(hidden=256, layers=4, omega=30.0)
    assert model.linear1.weight.abs().max() <= 1 / 2
    assert model.linear2.weight.abs().max() <= (6 / 256) ** 0.5 / 30
    hidden = model[:4](torch.rand(2000, 2) * 2 - 1)
    assert 0.6 < hidden.std() < 0.8, "sines of a wide Gaussian have a standard deviation near 0.7"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FourierMLP(layers=0), "layers is 0; wanted at least 1"),
        (lambda: FourierMLP(activation="step"), "activation 'step' is unknown; wanted one of relu, gelu"),
        (lambda: FourierMLP(encoding="hash"), "encoding 'hash' is unknown"),
        (lambda: Siren(layers=1), "layers is 1; wanted at least 2"),
    ],
)
def test_impossible_networks(make, text):
    with pytest.raises(ValueError, match=text):
        make()
