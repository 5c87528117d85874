"""All rules: hand-worked answers, exactness, and agreement with Captum and with the recorded original."""

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation
from hypothesis import event, given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import Ablation, LayerError, NeuronCanvas, Secant, Tangent, Xinc
from xinc_captum.inr import FourierMLP, Siren, coordinates
from xinc_captum.metrics import completeness_error, condition_number
from xinc_captum.propagation import as_rule

DATA = Path(__file__).parents[1] / "data"


def hand_net():
    """x=(2,1) → a=(3,4) → y = 5·3 − 1·4 + 7 = 18 and 0·3 + 2·4 − 1 = 7."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
        net[0].bias.zero_()
        net[2].weight.copy_(torch.tensor([[5.0, -1.0], [0.0, 2.0]]))
        net[2].bias.copy_(torch.tensor([7.0, -1.0]))
    return net, torch.tensor([[2.0, 1.0]])


def test_worked_out_by_hand():
    net, x = hand_net()
    expected = torch.tensor([[[15.0, 0.0], [-4.0, 8.0]]])
    for rule in ("tangent", "ablation"):
        assert torch.equal(NeuronCanvas(net, "1", rule=rule).attribute(x), expected)
    secant = NeuronCanvas(net, "1", rule="secant").attribute(x)
    assert torch.equal(secant, torch.cat([expected, torch.tensor([[[7.0, -1.0]]])], 1))
    xinc = NeuronCanvas(net, "2", rule="xinc").attribute(x, attribute_to_layer_input=True)
    assert torch.equal(xinc, expected + torch.tensor([3.5, -0.5]))
    assert torch.equal(
        NeuronCanvas(net, "1", rule=Ablation(1.0)).attribute(x), torch.tensor([[[10.0, 0.0], [-3.0, 6.0]]])
    )


def test_pairs_worked_out_by_hand():
    net, x = hand_net()  # z = W1 x: pairs x_i W_ji = [[2, 4], [1, 0]] (in, out); then the last layer's weights
    tangent = NeuronCanvas(net, "0", rule="tangent", unit="pair").attribute(x)
    expected = torch.tensor([[[[10.0, 0.0], [-4.0, 8.0]], [[5.0, 0.0], [0.0, 0.0]]]])
    assert torch.equal(tangent, expected)
    assert torch.equal(NeuronCanvas(net, "0", rule="ablation", unit="pair").attribute(x), expected)
    secant = NeuronCanvas(net, "0", rule="secant", unit="pair").attribute(x)
    assert torch.equal(secant[:, :2], expected)
    assert torch.equal(secant[:, 2].sum(1), torch.tensor([[7.0, -1.0]]))
    xinc = NeuronCanvas(net, "0", rule="xinc", unit="pair").attribute(x, attribute_to_layer_input=True)
    assert torch.equal(xinc, torch.tensor([[[2.0, 4.0], [1.0, 0.0]]]))
    for rule in ("tangent", "ablation", "secant"):
        picked = NeuronCanvas(net, "0", rule=rule, unit="pair").attribute(x, neuron_selector=[(1, 0), (0, 1)])
        assert torch.equal(picked, expected[:, [1, 0], [0, 1]])


class Skip(nn.Module):
    """Functional operations, a skip connection, a concatenation and a constant."""

    def __init__(self, width, depth, sigma):
        super().__init__()
        self.first = nn.Linear(2, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(2 * width + 1, 3)
        self.sigma = sigma

    def forward(self, x):
        z = first = self.sigma(self.first(x))
        for layer in self.layers:
            z = self.sigma(layer(z)) + z
        return self.last(torch.cat([z, 1 - 2 * first, torch.ones_like(x[:, :1])], 1))


SIGMAS = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "sine": lambda z: torch.sin(3 * z),
    "sigmoid": torch.sigmoid,
}


@given(
    kind=st.sampled_from(["skip", "ffn", "siren"]),
    sigma=st.sampled_from(sorted(SIGMAS)),
    width=st.integers(1, 9),
    depth=st.integers(1, 3),
    seed=st.integers(0, 999),
    double=st.booleans(),
)
def test_secant_is_complete_at_every_layer(kind, sigma, width, depth, seed, double):
    torch.manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    if kind == "skip":
        model = Skip(width, depth, SIGMAS[sigma])
        layers = ["first", *(f"layers.{i}" for i in range(depth))]
    elif kind == "ffn":
        sigma = sigma if sigma in ("relu", "gelu", "tanh", "sigmoid") else "softplus"
        model = FourierMLP(hidden=width, layers=depth + 1, activation=sigma)
        layers = [name for name, _ in model.named_children() if name != "output"]
    else:
        model = Siren(hidden=width, layers=depth + 1)
        layers = [name for name, _ in model.named_children() if name != "output"]
    model.to(dtype)
    x = torch.rand(6, 2, dtype=dtype) * 2 - 1
    for layer in layers:
        shares = NeuronCanvas(model, layer, rule=Secant()).attribute(x)
        output = model(x).detach()
        event(f"condition number 1e{round(condition_number(shares, output).median().log10().item())}")
        assert completeness_error(shares, output) <= (1e-12 if double else 1e-5)


def test_secant_equals_tangent_for_relu_and_differs_for_gelu():
    x = torch.rand(7, 2)
    for activation, same in (("relu", True), ("gelu", False)):
        model = FourierMLP(hidden=6, activation=activation, layers=4)
        secant = NeuronCanvas(model, "activation1", rule="secant").attribute(x)[:, :-1]
        tangent = NeuronCanvas(model, "activation1", rule="tangent").attribute(x)
        assert torch.allclose(secant, tangent, atol=1e-6) is same


def test_tangent_equals_captum_channel_by_channel():
    model, x = FourierMLP(hidden=8), coordinates((5, 6))
    for name in ("encoding", "linear1", "activation2", "output"):
        ours = NeuronCanvas(model, name).attribute(x)
        for c in range(3):
            theirs = LayerGradientXActivation(model, getattr(model, name)).attribute(x, target=c)
            assert torch.allclose(ours[..., c], theirs, atol=1e-6)


def test_the_papers_last_layer_is_captums_plus_a_share_of_the_bias():
    model, x = FourierMLP(hidden=8), coordinates((5, 6))
    ours = NeuronCanvas(model, "output", rule=Xinc()).attribute(x, attribute_to_layer_input=True)
    for c in range(3):
        theirs = LayerGradientXActivation(model, model.output).attribute(x, target=c, attribute_to_layer_input=True)
        assert torch.allclose(ours[..., c], theirs + model.output.bias[c] / 8, atol=1e-6)
    assert torch.allclose(ours.sum(1), model(x), atol=1e-5)


def test_forward_mode_equals_backward_mode():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3), nn.Sigmoid())
    x = torch.rand(2, 2, 6, 7)
    for rule in ("tangent", "secant"):
        canvas = NeuronCanvas(model, "1", rule=rule)
        whole = canvas.attribute(x)  # (2, 3 or 4, 2, 4, 5): many outputs, few units
        for pixel in ((0, 1, 2), (1, 3, 4)):
            one = canvas.attribute(x, target=pixel)  # one output: backward
            assert torch.allclose(whole[(slice(None), slice(None), *pixel)], one, atol=1e-6)


def test_selectors_pick_what_all_units_hold():
    model, x = FourierMLP(hidden=6), torch.rand(4, 2)
    for rule in ("tangent", "ablation", "secant"):
        canvas = NeuronCanvas(model, "activation1", rule=rule)
        whole = canvas.attribute(x)
        assert torch.allclose(canvas.attribute(x, neuron_selector=2), whole[:, [2]], atol=1e-6)
        assert torch.allclose(canvas.attribute(x, neuron_selector=[3, 0]), whole[:, [3, 0]], atol=1e-6)
        pair = canvas.attribute(x, neuron_selector=(slice(1, 3),))
        alone = canvas.attribute(x, neuron_selector=lambda a: a[:, 1] + a[:, 2])
        assert torch.allclose(pair, alone, atol=1e-5)
        if rule != "ablation":
            assert torch.allclose(pair[:, 0], whole[:, 1:3].sum(1), atol=1e-5)


@pytest.mark.parametrize("baselines", [0.0, 0.5, "mean", "resample", torch.full((6,), 0.25)])
def test_ablation_does_what_it_says(baselines):
    model, x = FourierMLP(hidden=6), torch.rand(8, 2)
    shares = NeuronCanvas(model, "activation1", rule=Ablation(baselines)).attribute(x, memory_budget=3000)
    a = model.activation1(model.linear1(model.encoding(x)))
    if isinstance(baselines, str):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
        baseline = a.mean(0).expand_as(a) if baselines == "mean" else a[order]
    else:
        baseline = torch.as_tensor(baselines).expand_as(a)
    for u in range(6):
        changed = a.clone()
        changed[:, u] = baseline[:, u]
        by_hand = model(x) - model.output(model.activation2(model.linear2(changed)))
        assert torch.allclose(shares[:, u], by_hand, atol=1e-6)


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
        torch.testing.assert_close(
            ours, torch.from_numpy(recorded[name]), atol=2e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_released_maps_erase_units_whose_weights_sum_below_zero():
    net, x = hand_net()
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
        ("linear1", {"attribute_to_layer_input": False}, LayerError, "call attribute.*attribute_to_layer_input=True"),
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


def test_names_of_rules():
    assert as_rule("secant") == Secant()
    assert as_rule(Tangent()) == Tangent()
    with pytest.raises(
        ValueError, match="rule 'lrp' is unknown; wanted one of 'tangent', 'secant', 'ablation', 'xinc'"
    ):
        as_rule("lrp")
    with pytest.raises(TypeError, match="wanted a name or a rule object"):
        as_rule(Tangent)
    with pytest.raises(ValueError, match="baselines='zero'; wanted a number"):
        Ablation("zero")
    with pytest.raises(ValueError, match=r"baselines has shape \(7,\); wanted one that broadcasts"):
        NeuronCanvas(FourierMLP(hidden=4), "activation1", rule=Ablation(torch.ones(7))).attribute(torch.rand(3, 2))
