"""The paper's rule against arrays recorded from its released code, and against a direct implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradientXActivation
from torch import nn

from xinc_captum import LayerError, NeuronCanvas, Xinc
from xinc_captum.attributions.canvas.rules.xinc import Box, Expansion, Nearest, PlacePhase, Pointwise
from xinc_captum.inr import FourierMLP, coordinates

DATA = Path(__file__).parents[3] / "data"


def test_last_layer_equals_captum_plus_a_share_of_the_bias():
    model, x = FourierMLP(hidden=8), coordinates((5, 6))
    ours = NeuronCanvas(model, "output", rule=Xinc()).attribute(x, attribute_to_layer_input=True)
    for c in range(3):
        theirs = LayerGradientXActivation(model, model.output).attribute(x, target=c, attribute_to_layer_input=True)
        assert torch.allclose(ours[..., c], theirs + model.output.bias[c] / 8, atol=1e-6)
    assert torch.allclose(ours.sum(1), model(x), atol=1e-5)


def test_recorded_maps_of_an_mlp():
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
        result = {
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
    assert set(result) == {k for k in recorded.files if not k.startswith("state/")} - {"hw"}
    for name, ours in result.items():
        # angles up to 2 pi * 10 * 3 = 188 round to within 1.5e-5, and so do their sines
        torch.testing.assert_close(
            ours, torch.from_numpy(recorded[name]), atol=1.5e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_units_with_a_negative_sum_of_weights_are_zero(hand_net):
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
def test_invalid_arguments_raise(layer, kwargs, error, text):
    canvas = NeuronCanvas(FourierMLP(hidden=4), layer, rule="xinc")
    with pytest.raises(error, match=text):
        canvas.attribute(torch.rand(3, 2), **{"attribute_to_layer_input": True, **kwargs})


def test_all_kinds_of_targets():
    model, x = FourierMLP(hidden=4), torch.rand(3, 2)
    canvas = NeuronCanvas(model, "output", rule="xinc")
    full = canvas.attribute(x, attribute_to_layer_input=True)
    for target, expected in (
        (1, full[..., 1]),
        ((2,), full[..., 2]),
        (torch.tensor(1), full[..., 1]),
        ([0, 1, 2], torch.stack([full[i, :, i] for i in range(3)])),
        (torch.tensor([2, 1, 0]), torch.stack([full[i, :, 2 - i] for i in range(3)])),
    ):
        assert torch.equal(canvas.attribute(x, target=target, attribute_to_layer_input=True), expected)


RECORDED = Path(__file__).parents[3] / "data" / "xinc_nerv.npz"


class Plain(nn.Module):
    """Functions for shuffles and activations, so that only running it shows what follows what."""

    def __init__(self, recorded):
        super().__init__()
        self.strides, self.low = [int(s) for s in recorded["strides"]], recorded["dec1"].shape[1:]
        state = {k.removeprefix("state/"): torch.from_numpy(recorded[k]) for k in recorded if k.startswith("state/")}
        parts = [state[k] for k in state]
        convs = [nn.Conv2d(w.shape[1], w.shape[0], w.shape[2], padding=w.shape[2] // 2) for w in parts[::2]]
        for conv, weight, bias in zip(convs, parts[::2], parts[1::2], strict=True):
            conv.load_state_dict({"weight": weight, "bias": bias})
        self.stem, self.block1, self.block2, self.block3, self.head = convs

    def forward(self, embedded):
        x = F.gelu(self.stem(embedded).reshape(-1, *self.low))
        for conv, stride in zip((self.block1, self.block2, self.block3), self.strides, strict=True):
            x = F.gelu(F.pixel_shuffle(conv(x), stride))
        return self.head(x)


def kernels(model, layer, x, **kwargs):
    method = NeuronCanvas(model, layer, rule="xinc", unit="pair")
    return method.attribute(x, attribute_to_layer_input=True, **kwargs)


def test_recorded_maps_of_a_decoder():
    recorded = np.load(RECORDED)
    model, embedded = Plain(recorded), torch.from_numpy(recorded["embed"])
    close = lambda a, b: torch.testing.assert_close(a, torch.from_numpy(b), atol=2e-6, rtol=1e-5)
    close(model(embedded).detach(), recorded["img"])
    head = NeuronCanvas(model, "head", rule="xinc").attribute(embedded, attribute_to_layer_input=True)
    close(head[0], recorded["map/head"])
    close(head.sum(1), recorded["img"])
    close(kernels(model, "block3", embedded)[0], recorded["map/b3"])
    close(kernels(model, "block2", embedded)[0], recorded["map/b2"])
    close(kernels(model, "block1", embedded)[0, [0, 5]], recorded["map/b1"])


def longhand(model, i, o, x):
    """The map of one kernel of block 0, every stage on the full grid."""
    conv, later = model.blocks[0][0], model.blocks[1][0]
    h = torch.tanh(model.stem(x)).view(-1, 3, 2, 3)
    k = F.conv2d(h[:, i : i + 1], conv.weight[o, i][None, None], padding=1) + conv.bias[o] / 3
    fine = torch.zeros(len(x), 1, 4, 6, dtype=x.dtype)
    fine[:, :, o % 4 // 2 :: 2, o % 2 :: 2] = k
    box = lambda m, size: F.avg_pool2d(m, size, 1, size // 2)
    activation = model.blocks[0][2]
    m = box(activation(fine), later.kernel_size[0])
    m = box(activation(F.interpolate(m, scale_factor=2)), 3)
    return m[:, 0]


@pytest.mark.parametrize("activation", [nn.GELU, nn.Softplus, nn.Tanh])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_any_activation_and_kernel_size(make_decoder, activation, size):
    model, x = make_decoder(activation=activation).double(), torch.rand(2, 1, dtype=torch.float64)
    model.blocks[1][0] = nn.Conv2d(4, 8, size, padding=size // 2).double()
    maps = kernels(model, "blocks.0.0", x)
    assert maps.shape == (2, 3, 16, 8, 12)
    for i, o in ((0, 0), (2, 7), (1, 14)):
        torch.testing.assert_close(maps[:, i, o], longhand(model, i, o, x).detach())
        torch.testing.assert_close(kernels(model, "blocks.0.0", x, neuron_selector=(i, o))[:, 0], maps[:, i, o])


def test_targets_and_selectors_of_the_head(decoder):
    model, t = decoder
    method = NeuronCanvas(model, "head", rule="xinc")
    ask = lambda **kwargs: method.attribute(t, attribute_to_layer_input=True, **kwargs)
    full = ask()
    assert full.shape == (3, 2, 3, 8, 12)
    close = torch.testing.assert_close  # float64, convolutions with fewer channels
    close(ask(target=1), full[:, :, 1])
    close(ask(target=(2, 0, slice(3, 5))), full[:, :, 2, 0, 3:5])
    close(ask(target=(2, 0, 1), neuron_selector=[1]), full[:, [1], 2, 0, 1])
    close(ask(neuron_selector=[1, 0]), full[:, [1, 0]])


@pytest.mark.parametrize(
    ("layer", "kwargs", "unit", "error", "text"),
    [
        ("blocks.0.0", {}, "neuron", LayerError, "layer 'blocks.0.0' is an inner convolution.*unit=\"pair\""),
        ("blocks.0.0", {"target": 0}, "pair", ValueError, "target=0 has no meaning under rule 'xinc'"),
        ("blocks.0.0", {"attribute_to_layer_input": False}, "pair", LayerError, "attribute_to_layer_input=True"),
        ("stem", {}, "neuron", LayerError, "layer 'stem' is a Linear before convolutions"),
        ("blocks.0", {}, "pair", LayerError, "is a Sequential; pairs and the 'xinc' rule need"),
    ],
)
def test_invalid_arguments_for_a_decoder_raise(decoder, layer, kwargs, unit, error, text):
    model, t = decoder
    with pytest.raises(error, match=text):
        NeuronCanvas(model, layer, rule="xinc", unit=unit).attribute(t, **{"attribute_to_layer_input": True, **kwargs})


def test_unsupported_operation_raises():
    skip = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Softmax(1), nn.Conv2d(4, 3, 1))
    with pytest.raises(LayerError, match="rule 'xinc' at layer '0' supports Conv2d.*met 'softmax'. Use rule='tangent'"):
        kernels(skip, "0", torch.rand(1, 1, 3, 3))


BOX = Box((3, 3), (1, 1), (1, 1), (1, 1))


@pytest.mark.parametrize("sigma", [F.gelu, torch.cos])
def test_stages_one_by_one(sigma):
    act = Pointwise(sigma, zero_stays=sigma is F.gelu)
    expansion = Expansion((PlacePhase(3), act, BOX, Nearest(2), act, BOX))
    low = torch.rand(4, 2, 3) - 0.5
    assert expansion.phases == 9
    fine = torch.zeros(4, 1, 6, 9)
    fine[:, 0, 1::3, 2::3] = low
    expected = F.avg_pool2d(sigma(fine), 3, 1, 1)
    expected = F.avg_pool2d(sigma(F.interpolate(expected, scale_factor=2)), 3, 1, 1)[:, 0]
    torch.testing.assert_close(expansion.at(5)(low, None), expected)
    into = torch.empty(2, 4, 12, 18)[1]
    expansion.at(5)(low, list(into))
    torch.testing.assert_close(into, expected)


def test_expansion_without_stages_copies():
    into = [torch.empty(2, 3)]
    Expansion(())(torch.ones(1, 2, 3), into)
    assert torch.equal(into[0], torch.ones(2, 3))


def test_matrices_by_hand():
    third = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.float64) / 3
    assert torch.equal(Box((3, 3), (1, 1), (1, 1), (1, 1)).matrix(0, 3), third)
    assert Nearest(2).matrix(1, 2).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert PlacePhase(2, (1, 0)).matrix(0, 2).tolist() == [[0, 0], [1, 0], [0, 0], [0, 1]]
    assert PlacePhase(2, (1, 0)).matrix(1, 2).tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    strided = Box((3, 3), (2, 2), (0, 0), (1, 1)).matrix(0, 5)
    assert (strided * 3).tolist() == [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]


def test_an_inner_convolution_before_linear_layers_is_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))
    with pytest.raises(LayerError, match="rule 'xinc' at layer '0' supports .*; no convolution follows it"):
        NeuronCanvas(net, "0", rule="xinc", unit="pair").attribute(
            torch.rand(1, 1, 4, 4), attribute_to_layer_input=True
        )


@pytest.mark.parametrize("dilation", [1, 3])
def test_same_padding_of_an_even_kernel_adds_one_more_at_the_end(dilation):
    conv = nn.Conv2d(1, 1, (4, 2), padding="same", dilation=dilation, bias=False)
    nn.init.constant_(conv.weight, 1 / 8)
    box = Box(
        (4, 2), (1, 1), (3 * dilation // 2, dilation // 2), (dilation, dilation), (3 * dilation % 2, dilation % 2)
    )
    x = torch.arange(30.0).view(1, 1, 6, 5)
    ours = box.matrix(0, 6) @ x[0, 0].double() @ box.matrix(1, 5).T
    torch.testing.assert_close(ours.float(), conv(x)[0, 0].detach())
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, (4, 2), padding="same", dilation=dilation)
    )
    assert NeuronCanvas(net, "0", rule="xinc", unit="pair").attribute(
        torch.rand(1, 1, 6, 5), attribute_to_layer_input=True
    ).shape[-2:] == (6, 5)
