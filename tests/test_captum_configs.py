"""Captum's own test configurations: LayerGradientXActivation's on LayerContribution, NeuronGradient's on images."""

import inspect

import pytest
import torch
from captum.attr import LayerGradientXActivation, NeuronGradient, NoiseTunnel

from xinc_captum import LayerContribution, NeuronFeatureAccentuation

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


def test_there_are_eight_captum_configurations():
    assert len(CASES) == 8
    assert any(isinstance(case["layer"], list) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_equal_to_captum(case):
    model = case["model"]
    layer = layer_of(model, case["layer"])
    assert same(run(LayerContribution(model, layer), case), run(LayerGradientXActivation(model, layer), case))


IMAGES = [
    case
    for case in configs.config
    if NeuronGradient in case["algorithms"] and getattr(case["attribute_args"]["inputs"], "ndim", 0) == 4
]


def test_two_captum_configurations_use_images():
    assert len(IMAGES) == 2


@pytest.mark.parametrize("case", IMAGES, ids=lambda c: c["name"])
def test_one_step_is_captums_gradient(case):
    """Without views and distance, the first step's mask is |∂unit/∂image|; images are brought into [0, 1] first."""
    model, args = case["model"], case["attribute_args"]
    layer, x, selector = layer_of(model, case["layer"]), args["inputs"], args["neuron_selector"]
    low, width = x.min(), x.max() - x.min()
    method = NeuronFeatureAccentuation(model, layer, preprocess=lambda y: y * width + low)
    ours = method.attribute((x - low) / width, selector, n_steps=1, transforms=(), regularizer=None)
    theirs = NeuronGradient(model, layer).attribute(x, selector)
    torch.testing.assert_close(ours, theirs.abs().detach() * width, atol=1e-4, rtol=1e-4)
