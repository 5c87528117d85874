"""Canvases of several layers of one forward equal those of one layer at a time, and run the model less often."""

import pytest
import torch

from xinc_captum import LayerError, NeuronCanvas, Secant
from xinc_captum.attributions import FrameCanvas, canvases
from xinc_captum.inr import FourierMLP, Siren, coordinates, ray_samples, ray_weights

SIZE = (5, 6)


class Counted(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.counts = model, [0]  # an attribute would be restored after each explanation

    def forward(self, x):
        self.counts[0] += len(x)
        return self.model(x)


def both_ways(model, layers, x, size, ask, **kwargs):
    counted = Counted(model)
    own = {k: kwargs.pop(k) for k in ("rule", "unit", "render") if k in kwargs}
    alone = {n: ask(NeuronCanvas(counted, n, **own).canvas(x, size, **kwargs)) for n in layers}
    rows, counted.counts[0] = counted.counts[0], 0
    together = {n: ask(c) for n, c in canvases(counted, layers, x, size, **own, **kwargs).items()}
    assert list(together) == layers
    for name in layers:
        torch.testing.assert_close(together[name], alone[name], atol=1e-12, rtol=1e-9)
    return rows, counted.counts[0]


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize(
    "model", [FourierMLP(hidden=6, seed=0), Siren(hidden=6, layers=4, seed=0)], ids=["relu", "sine"]
)
def test_pictures(rule, model):
    layers = ["model.activation2", "model.activation1", "model.linear2"]
    x = coordinates(SIZE, dtype=torch.float64)
    alone, together = both_ways(model.double(), layers, x, SIZE, lambda c: c.to_tensor(), rule=rule)
    if rule != "ablation":
        assert together <= alone - 2 * len(x), "30 rows run once instead of three times"


@pytest.mark.parametrize("rule", ["tangent", "secant", "xinc"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_frames(decoder, rule, unit):
    if rule == "xinc" and unit == "neuron":
        return
    model, t = decoder
    layers = ["model.blocks.0.0", "model.head", "model.blocks.1.0"]
    kwargs = {"rule": rule, "unit": unit, "attribute_to_layer_input": rule == "xinc"}
    alone, together = both_ways(model, layers, t, (8, 12), lambda c: c.to_tensor(), **kwargs)
    if rule != "xinc":
        assert together <= alone - 2 * len(t)
    seen = canvases(model, [model.blocks[0][0], "head"], t, (8, 12), **kwargs)
    assert list(seen) == ["blocks.0.0", "head"] and all(isinstance(c, FrameCanvas) for c in seen.values())
    weights = torch.ones(1, 8, 12)
    own = NeuronCanvas(model, "head", rule=rule, unit=unit).canvas(t, (8, 12), attribute_to_layer_input=rule == "xinc")
    torch.testing.assert_close(seen["head"].regions(weights, signed=True), own.regions(weights, signed=True))


@pytest.mark.parametrize("budget", [None, 20_000])
def test_asked_in_turns(budget):
    model, x = FourierMLP(hidden=6, seed=0).double(), coordinates(SIZE, dtype=torch.float64)
    layers = ["activation1", "activation2"]
    seen = canvases(model, layers, x, SIZE, rule="secant", memory_budget=budget)
    for _ in range(2):
        for name in layers:
            whole = NeuronCanvas(model, name, rule="secant").attribute(x)
            torch.testing.assert_close(seen[name].map(2), whole[:, 2].T.reshape(3, *SIZE))
            torch.testing.assert_close(seen[name].map(6), whole[:, 6].T.reshape(3, *SIZE))


def test_a_network_with_a_skip_and_one_with_in_place_operations():
    class Skip(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Linear(2, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 3))

        def forward(self, x):
            h = torch.relu_(self.a(x))
            return self.c(torch.sin(self.b(h)).add_(h))

    x = coordinates(SIZE, dtype=torch.float64)
    for rule in ("tangent", "secant"):
        both_ways(Skip().double(), ["model.a", "model.b"], x, SIZE, lambda c: c.to_tensor(), rule=rule)


def test_fewer_units_than_channels():
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Tanh(), torch.nn.Linear(1, 5)).double()
    x = coordinates(SIZE, dtype=torch.float64)
    both_ways(model, ["model.0", "model.1"], x, SIZE, lambda c: c.to_tensor(), rule="secant")


def test_rendered_fields():
    points = ray_samples(SIZE, 4, dtype=torch.float64)
    render = lambda seen, _points: (ray_weights(seen[..., :1] ** 2, 0.5) * seen[..., 1:]).sum(1)
    field = Siren(3, 4, hidden=6, layers=3, seed=0).double()
    layers = ["model.activation1", "model.activation2"]
    kwargs = {"rule": Secant(products="halves"), "render": render}
    alone, together = both_ways(field, layers, points, SIZE, lambda c: c.totals(), **kwargs)
    assert together < alone


def test_what_cannot_be_asked(found):
    model, x = FourierMLP(hidden=5), coordinates(SIZE)
    state = found(model)
    for layers, error, text in [
        ([], ValueError, r"layers are \[\]; wanted at least one"),
        (["linear1", model.linear1], ValueError, "each only once"),
        (["linear1", "linear9"], LayerError, "'linear9' is not in the model"),
    ]:
        with pytest.raises(error, match=text):
            canvases(model, layers, x, SIZE)
    canvases(model, ["linear1", "linear2"], x, SIZE)["linear2"].totals()
    assert state.differences(model) == []
