"""Forward passes without gradients: correct maps where none is needed, one named error elsewhere."""

import contextlib
import warnings

import pytest
import torch
from torch import nn

from xinc_captum import (
    FeatureAccentuation,
    FeatureActivationMap,
    LayerContribution,
    LayerError,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    compare,
)
from xinc_captum.attributions.accentuation import FeatureDistance
from xinc_captum.attributions.accentuation.objectives import channel, logit
from xinc_captum.hooks import GradientError

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
FEW = {"n_steps": 2, "transforms": ()}


class Frozen(nn.Module):
    """A backbone that runs under no_grad or inference_mode, and a head."""

    def __init__(self, mode):
        super().__init__()
        self.body, self.neck = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus()), nn.Conv2d(4, 4, 3)
        self.act, self.head, self.mode = nn.Softplus(), nn.Linear(4, 3), mode

    def forward(self, x):
        with self.mode():
            z = self.body(x)
        return self.head(self.act(self.neck(z)).mean((2, 3)))


def whole(mode):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Frozen(contextlib.nullcontext)

        @mode()
        def forward(self, x):
            return self.net(x)

    return Whole().eval()


def quantized():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        return torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear}, dtype=torch.qint8)


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(400, 3)).eval()


MODELS = {
    "no_grad": lambda: (Frozen(torch.no_grad).eval(), "body"),
    "inference_mode": lambda: (Frozen(torch.inference_mode).eval(), "body"),
    "whole no_grad": lambda: (whole(torch.no_grad), "net.body"),
    "whole inference_mode": lambda: (whole(torch.inference_mode), "net.body"),
    "int8": lambda: (quantized(), "1"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_accentuation_names_the_missing_gradient(kind):
    model, layer = MODELS[kind]()
    method, near = FeatureAccentuation(model), FeatureDistance(layer)
    tries = [
        lambda: method.accentuate(X, 1, **FEW),
        lambda: method.accentuate(X, 1, regularizer=near, **FEW),
        lambda: method.accentuate(X, 1, regularizer=None, **FEW),
        lambda: method.accentuate(X, logit(1) - 0.5 * logit(2), regularizer=None, **FEW),
        lambda: method.accentuate(None, 1, shape=(1, 3, 12, 12), **FEW),
        lambda: FeatureAccentuation(net()).accentuate(X, 1, contrast=model, regularizer=None, **FEW),
        lambda: FeatureAccentuation(net()).accentuate(X, 1, contrast=model, **FEW),
    ]
    if kind != "int8":  # its convolution is a float one
        tries += [
            lambda: method.accentuate(X, channel(layer, 1), regularizer=None, **FEW),
            lambda: NeuronFeatureAccentuation(model, layer).accentuate(X, 1, **FEW),
            lambda: NeuronFeatureAccentuation(model, layer).accentuate(X, 1, regularizer=None, **FEW),
        ]
    for i, attempt in enumerate(tries):
        with pytest.raises(GradientError, match=r"no gradient flows .* Remove torch.no_grad\(\)") as found:
            attempt()
        assert isinstance(found.value, LayerError), i
        if kind == "int8" and "from logit" in str(found.value):
            assert "Module '4' is a quantized Linear." in str(found.value)
    assert all(p.requires_grad for p in model.parameters()), "the model's flags are restored"


@pytest.mark.parametrize("kind", MODELS)
def test_contributions_name_the_missing_gradient(kind):
    model, layer = MODELS[kind]()
    for method in (LayerContribution(model, layer), NeuronCanvas(model, layer)):
        with pytest.raises(LayerError, match=r"no gradient flows.*torch.no_grad\(\), torch.inference_mode\(\)"):
            method.attribute(X, target=1)


@pytest.mark.parametrize("kind", MODELS)
def test_maps_without_gradients_are_right(kind):
    model, layer = MODELS[kind]()
    module = model.get_submodule(layer)
    found = NeuronCanvas(model, layer, rule="ablation").attribute(X, neuron_selector=[2])[:, 0]
    with torch.no_grad():
        before = model(X)
        handle = module.register_forward_hook(lambda _m, _a, out: out * (torch.arange(4) != 2)[:, None, None])
        torch.testing.assert_close(found, before - model(X), atol=1e-6, rtol=0)
    handle.remove()
    assert FeatureActivationMap(model, layer, references=X[:1]).attribute(X).shape == (2, 1, 10, 10)


def test_the_head_behind_a_frozen_backbone():
    model = Frozen(torch.no_grad).eval()
    kept = {}
    handle = model.neck.register_forward_hook(lambda _m, _a, out: kept.update(out=out))
    (slope,) = torch.autograd.grad(model(X)[:, 1].sum(), kept["out"])
    handle.remove()
    expected = (slope * kept["out"]).detach()
    torch.testing.assert_close(LayerContribution(model, "neck").attribute(X, target=1), expected)


def test_the_float_part_of_an_int8_model():
    found = NeuronFeatureAccentuation(quantized(), "1").accentuate(X, 1, **FEW)
    assert (found.after > found.before).all()


def test_a_second_opinion_needs_no_gradient():
    found = FeatureAccentuation(net()).accentuate(X, 1, transfer=quantized(), **FEW)
    assert "second model" in str(found.trust)


@pytest.mark.parametrize("kind", ["no_grad", "inference_mode", "int8"])
def test_rows_of_compare(kind):
    model, layer = MODELS[kind]()
    methods = ["Grad-CAM", "Integrated Gradients", "Feature Accentuation"]
    options = {"rounds": 1, "steps": 2, "metrics": ["sparseness"], "baselines": ["random map"]}
    with pytest.warns(UserWarning, match="failed and has no map: GradientError"):
        found = compare(methods, model, X, 1, layer=layer, **options)
    for row in found.table[:3]:
        assert row.error.startswith("GradientError: no gradient flows"), row.error
    assert not any(row.error for row in found.table[3:])


def test_scripted_layers_raise_errors():
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    model = nn.Sequential(inner, nn.Flatten(), nn.Linear(400, 3)).eval()
    text = "layer '0.1' is scripted .*scripted modules run no Python hooks.*give the original torch.nn.Module"
    for attempt in (
        lambda: LayerContribution(model, "0.1").attribute(X, target=1),
        lambda: NeuronCanvas(model, "0.1", rule="ablation").attribute(X),
        lambda: NeuronFeatureAccentuation(model, "0.1").accentuate(X, 1, **FEW),
    ):
        with pytest.raises(LayerError, match=text):
            attempt()
    scripted = torch.jit.script(model)
    for attempt in (
        lambda: LayerContribution(scripted, "1"),
        lambda: NeuronFeatureAccentuation(lambda x: scripted(x), "1"),
        lambda: NeuronFeatureAccentuation(net(), "1").accentuate(X, 1, contrast=scripted, **FEW),
    ):
        with pytest.raises(LayerError, match=r"layer '1' cannot be read: the model is scripted \(torch.jit.script\)"):
            attempt()
