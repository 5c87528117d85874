"""Layers that do not exist, belong to another model, or never run."""

import pytest
from contract.methods import every
from torch import nn

from xinc_captum import LayerError


@every
@pytest.mark.parametrize(
    ("layer", "text"),
    [("fcc", "did you mean 'fc'"), (nn.Linear(1, 1), "is not part of the model")],
    ids=["wrong name", "foreign module"],
)
def test_wrong_layers(method, net, layer, text):
    if "no layer" in method.promises:
        pytest.skip("it looks at no layer")
    with pytest.raises(LayerError, match=text):
        method.make(net, layer)


@every
def test_a_layer_that_never_runs(method, net, x):
    if "no layer" in method.promises:
        pytest.skip("it looks at no layer")
    if "weights" in method.promises:
        net.idle = nn.Conv2d(3, 3, 3)
        with pytest.raises(LayerError, match="does not depend on the weights of 'idle': the layer did not run"):
            method.on(net, "idle").attribute(x, **method.of(1))
        return
    net.idle = nn.Linear(16, 3)
    if method.layer == "fc":
        with pytest.raises(LayerError, match="layer 'idle' never ran"):
            method.on(net, "idle").attribute(x, target=None, **method.kwargs)
    else:
        with pytest.raises(LayerError, match="layer 'idle' never ran"):
            method.on(net, "idle").attribute(x, **method.of(1))
