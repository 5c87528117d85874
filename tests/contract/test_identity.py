"""The model keeps its own parameters and buffers, the same objects in every place, after every public call."""

import pytest
import torch
from contract.methods import Broken, Net, attribute, every
from torch import nn

from xinc_captum import (
    FeatureAccentuation,
    LayerContribution,
    NeuronCanvas,
    WeightContribution,
    canvases,
    compare,
)
from xinc_captum.attributions.nern import NeRN
from xinc_captum.inr import coordinates


class Shared(Net):
    """The classifier of the contract, with a module under two names and a weight and a buffer in two places."""

    def __init__(self):
        super().__init__()
        self.again, self.spare = self.conv, nn.BatchNorm2d(4)
        self.spare.weight = self.norm.weight
        self.spare.running_mean = self.norm.running_mean
        self.more = nn.ModuleList([self.fc, nn.Sequential(self.norm)])

    def forward(self, x, scale=1.0):
        return super().forward(self.spare.running_mean[:, None, None].sum() + x, scale)


@pytest.fixture
def shared():
    torch.manual_seed(3)
    return Shared().eval()


@every
@pytest.mark.parametrize("layer", ["conv", "again", "norm", "relu", "fc"])
def test_attribute_at_layers_with_and_without_weights(method, shared, x, found, layer):
    at = {"layer": layer, "no layer": None}["no layer" if "no layer" in method.promises else "layer"]
    if method.name.startswith(("Linked", "WeightC", "FeatureActivationMap")) or method.name == "NeuronCanvas xinc":
        at = None  # they are built for one kind of layer
    before = found(shared)
    method.on(shared, at).attribute(x, **method.of(1))
    assert before.differences(shared) == []


@every
def test_attribute_through_a_function_and_after_an_exception(method, shared, x, found):
    handle = shared.flat.register_forward_hook(lambda *_: (_ for _ in ()).throw(Broken))
    before = found(shared)
    with pytest.raises(Broken):
        attribute(method, shared, x)
    assert before.differences(shared) == []
    handle.remove()


@every
def test_a_backward_pass_around_the_explanation(method, shared, x):
    loss = shared(x).sum()
    attribute(method, shared, x)
    loss.backward()
    assert shared.conv.weight.grad.abs().sum() > 0


class Inr(nn.Sequential):
    """Three linear layers; the last is registered twice, two share a weight."""

    def __init__(self, activation=nn.ReLU):
        super().__init__(nn.Linear(2, 4), activation(), nn.Linear(4, 4), activation(), nn.Linear(4, 4), nn.Linear(4, 3))
        self[4].weight = self[2].weight
        self.__dict__["last"] = self[5]
        self.add_module("tail", nn.Identity())
        self.tail.of = self[5]


QUERIES = {
    "map": lambda canvas: canvas.map(0),
    "totals": lambda canvas: canvas.totals(),
    "top_units": lambda canvas: canvas.top_units(k=2),
    "trust": lambda canvas: canvas.trust,
}


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize("layer", ["0", "1", "2", "4"])
def test_canvases_and_their_queries(found, rule, layer):
    model, xy = Inr(), coordinates((4, 5))
    before = found(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    canvas = NeuronCanvas(model, layer, rule=rule).canvas(xy, (4, 5))
    assert before.differences(model) == []
    expected = canvas.map(1).clone()
    for query in QUERIES.values():
        query(canvas)
        assert before.differences(model) == []
    together = canvases(model, [layer, "3"], xy, (4, 5), rule=rule)
    [query(together[layer]) for query in QUERIES.values()]
    assert before.differences(model) == []
    model(xy).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model(xy), before_output(before, model, xy)), "the layer still trains"
    model.load_state_dict({k: torch.zeros_like(v) for k, v in model.state_dict().items()})
    torch.testing.assert_close(canvas.map(1), expected)


def before_output(before, model, xy):
    """The output with the recorded weights."""
    values = {id(p): value for p, _, _, _, value in before.parameters}
    state = {name: values[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    return torch.func.functional_call(model, state, (xy,), tie_weights=False)


def test_an_exception_in_a_canvas(found):
    model, xy, failing = Inr(), coordinates((4, 5)), []
    canvas = NeuronCanvas(model, "2").canvas(xy, (4, 5))
    handle = model[3].register_forward_hook(lambda *_: 1 / 0 if failing else None)
    before = found(model)
    failing.append(True)
    with pytest.raises(ZeroDivisionError):
        canvas.totals()
    assert before.differences(model) == []
    handle.remove()


def test_weights_made_in_inference_mode(found):
    with torch.inference_mode():
        model = Inr()
    before, xy = found(model), coordinates((4, 5))
    NeuronCanvas(model, "2").canvas(xy, (4, 5)).totals()
    LayerContribution(model, "2").attribute(xy, target=1)
    assert before.differences(model) == []


def test_the_verdict_of_an_accentuation(shared, x, found):
    natural = torch.rand(6, 3, 6, 6)
    before = found(shared)
    result = FeatureAccentuation(shared).accentuate(x, 1, n_steps=2, natural=natural)
    assert result.trust.verdict
    assert before.differences(shared) == []


def test_networks_of_weights(shared, x, found):
    nern, images = NeRN(shared, ["conv"], hidden=6, levels=4), torch.rand(8, 3, 6, 6)
    before = found(shared)
    nern.fit(images, steps=3, validation=0.25, feature_layers=["norm"], show_progress=False)
    assert before.differences(shared) == []
    for mode in ("kernel", "gradient", "integrated", "removal"):
        method = WeightContribution(nern, "conv", mode=mode)
        method.attribute() if mode == "kernel" else method.attribute(x, target=1)
        assert before.differences(shared) == []


def test_comparisons(shared, x, found):
    before = found(shared)
    compare(["Grad-CAM", "Integrated Gradients"], shared, x, 1, rounds=1, steps=2, baselines=())
    assert before.differences(shared) == []
