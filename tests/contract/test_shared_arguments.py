"""An argument that all samples share may have as many rows as the batch: results equal those of the full batch."""

import pytest
import torch
from contract.methods import linked
from torch import nn

from xinc_captum import (
    Ablation,
    FeatureAccentuation,
    FeatureActivationMap,
    LayerContribution,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    WeightContribution,
    canvases,
)
from xinc_captum.attributions.accentuation import Crops
from xinc_captum.attributions.nern import NeRN


class Bank(nn.Module):
    """Scores of images against class embeddings that the caller gives, with a gain for each image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 5)

    def forward(self, x, bank, gain=None):
        x = self.relu(self.conv(x)).mean((2, 3))
        x = x if gain is None else x * gain[:, None]
        return torch.softmax(self.head(x) @ bank.T, 1) @ bank


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Bank().eval()


X = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
BANK = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
GAIN = torch.tensor([0.5, 1.0, 1.5, 2.0])
QUICK = {"n_steps": 2, "transforms": (Crops(2),), "regularizer": None}


def contribution(model, x, **cut):
    return LayerContribution(model, "relu").attribute(x, target=1, **cut)


def canvas(rule):
    return lambda model, x, **cut: NeuronCanvas(model, "relu", rule=rule).attribute(x, **cut)


def accentuation(model, x, **cut):
    found = FeatureAccentuation(model).accentuate(x, 1, **QUICK, **cut)
    return torch.cat([found.images.flatten(1), found.before[:, None], found.after[:, None]], 1)


def neuron_accentuation(model, x, **cut):
    return NeuronFeatureAccentuation(model, "head").accentuate(x, 1, **QUICK, **cut).images


def map_of_references(model, x, **cut):
    return FeatureActivationMap(model, "relu", torch.ones(1, 4)).attribute(x, **cut)


def unit(model, x, **cut):
    return linked(model, "relu").attribute(x, 2, **cut)


def sweep(model, x, **cut):
    return linked(model, "relu").sweep(x, 2, steps=2, **cut).scores


def weights(model, x, **cut):
    torch.manual_seed(0)
    nern = NeRN(model, ["conv"], hidden=6, levels=4)
    return WeightContribution(nern, "conv", mode="gradient").attribute(x, target=1, **cut)


CASES = {
    "LayerContribution": (contribution, {"internal_batch_size": 3}),
    **{
        f"NeuronCanvas {name}": (canvas(rule), {"memory_budget": 4000})
        for name, rule in {
            "tangent": "tangent",
            "ablation": "ablation",
            "mean": Ablation("mean"),
            "resample": Ablation("resample"),
        }.items()
    },
    "NeuronCanvas, several at once": (canvas("ablation"), {"perturbations_per_eval": 3}),
    "FeatureAccentuation": (accentuation, {"internal_batch_size": 2}),
    "NeuronFeatureAccentuation": (neuron_accentuation, {"internal_batch_size": 2}),
    "FeatureActivationMap": (map_of_references, {"internal_batch_size": 2}),
    "LinkedUnitVisualization": (unit, {"internal_batch_size": 2}),
    "LinkedUnitVisualization, sweep": (sweep, {"internal_batch_size": 3}),
    "WeightContribution": (weights, {"internal_batch_size": 2}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gain", [False, True], ids=["bank", "bank and gain"])
@pytest.mark.filterwarnings("ignore")
def test_cut_or_not_the_numbers_are_those_of_a_function_that_holds_the_bank(model, name, gain):
    explain, cut = CASES[name]
    args = (BANK, GAIN) if gain else (BANK,)
    held = Holds(model) if not gain else HoldsBank(model)
    rest = {"additional_forward_args": (GAIN,)} if gain else {}
    expected = explain(held, X, **rest)
    whole = explain(model, X, additional_forward_args=args)
    pieces = explain(model, X, additional_forward_args=args, **cut)
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pieces, expected, atol=1e-5, rtol=1e-4)


class Holds(nn.Module):
    """The same model with the bank inside; its layers have the same names."""

    def __init__(self, model):
        super().__init__()
        self.conv, self.relu, self.head = model.conv, model.relu, model.head

    def forward(self, x):
        return Bank.forward(self, x, BANK)


class HoldsBank(Holds):
    def forward(self, x, gain):
        return Bank.forward(self, x, BANK, gain)


@pytest.mark.filterwarnings("ignore")
def test_lazy_canvases_cut_their_own_way():
    torch.manual_seed(0)
    field, head = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 5)), nn.Linear(5, 3)
    points, bank = torch.rand(24, 2), torch.randn(24, 5)
    model = nn.ModuleDict({"field": field, "head": head})

    def shared(x, bank):
        return model["head"](torch.softmax(model["field"](x) @ bank.T, 1) @ bank)

    def holds(x):
        return shared(x, bank)

    expected = NeuronCanvas(holds, field[1]).canvas(points, (4, 6))
    for budget in (None, 3000):
        found = NeuronCanvas(shared, field[1]).canvas(
            points, (4, 6), additional_forward_args=(bank,), memory_budget=budget
        )
        torch.testing.assert_close(found.to_tensor(), expected.to_tensor(), atol=1e-5, rtol=1e-4)
        several = canvases(shared, [field[1]], points, (4, 6), additional_forward_args=(bank,), memory_budget=budget)
        torch.testing.assert_close(next(iter(several.values())).totals(), expected.totals(), atol=1e-5, rtol=1e-4)


def test_a_graph_of_all_samples_is_refused_when_it_would_be_sliced():
    net = nn.Linear(3, 2)

    def graph(x, adjacency):
        return torch.relu(net(adjacency @ x))

    x, adjacency = torch.rand(4, 3), torch.rand(4, 4)
    method = LayerContribution(graph, net)
    assert method.attribute(x, target=0, additional_forward_args=(adjacency,)).shape == (4, 2)
    with pytest.raises(ValueError, match="additional_forward_args hold tensors with as many rows as the 4 inputs"):
        method.attribute(x, target=0, additional_forward_args=(adjacency,), internal_batch_size=2)
