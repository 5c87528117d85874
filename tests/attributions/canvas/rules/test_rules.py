"""Rules against results by hand, Captum, exact sums and forward passes without a unit."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradientXActivation
from hypothesis import event, given
from hypothesis import strategies as st
from torch import nn

from xinc_captum import Ablation, NeuronCanvas, Secant, Tangent
from xinc_captum.attributions.canvas.rules import Tail, as_rule
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP, Siren, coordinates
from xinc_captum.metrics import completeness_error, condition_number


def test_rules_by_hand(hand_net):
    net, x = hand_net
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


def test_selectors():
    model, x = FourierMLP(hidden=6), torch.rand(4, 2)
    for rule in ("tangent", "ablation", "secant"):
        canvas = NeuronCanvas(model, "activation1", rule=rule)
        full = canvas.attribute(x)
        assert torch.allclose(canvas.attribute(x, neuron_selector=2), full[:, [2]], atol=1e-6)
        assert torch.allclose(canvas.attribute(x, neuron_selector=[3, 0]), full[:, [3, 0]], atol=1e-6)
        pair = canvas.attribute(x, neuron_selector=(slice(1, 3),))
        alone = canvas.attribute(x, neuron_selector=lambda a: a[:, 1] + a[:, 2])
        assert torch.allclose(pair, alone, atol=1e-5)
        if rule != "ablation":
            assert torch.allclose(pair[:, 0], full[:, 1:3].sum(1), atol=1e-5)


def test_as_rule():
    assert as_rule("secant") == Secant()
    assert as_rule(Tangent()) == Tangent()
    with pytest.raises(
        ValueError, match="rule 'lrp' is unknown; expected one of 'tangent', 'secant', 'ablation', 'xinc'"
    ):
        as_rule("lrp")
    with pytest.raises(TypeError, match="expected a name or a rule object"):
        as_rule(Tangent)
    with pytest.raises(ValueError, match="baselines='zero'; expected a number"):
        Ablation("zero")
    with pytest.raises(ValueError, match=r"baselines has shape \(7,\); expected one that broadcasts"):
        NeuronCanvas(FourierMLP(hidden=4), "activation1", rule=Ablation(torch.ones(7))).attribute(torch.rand(3, 2))


def test_tangent_equals_captum_channel_by_channel():
    model, x = FourierMLP(hidden=8), coordinates((5, 6))
    for name in ("encoding", "linear1", "activation2", "output"):
        ours = NeuronCanvas(model, name).attribute(x)
        for c in range(3):
            theirs = LayerGradientXActivation(model, getattr(model, name)).attribute(x, target=c)
            assert torch.allclose(ours[..., c], theirs, atol=1e-6)


@pytest.mark.parametrize("site", ["stem", "blocks.0.0", "blocks.0", "blocks.1.0", "blocks.1"])
def test_tangent_is_a_backward_pass_of_every_pixel(decoder, site):
    model, t = decoder
    model, t = model.float(), t.float()
    full = NeuronCanvas(model, site).attribute(t)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        c, y, x = (int(torch.randint(n, (1,), generator=generator)) for n in (3, 8, 12))
        alone = NeuronCanvas(model, site).attribute(t, target=(c, y, x))  # one output: one backward pass
        assert (full[:, :, c, y, x] - alone).abs().max() <= 1e-6


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
        contributions = NeuronCanvas(model, layer, rule=Secant()).attribute(x)
        output = model(x).detach()
        event(f"condition number 1e{round(condition_number(contributions, output).median().log10().item())}")
        assert completeness_error(contributions, output) <= (1e-12 if double else 1e-5)


def test_secant_equals_tangent_for_relu_and_differs_for_gelu():
    x = torch.rand(7, 2)
    for activation, same in (("relu", True), ("gelu", False)):
        model = FourierMLP(hidden=6, activation=activation, layers=4)
        secant = NeuronCanvas(model, "activation1", rule="secant").attribute(x)[:, :-1]
        tangent = NeuronCanvas(model, "activation1", rule="tangent").attribute(x)
        assert torch.allclose(secant, tangent, atol=1e-6) is same


def test_halved_gate_by_hand():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 4)

        def forward(self, x):
            h = self.first(x)
            return torch.sigmoid(h[:, :2]) * h[:, 2:]

    model, x = Gate().double(), torch.rand(5, 2, dtype=torch.float64)
    contributions = NeuronCanvas(model, "first", rule=Secant(products="halves")).attribute(x)
    h = model.first(x).detach()
    gate = torch.sigmoid(h[:, :2])
    torch.testing.assert_close(contributions.sum(1), gate * h[:, 2:])
    torch.testing.assert_close(contributions[:, 2, 0], h[:, 2] * gate[:, 0] / 2)
    torch.testing.assert_close(contributions[:, 0, 0], (gate[:, 0] - 0.5) * h[:, 2] / 2)
    torch.testing.assert_close(contributions[:, 4, 0], 0.5 * h[:, 2] / 2)
    with pytest.raises(ValueError, match='products=\'thirds\'; expected "refuse" or "halves"'):
        Secant(products="thirds")


class Everything(nn.Module):
    """Every operation that the secant promises to carry, in one decoder."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.up, self.mix = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.pool, self.head, self.fc = nn.MaxPool2d(2, 1, 1), nn.Conv2d(3, 3, 1), nn.Linear(4, 4)
        self.norm.running_mean.copy_(torch.rand(4))

    def forward(self, x):
        h = self.norm(self.first(x))
        h = self.up(F.silu(h)) + F.interpolate(h, scale_factor=2, mode="bilinear")
        h = F.leaky_relu(h, 0.1, inplace=True)
        h = torch.cat([h, torch.sin(self.fc(h.movedim(1, 3)).movedim(3, 1))], 1)
        h = F.gelu(F.pixel_shuffle(self.mix(h), 2))
        h = F.avg_pool2d(self.pool(h), 2, 1).reshape(len(x), 3, -1).reshape(len(x), 3, *h.shape[2:])
        return torch.sigmoid(self.head(h))


@pytest.mark.parametrize("site", ["stem", "blocks.0.0", "blocks.0", "blocks.1.0", "blocks.1", "head"])
def test_secant_sum_equals_the_output_at_every_block(decoder, site):
    model, t = decoder
    image = model(t).detach()
    contributions = NeuronCanvas(model, site, rule="secant").attribute(t)
    assert (contributions.sum(1) - image).abs().max() <= 1e-12 * image.abs().max()


@pytest.mark.parametrize("site", ["first", "norm", "up", "mix", "pool"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_secant_sum_equals_the_output_through_all_operations(site, unit):
    if unit == "pair" and site in ("norm", "pool"):
        return
    model, x = Everything().double().eval(), torch.rand(2, 2, 3, 4, dtype=torch.float64)
    image = model(x).detach()
    contributions = NeuronCanvas(model, site, rule="secant", unit=unit).attribute(x)
    assert (contributions.flatten(1, -4).sum(1) - image).abs().max() <= 1e-12 * image.abs().max()


def test_constants_go_to_the_remainder():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)), torch.rand(4, 2)

    def with_constants(x):
        y = net(x)
        return y + torch.zeros_like(y) + 2 * y.new_ones(y.shape) + torch.full_like(y, 0.5)

    plain = NeuronCanvas(net, "1", rule="secant").attribute(x)
    result = NeuronCanvas(with_constants, "1", rule="secant").attribute(x)
    torch.testing.assert_close(result[:, :-1], plain[:, :-1])
    torch.testing.assert_close(result[:, -1], plain[:, -1] + 2.5)


@pytest.mark.parametrize("baselines", [0.0, 0.5, "mean", "resample", torch.full((6,), 0.25)])
def test_ablation_by_hand(baselines):
    model, x = FourierMLP(hidden=6), torch.rand(8, 2)
    contributions = NeuronCanvas(model, "activation1", rule=Ablation(baselines)).attribute(x, memory_budget=3000)
    a = model.activation1(model.linear1(model.encoding(x)))
    if isinstance(baselines, str):
        order = torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()
        donor = dict(zip(order, order[1:] + order[:1], strict=True))
        baseline = a.mean(0).expand_as(a) if baselines == "mean" else a[[donor[row] for row in range(8)]]
    else:
        baseline = torch.as_tensor(baselines).expand_as(a)
    for u in range(6):
        changed = a.clone()
        changed[:, u] = baseline[:, u]
        by_hand = model(x) - model.output(model.activation2(model.linear2(changed)))
        assert torch.allclose(contributions[:, u], by_hand, atol=1e-6)


def test_ablation_of_pairs_by_hand(decoder):
    model, t = decoder
    conv = model.blocks[1][0]
    pairs = NeuronCanvas(model, conv, rule="ablation", unit="pair").attribute(t, perturbations_per_eval=5)
    full = model(t)
    with torch.no_grad():
        for i, o in ((0, 0), (3, 5)):
            kept = conv.weight[o, i].clone()
            conv.weight[o, i] = 0
            without = model(t)
            conv.weight[o, i] = kept
            torch.testing.assert_close(pairs[:, i, o], (full - without).detach())


@pytest.mark.parametrize("rows", [2, 3, 7, 180])
def test_resampling_is_one_cycle(rows):
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    batch = Batch.of(torch.arange(float(rows))[:, None])
    for seed in range(20):
        _, donors = Ablation("resample", seed=seed).prepare(Tail(net, net[0]), batch, rows)._donors
        assert not bool((donors == torch.arange(rows)).any())
        assert donors.sort().values.tolist() == list(range(rows))


@pytest.fixture
def images():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 1, 4, 4)


def test_mean_baseline_of_one_image(images):
    net, x = images
    result = NeuronCanvas(net, "1", rule=Ablation("mean")).attribute(x)
    a = net[:2](x)
    assert result.shape == (1, 3, 2) and bool(result.any())
    for u in range(3):
        level = a.clone()
        level[:, u] = a[:, u].mean()
        torch.testing.assert_close(result[:, u], net(x) - net[2:](level))


def test_mean_baseline_of_several_images(images):
    net, _ = images
    x = torch.rand(4, 1, 4, 4)
    result = NeuronCanvas(net, "1", rule=Ablation("mean")).attribute(x)
    a = net[:2](x)
    level = a.clone()
    level[:, 1] = a[:, 1].mean(0)
    torch.testing.assert_close(result[:, 1], net(x) - net[2:](level))


def test_single_sample_raises(images):
    net, x = images
    for unit in ("neuron", "pair"):
        with pytest.raises(
            ValueError, match=r"takes the value of each unit from another sample, and the batch has only"
        ):
            NeuronCanvas(net, "0", rule=Ablation("resample"), unit=unit).attribute(x)
    with pytest.raises(
        ValueError, match=r"layer '3' has shape \(1, 2\): one position for each unit. Give at least two"
    ):
        NeuronCanvas(net, "3", rule=Ablation("mean")).attribute(x)
    with pytest.raises(ValueError, match="one position for each unit"):
        NeuronCanvas(net, "3", rule=Ablation("mean"), unit="pair").attribute(x)
    with pytest.raises(ValueError, match="another sample"):
        frames = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1))
        NeuronCanvas(frames, "1", rule=Ablation("resample")).canvas(x, (4, 4))
