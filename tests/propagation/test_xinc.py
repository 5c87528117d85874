"""The paper's rule against arrays recorded from its released code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation

from xinc_captum import LayerError, NeuronCanvas, Xinc
from xinc_captum.inr import FourierMLP, coordinates

DATA = Path(__file__).parents[1] / "data"


def test_the_papers_last_layer_is_captums_plus_a_share_of_the_bias():
    model, x = FourierMLP(hidden=8), coordinates((5, 6))
    ours = NeuronCanvas(model, "output", rule=Xinc()).attribute(x, attribute_to_layer_input=True)
    for c in range(3):
        theirs = LayerGradientXActivation(model, model.output).attribute(x, target=c, attribute_to_layer_input=True)
        assert torch.allclose(ours[..., c], theirs + model.output.bias[c] / 8, atol=1e-6)
    assert torch.allclose(ours.sum(1), model(x), atol=1e-5)


def test_the_released_maps_are_reproduced():
    recorded = np.load(DATA / "xinc_ffn_small.npz")
    height, width = recorded["hw"]
    model = FourierMLP(hidden=16, features=16)
    state = {"encoding.B": recorded["state/positional_encoding.B"]}
    for i, name in enumerate(("linear1", "linear2", "output")):
        state |= {f"{name}.{p}": recorded[f"state/net.{i}.linear.{p}"] for p in ("weight", "bias")}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    x = coordinates((int(height), int(width)))

    def canvas(layer, **kwargs):
        return NeuronCanvas(model, layer, rule="xinc", **kwargs).attribute(x, attribute_to_layer_input=True)

    rgb = canvas("output")
    with torch.no_grad():
        found = {
            "coords": x,
            "encoded": model.encoding(x),
            "h1": model[:3](x),
            "h2": model[:5](x),
            "output": model(x),
            "layer1": canvas("linear1").T.reshape(-1, height, width),
            "layer2": canvas("linear2").T.reshape(-1, height, width),
            "layer3": rgb.sum(2).T.reshape(-1, height, width),
            "layer3_rgb": rgb.permute(1, 2, 0).reshape(16, 3, height, width),
            "c12": canvas("linear1", unit="pair").permute(1, 2, 0),
            "c23": canvas("linear2", unit="pair").permute(1, 2, 0),
        }
    assert set(found) == {k for k in recorded.files if not k.startswith("state/")} - {"hw"}
    for name, ours in found.items():
        # angles up to 2 pi * 10 * 3 = 188 round to within 1.5e-5, and so do their sines
        torch.testing.assert_close(
            ours, torch.from_numpy(recorded[name]), atol=1.5e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_released_maps_erase_units_whose_weights_sum_below_zero(hand_net):
    net, x = hand_net
    with torch.no_grad():
        net[0].weight[:, 1] = -1.0
    maps = NeuronCanvas(net, "0", rule="xinc").attribute(x, attribute_to_layer_input=True)
    assert maps.tolist() == [[6.0, 0.0]]


@pytest.mark.parametrize(
    ("layer", "kwargs", "error", "text"),
    [
        (
            "activation1",
            {},
            LayerError,
            "layer 'activation1' is a ReLU; pairs and the 'xinc' rule need a torch.nn.Linear",
        ),
        (
            "linear1",
            {"attribute_to_layer_input": False},
            LayerError,
            "give attribute_to_layer_input=True, to attribute",
        ),
        ("linear1", {"target": 0}, ValueError, "target=0 has no meaning under rule 'xinc' at layer 'linear1'"),
        ("output", {"target": 3}, ValueError, "target 3 does not fit the output's"),
        ("linear1", {"return_convergence_delta": True}, ValueError, "no convergence delta at layer 'linear1'"),
    ],
)
def test_what_the_released_rule_cannot_answer(layer, kwargs, error, text):
    canvas = NeuronCanvas(FourierMLP(hidden=4), layer, rule="xinc")
    with pytest.raises(error, match=text):
        canvas.attribute(torch.rand(3, 2), **{"attribute_to_layer_input": True, **kwargs})


def test_the_released_rule_takes_every_target():
    model, x = FourierMLP(hidden=4), torch.rand(3, 2)
    canvas = NeuronCanvas(model, "output", rule="xinc")
    whole = canvas.attribute(x, attribute_to_layer_input=True)
    for target, expected in (
        (1, whole[..., 1]),
        ((2,), whole[..., 2]),
        (torch.tensor(1), whole[..., 1]),
        ([0, 1, 2], torch.stack([whole[i, :, i] for i in range(3)])),
        (torch.tensor([2, 1, 0]), torch.stack([whole[i, :, 2 - i] for i in range(3)])),
    ):
        assert torch.equal(canvas.attribute(x, target=target, attribute_to_layer_input=True), expected)
