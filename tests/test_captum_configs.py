"""Captum's own test configurations for LayerGradientXActivation, run on LayerContribution: equal to the bit."""

import inspect

import pytest
import torch
from captum.attr import LayerGradientXActivation, NoiseTunnel

from xinc_captum import LayerContribution

configs = pytest.importorskip(
    "captum.testing.attr.helpers.test_config", reason="captum.testing ships with captum >= 0.9"
)
CASES = [case for case in configs.config if LayerGradientXActivation in case["algorithms"]]


def layer_of(model, path):
    one = lambda p: model.get_submodule(p)
    return [one(p) for p in path] if isinstance(path, list) else one(path)


def run(method, case):
    torch.manual_seed(0)
    if not case.get("noise_tunnel", False):
        return method.attribute(**case["attribute_args"])
    names = inspect.signature(NoiseTunnel.attribute.__wrapped__).parameters
    assert set(case["attribute_args"]) - set(names) <= {"target", "attribute_to_layer_input"}
    return NoiseTunnel(method).attribute(**case["attribute_args"])


def same(ours, theirs):
    if isinstance(theirs, tuple | list):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return torch.equal(ours, theirs.detach())


def test_there_are_eight():
    assert len(CASES) == 8
    assert any(isinstance(case["layer"], list) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_equal_to_captum(case):
    model = case["model"]
    layer = layer_of(model, case["layer"])
    assert same(run(LayerContribution(model, layer), case), run(LayerGradientXActivation(model, layer), case))
