"""Completeness at every layer of every kind of net."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import event, given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import NeuronCanvas, Secant
from xinc_captum.inr import FourierMLP, Siren
from xinc_captum.metrics import completeness_error, condition_number


class Skip(nn.Module):
    """Functional operations, a skip connection, a concatenation and a constant."""

    def __init__(self, width, depth, sigma):
        super().__init__()
        self.first = nn.Linear(2, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(2 * width + 1, 3)
        self.sigma = sigma

    def forward(self, x):
        z = first = self.sigma(self.first(x))
        for layer in self.layers:
            z = self.sigma(layer(z)) + z
        return self.last(torch.cat([z, 1 - 2 * first, torch.ones_like(x[:, :1])], 1))


SIGMAS = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "sine": lambda z: torch.sin(3 * z),
    "sigmoid": torch.sigmoid,
}


@given(
    kind=st.sampled_from(["skip", "ffn", "siren"]),
    sigma=st.sampled_from(sorted(SIGMAS)),
    width=st.integers(1, 9),
    depth=st.integers(1, 3),
    seed=st.integers(0, 999),
    double=st.booleans(),
)
def test_secant_is_complete_at_every_layer(kind, sigma, width, depth, seed, double):
    torch.manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    if kind == "skip":
        model = Skip(width, depth, SIGMAS[sigma])
        layers = ["first", *(f"layers.{i}" for i in range(depth))]
    elif kind == "ffn":
        sigma = sigma if sigma in ("relu", "gelu", "tanh", "sigmoid") else "softplus"
        model = FourierMLP(hidden=width, layers=depth + 1, activation=sigma)
        layers = [name for name, _ in model.named_children() if name != "output"]
    else:
        model = Siren(hidden=width, layers=depth + 1)
        layers = [name for name, _ in model.named_children() if name != "output"]
    model.to(dtype)
    x = torch.rand(6, 2, dtype=dtype) * 2 - 1
    for layer in layers:
        shares = NeuronCanvas(model, layer, rule=Secant()).attribute(x)
        output = model(x).detach()
        event(f"condition number 1e{round(condition_number(shares, output).median().log10().item())}")
        assert completeness_error(shares, output) <= (1e-12 if double else 1e-5)


def test_secant_equals_tangent_for_relu_and_differs_for_gelu():
    x = torch.rand(7, 2)
    for activation, same in (("relu", True), ("gelu", False)):
        model = FourierMLP(hidden=6, activation=activation, layers=4)
        secant = NeuronCanvas(model, "activation1", rule="secant").attribute(x)[:, :-1]
        tangent = NeuronCanvas(model, "activation1", rule="tangent").attribute(x)
        assert torch.allclose(secant, tangent, atol=1e-6) is same


def test_a_gate_by_halves_adds_up_and_by_hand():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 4)

        def forward(self, x):
            h = self.first(x)
            return torch.sigmoid(h[:, :2]) * h[:, 2:]

    model, x = Gate().double(), torch.rand(5, 2, dtype=torch.float64)
    shares = NeuronCanvas(model, "first", rule=Secant(products="halves")).attribute(x)
    h = model.first(x).detach()
    gate = torch.sigmoid(h[:, :2])
    torch.testing.assert_close(shares.sum(1), gate * h[:, 2:])
    torch.testing.assert_close(shares[:, 2, 0], h[:, 2] * gate[:, 0] / 2)
    torch.testing.assert_close(shares[:, 0, 0], (gate[:, 0] - 0.5) * h[:, 2] / 2)
    torch.testing.assert_close(shares[:, 4, 0], 0.5 * h[:, 2] / 2)
    with pytest.raises(ValueError, match='products=\'thirds\'; wanted "refuse" or "halves"'):
        Secant(products="thirds")


class Everything(nn.Module):
    """Every operation that the secant promises to carry, in one decoder."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.up, self.mix = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.pool, self.head, self.fc = nn.MaxPool2d(2, 1, 1), nn.Conv2d(3, 3, 1), nn.Linear(4, 4)
        self.norm.running_mean.copy_(torch.rand(4))

    def forward(self, x):
        h = self.norm(self.first(x))
        h = self.up(F.silu(h)) + F.interpolate(h, scale_factor=2, mode="bilinear")
        h = F.leaky_relu(h, 0.1, inplace=True)
        h = torch.cat([h, torch.sin(self.fc(h.movedim(1, 3)).movedim(3, 1))], 1)
        h = F.gelu(F.pixel_shuffle(self.mix(h), 2))
        h = F.avg_pool2d(self.pool(h), 2, 1).reshape(len(x), 3, -1).reshape(len(x), 3, *h.shape[2:])
        return torch.sigmoid(self.head(h))


@pytest.mark.parametrize("site", ["stem", "blocks.0.0", "blocks.0", "blocks.1.0", "blocks.1", "head"])
def test_secant_adds_up_at_every_block(decoder, site):
    model, t = decoder
    image = model(t).detach()
    shares = NeuronCanvas(model, site, rule="secant").attribute(t)
    assert (shares.sum(1) - image).abs().max() <= 1e-12 * image.abs().max()


@pytest.mark.parametrize("site", ["first", "norm", "up", "mix", "pool"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_secant_adds_up_through_everything(site, unit):
    if unit == "pair" and site in ("norm", "pool"):
        return
    model, x = Everything().double().eval(), torch.rand(2, 2, 3, 4, dtype=torch.float64)
    image = model(x).detach()
    shares = NeuronCanvas(model, site, rule="secant", unit=unit).attribute(x)
    assert (shares.flatten(1, -4).sum(1) - image).abs().max() <= 1e-12 * image.abs().max()


def test_constants_made_after_a_shape_change_no_share():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)), torch.rand(4, 2)

    def with_constants(x):
        y = net(x)
        return y + torch.zeros_like(y) + 2 * y.new_ones(y.shape) + torch.full_like(y, 0.5)

    plain = NeuronCanvas(net, "1", rule="secant").attribute(x)
    found = NeuronCanvas(with_constants, "1", rule="secant").attribute(x)
    torch.testing.assert_close(found[:, :-1], plain[:, :-1])
    torch.testing.assert_close(found[:, -1], plain[:, -1] + 2.5)
