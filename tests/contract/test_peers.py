"""Lines 7 to 9 and 11 to 13: Quantus, grad-cam, torchcam and zennit, on the same maps and the same model."""

import numpy as np
import pytest
import torch
from contract.methods import attribute, every, having
from torch import nn

from xinc_captum import LayerContribution
from xinc_captum.comparison import quantus_explain_func

# Whose answers are maps over the picture: what these peers take.
maps = having("layer_shaped", "input_shaped")


def asked(method, net):
    """What Quantus asks a method for; layer-shaped shares are taken at an identity before the model."""
    if method.name == "LayerContribution":
        at_input = lambda model: LayerContribution(nn.Sequential(nn.Identity(), model).eval(), "0")
        return quantus_explain_func(at_input)
    return quantus_explain_func(method.on(net), **{k: v for k, v in method.of(1).items() if k != "target"})


@maps
def test_line_7_quantus_metric(method, net, x):
    quantus = pytest.importorskip("quantus", reason="quantus is an optional peer: pip install quantus")
    metric = quantus.MaxSensitivity(nr_samples=2, disable_warnings=True)
    scores = metric(model=net, x_batch=x.numpy(), y_batch=[1, 0], explain_func=asked(method, net), device="cpu")
    assert len(scores) == 2 and np.isfinite(scores).all()


@maps
def test_line_8_quantus_evaluate(method, net, x):
    quantus = pytest.importorskip("quantus", reason="quantus is an optional peer: pip install quantus")
    table = quantus.evaluate(
        {"s": quantus.Sparseness(disable_warnings=True)},
        {"ours": asked(method, net)},
        net,
        x.numpy(),
        [1, 0],
        explain_func_kwargs={},
        call_kwargs={"c": {"device": "cpu"}},
    )
    assert "ours" in table


@maps
def test_line_9_grad_cams_road(method, net, x):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road", reason="pip install grad-cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets", reason="pip install grad-cam")
    found = attribute(method, net, x).abs().sum(1)
    found = (found / found.amax((1, 2), keepdim=True)).numpy()
    chosen = [targets.ClassifierOutputTarget(1)] * 2
    assert len(road.ROADCombined(percentiles=[20, 50])(x, found, chosen, net)) == 2


@having("backward")
def test_line_11_under_zennits_rules(method, net, x):
    composites = pytest.importorskip("zennit.composites", reason="zennit is an optional peer: pip install zennit")
    plain = attribute(method, net, x)
    with composites.EpsilonPlus().context(net) as modified:
        changed = attribute(method, modified, x)
    assert changed.shape == plain.shape
    torch.testing.assert_close(attribute(method, net, x), plain)


@every
def test_line_12_works_while_pytorch_grad_cam_hooks_are_active(method, net, x):
    cam = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam")
    plain = attribute(method, net, x)
    with cam.GradCAM(net, [net.relu]):
        torch.testing.assert_close(attribute(method, net, x), plain)


@every
def test_line_13_works_while_torchcam_hooks_are_active(method, net, x):
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is an optional peer: pip install torchcam")
    plain = attribute(method, net, x)
    with methods.GradCAM(net, "relu", input_shape=(3, 6, 6)):
        torch.testing.assert_close(attribute(method, net, x), plain)
