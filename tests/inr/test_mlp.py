import pytest
import torch
from torch import nn

from xinc_captum.inr import FourierMLP, HypoNet, Siren, load, pixel_centres, save
from xinc_captum.inr.mlp import ACTIVATIONS, Layers, activation_maker, seeded


def test_defaults_of_the_paper():
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
def test_seed_determines_weights_and_keeps_the_global_state(make):
    state = torch.get_rng_state()
    first, second, third = make(hidden=4, seed=1), make(hidden=4, seed=1), make(hidden=4, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.rand(3, 2)
    assert torch.equal(first(x), second(x))
    assert not torch.equal(first(x), third(x))
    assert type(first[:2]) is nn.Sequential


def test_siren_initial_weights_follow_the_paper():
    model = Siren(hidden=256, layers=4, omega=30.0)
    assert model.linear1.weight.abs().max() <= 1 / 2
    assert model.linear2.weight.abs().max() <= (6 / 256) ** 0.5 / 30
    hidden = model[:4](torch.rand(2000, 2) * 2 - 1)
    assert 0.6 < hidden.std() < 0.8, "sines of a wide Gaussian have a standard deviation near 0.7"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FourierMLP(layers=0), "layers is 0; expected at least 1"),
        (lambda: FourierMLP(activation="step"), "activation 'step' is unknown; expected one of relu, gelu"),
        (lambda: FourierMLP(encoding="hash"), "encoding 'hash' is unknown"),
        (lambda: Siren(layers=1), "layers is 1; expected at least 2"),
    ],
)
def test_invalid_settings_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_hyponet_modules_and_shapes():
    net = HypoNet(2, 3, hidden=16, layers=3, count=4)
    assert [name for name, _ in net.named_children()] == [
        "encoding", "linear1", "activation1", "linear2", "activation2", "output",
    ]  # fmt: skip
    assert [tuple(m.weight.shape) for m in net.linears().values()] == [(16, 16), (16, 16), (3, 16)]
    assert [tuple(m.weight.shape) for m in HypoNet(3, 2, layers=1, count=0).linears().values()] == [(2, 3)]


def test_published_size():
    """Five layers of 256 units on 256 features draw a colour: 263,939 parameters, as the original's base."""
    assert sum(p.numel() for p in HypoNet().parameters()) == 263_939


def test_round_trip(tmp_path):
    net = HypoNet(hidden=5, layers=3, count=2, highest=7.0, seed=0)
    save(net, tmp_path / "net", size=(4, 6))
    again = load(tmp_path / "net")
    where = pixel_centres((4, 6))
    assert again.size == (4, 6) and torch.equal(again.model(where), net(where))
    assert torch.equal(HypoNet(hidden=5, layers=3, count=2, highest=7.0, seed=0)(where), net(where))


def test_hyponet_needs_a_layer():
    with pytest.raises(ValueError, match="layers is 0; expected at least 1, the output layer"):
        HypoNet(layers=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_named_activations_are_nonlinear(name):
    bend = activation_maker(name)()
    assert not torch.allclose(bend(torch.tensor(-2.0)), -bend(torch.tensor(2.0))) or name == "tanh"


def test_other_activations():
    assert activation_maker(nn.Mish) is nn.Mish
    with pytest.raises(ValueError, match="activation 'step' is unknown; expected one of relu, gelu, .*elu"):
        activation_maker("step")


def test_slice_is_a_plain_sequential():
    class Own(Layers):
        def __init__(self):
            super().__init__(nn.ReLU(), nn.Tanh())

    assert type(Own()[:1]) is nn.Sequential
    assert isinstance(Own()[1], nn.Tanh)


def test_seeded_restores_the_state():
    state = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(2)
    assert torch.equal(torch.get_rng_state(), state)
    with seeded(3):
        assert torch.equal(torch.rand(2), first)
    with seeded(None):
        torch.rand(2)
    assert not torch.equal(torch.get_rng_state(), state)
