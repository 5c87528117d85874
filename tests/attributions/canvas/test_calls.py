"""Contributions of one call of a layer that runs several times equal those of a module of its own."""

import pytest
import torch
from torch import nn

from xinc_captum import Ablation, LayerContribution, LayerError, NeuronCanvas, Secant, canvases


class Net(nn.Module):
    """A ReLU and a Linear that run three and two times, or one module for each call."""

    def __init__(self, shared):
        super().__init__()
        torch.manual_seed(0)
        relu, linear = nn.ReLU(), nn.Linear(5, 5)
        self.relus = nn.ModuleList([relu if shared else nn.ReLU() for _ in range(3)])
        self.first, self.last = nn.Linear(2, 5), nn.Linear(5, 3)
        self.linears = nn.ModuleList([linear, linear if shared else nn.Linear(5, 5)])
        self.linears[1].load_state_dict(linear.state_dict())
        self.double()

    def forward(self, x):
        x = self.relus[0](self.first(x))
        x = x + self.relus[1](self.linears[0](x))
        return self.last(self.relus[2](self.linears[1](x)))


@pytest.fixture
def x():
    return torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


RULES = ["tangent", "secant", "ablation", Ablation("mean"), Ablation("resample"), Secant(products="halves")]


@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("call", [0, 1, 2])
def test_one_relu_equals_separate_ones(x, call, rule, at_input):
    shared, separate = Net(True), Net(False)
    got = NeuronCanvas(shared, "relus.0", rule=rule, call=call)
    expected = NeuronCanvas(separate, f"relus.{call}", rule=rule)
    options = {"attribute_to_layer_input": at_input}
    values, deltas = got.attribute(x, return_convergence_delta=True, **options)
    expected_values, expected_deltas = expected.attribute(x, return_convergence_delta=True, **options)
    torch.testing.assert_close(values, expected_values, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(deltas, expected_deltas, atol=1e-9, rtol=1e-9)
    maps, expected_maps = (m.canvas(x, (2, 3), **options).to_tensor() for m in (got, expected))
    torch.testing.assert_close(maps, expected_maps, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize("call", [0, 1])
def test_pairs_of_one_linear_equal_those_of_separate_ones(x, call, rule):
    got = NeuronCanvas(Net(True), "linears.0", rule=rule, unit="pair", call=call).attribute(x)
    expected = NeuronCanvas(Net(False), f"linears.{call}", rule=rule, unit="pair").attribute(x)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("call", [0, 1, 2])
def test_layer_contribution(x, call, at_input):
    options = {"target": 1, "attribute_to_layer_input": at_input, "return_convergence_delta": True}
    got = LayerContribution(Net(True), "relus.0", call=call).attribute(x, internal_batch_size=4, **options)
    expected = LayerContribution(Net(False), f"relus.{call}").attribute(x, **options)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


def test_canvases_share_a_pass_with_layers_that_run_several_times(x):
    got = canvases(Net(True), ["relus.0", "linears.0"], x, (2, 3), call=1)
    expected = canvases(Net(False), ["relus.1", "linears.1"], x, (2, 3))
    assert list(got) == ["relus.0", "linears.0"]
    for one, other in zip(got.values(), expected.values(), strict=True):
        torch.testing.assert_close(one.to_tensor(), other.to_tensor(), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("make", [NeuronCanvas, LayerContribution])
def test_errors(x, make):
    target = {"target": 0}
    with pytest.raises(LayerError, match="which of its 3 calls is meant is not clear. Give call=0 to call=2"):
        make(Net(True), "relus.0").attribute(x, **target)
    with pytest.raises(LayerError, match=r"call is 3, but layer 'relus\.0' has 3 calls .* expected call=0 to call=2"):
        make(Net(True), "relus.0", call=3).attribute(x, **target)
    with pytest.raises(ValueError, match="call is -1; expected None"):
        make(Net(True), "relus.0", call=-1)


def test_the_papers_rule_refuses_a_call():
    with pytest.raises(ValueError, match=r"call=1 goes with the rules tangent, secant and ablation"):
        NeuronCanvas(Net(True), "linears.0", rule="xinc", call=1)
