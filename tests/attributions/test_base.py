import warnings

import pytest
import torch
from captum.metrics import sensitivity_max
from torch import nn

from xinc_captum import LayerContribution, NeuronCanvas, as_explanation
from xinc_captum.attributions.base import attribution_context, captum_method, plain


def test_the_decorator_keeps_the_wrapped_method():
    class Method:
        @captum_method
        def attribute(self, inputs):
            """Doc."""
            return inputs + 1

    assert Method().attribute(1) == 2
    assert Method.attribute.__wrapped__(Method(), 1) == 2
    assert Method.attribute.__doc__ == "Doc."


def test_the_adapter_returns_the_container_of_its_inputs(net):
    explain = as_explanation(LayerContribution(net, "1"))
    x = torch.rand(3, 2)
    assert isinstance(explain((x,), target=0), tuple)
    assert torch.equal(explain((x,), target=0)[0], explain(x, target=0))


def test_without_the_adapter_captums_metric_fails_on_layers(net):
    with pytest.raises(RuntimeError):
        sensitivity_max(LayerContribution(net, "1").attribute, torch.rand(3, 2), target=0, n_perturb_samples=2)


def test_training_mode_warns_once():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1), nn.Dropout(0.1), nn.Linear(2, 1))
    with pytest.warns(UserWarning, match=r"Dropout '1' is in training mode.*call model.eval\(\)") as caught:
        NeuronCanvas(model, "0").attribute(torch.rand(2, 2))
    assert sum("training mode" in str(w.message) for w in caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NeuronCanvas(model.eval(), "0").attribute(torch.rand(2, 2))


def test_grad_mode_and_inference_mode_of_the_caller(net):
    with torch.inference_mode(), attribution_context(net):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_plain_returns_float32_only_under_autocast():
    narrow = torch.zeros(2, dtype=torch.bfloat16)
    assert plain(narrow).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert plain(narrow).dtype == torch.float32
