"""Layers with maps (N, h, w, channels): units are channels in every class, equal to numbers by hand."""

import pytest
import torch
from torch import nn

from xinc_captum import (
    Ablation,
    FeatureAccentuation,
    FeatureActivationMap,
    LayerContribution,
    LayerError,
    NeuronCanvas,
    NeuronFeatureAccentuation,
    canvases,
    capture,
    layer_to_grid,
)
from xinc_captum.attributions.accentuation import FeatureDistance, objectives

X = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
FEW = {"n_steps": 2, "transforms": ()}


class Mixing(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.linear(self.norm(x)).tanh()


class ChannelsLast(nn.Module):
    """As a Swin: a convolution, then blocks over (N, h, w, channels), which view their input."""

    def __init__(self, width=5):
        super().__init__()
        self.conv, self.block, self.after, self.head = (
            nn.Conv2d(3, width, 3, 2, 1),
            Mixing(width),
            Mixing(width),
            nn.Linear(width, 4),
        )

    def forward(self, x):
        z = self.block(self.conv(x).permute(0, 2, 3, 1))
        z = self.after(z.contiguous().view(len(z), -1, z.shape[-1])).mean(1)
        return self.head(z)


@pytest.fixture
def net():
    return ChannelsLast().eval()


def at_the_block(net, x):
    """The block's activation (N, h, w, channels) and each output's gradient there."""
    with capture(net, "block") as calls:
        y = net(x)
    a = calls[net.block]
    return a.detach(), [torch.autograd.grad(y[:, o].sum(), a, retain_graph=True)[0] for o in range(4)], y.detach()


@pytest.mark.parametrize("axis", [None, -1, 3])
def test_a_canvas_has_the_channels(net, axis):
    a, slopes, _ = at_the_block(net, X)
    by_hand = torch.stack([(a * g).sum((1, 2)) for g in slopes], -1)
    assert torch.allclose(NeuronCanvas(net, "block", unit_axis=axis).attribute(X), by_hand, atol=1e-6)
    one = NeuronCanvas(net, "block", unit_axis=axis).attribute(X, [4, -1, (2, 3, 1), lambda z: z[:, 2, 3, 1]], target=1)
    place = (a * slopes[1])[:, 2, 3, 1]
    assert torch.allclose(one[:, 0], by_hand[:, 4, 1], atol=1e-6) and torch.allclose(one[:, 1], one[:, 0])
    assert torch.allclose(one[:, 2], place, atol=1e-6) and torch.allclose(one[:, 3], place, atol=1e-6)
    cut = NeuronCanvas(net, "block", unit_axis=axis).attribute(X, memory_budget=1)
    assert torch.allclose(cut, by_hand, atol=1e-6)


def test_one_row_of_positions_with_unit_axis(net):
    a, slopes, _ = at_the_block(net, X)
    assert torch.allclose(
        NeuronCanvas(net, "block", unit_axis=1).attribute(X, target=2), (a * slopes[2]).sum((2, 3)), atol=1e-6
    )


def test_ablation_and_secant(net):
    a, _, y = at_the_block(net, X)

    def without(channel, value):
        def edit(_m, _a, out):
            new = out.clone()
            new[..., channel] = value
            return new

        handle = net.block.register_forward_hook(edit)
        try:
            return (y - net(X)).detach()
        finally:
            handle.remove()

    result = NeuronCanvas(net, "block", rule="ablation").attribute(X)
    assert torch.allclose(result, torch.stack([without(c, 0.0) for c in range(5)], 1), atol=1e-6)
    levels = torch.arange(5.0)  # broadcasts over (N, h, w, channels)
    result = NeuronCanvas(net, "block", rule=Ablation(levels)).attribute(X)
    assert torch.allclose(result, torch.stack([without(c, levels[c]) for c in range(5)], 1), atol=1e-6)
    mean = NeuronCanvas(net, "block", rule=Ablation("mean")).attribute(X)[:, 2]
    assert torch.allclose(mean, without(2, a.mean(0)[..., 2]), atol=1e-6)


def test_secant_units_and_remainder_add_up():
    conv, mix = nn.Conv2d(3, 5, 1), nn.Sequential(nn.Linear(5, 6), nn.Tanh())
    net = lambda x: mix(conv(x).permute(0, 2, 3, 1)).sigmoid().mean((1, 2))
    secant = NeuronCanvas(net, mix[0], rule="secant").attribute(X)
    assert secant.shape == (2, 7, 6)
    torch.testing.assert_close(secant.sum(1), net(X).detach())


class Frames(nn.Module):
    """A decoder with a block over (N, h, w, channels)."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = (
            nn.Linear(1, 24),
            nn.Sequential(nn.Linear(4, 5), nn.Tanh()),
            nn.Conv2d(5, 3, 1),
        )

    def forward(self, t):
        return self.head(self.block(self.stem(t).view(-1, 2, 3, 4)).permute(0, 3, 1, 2)).sigmoid()


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
def test_canvases_of_frames(rule):
    net, t = Frames().eval(), torch.rand(3, 1)
    full = NeuronCanvas(net, "block", rule=rule).attribute(t)
    canvas = NeuronCanvas(net, "block", rule=rule).canvas(t, size=(2, 3))
    assert canvas.units == 5 and torch.allclose(canvas.to_tensor()[0], full[0], atol=1e-6)
    both = canvases(net, ["block", "head"], t, (2, 3), rule=rule)
    assert torch.allclose(both["block"].to_tensor()[0], full[0], atol=1e-6)


def test_layer_contribution_keeps_the_layers_own_axes(net):
    a, slopes, _ = at_the_block(net, X)
    assert torch.allclose(LayerContribution(net, "block").attribute(X, target=3), a * slopes[3], atol=1e-7)


@pytest.mark.parametrize("axis", [None, -1])
def test_accentuation_of_a_unit_raises_a_channel(net, axis):
    a, _, _ = at_the_block(net, X)
    method = NeuronFeatureAccentuation(net, "block", unit_axis=axis)
    torch.testing.assert_close(method.accentuate(X, 3, **FEW).before, a[..., 3].mean((1, 2)))
    vector = torch.rand(5)
    torch.testing.assert_close(method.accentuate(X, vector, **FEW).before, (a @ vector).mean((1, 2)))
    torch.testing.assert_close(method.accentuate(X, (1, 2, 3), **FEW).before, a[:, 1, 2, 3])
    method = FeatureAccentuation(net, unit_axis=axis)
    for target, by_hand in (
        ("block:3", a[..., 3].mean((1, 2))),
        (objectives.neuron("block", 3), a[:, 2, 3, 3]),
        (objectives.neuron("block", 3, (1, 5)), a[:, 1, 5, 3]),
        (objectives.positions("block", torch.ones(5, 4, 6)), a.sum(3).mean((1, 2))),
    ):
        torch.testing.assert_close(method.accentuate(X, target, **FEW).before, by_hand)
    with pytest.raises(ValueError, match=r"expected 2 numbers"):
        method.accentuate(X, objectives.neuron("block", 3, (1,)), **FEW)


def test_the_distance_sums_over_channels(net):
    a, b = (at_the_block(net, x)[0] for x in (X, X.flip(3)))
    by_hand = (a - b).norm(dim=3).mean((1, 2))
    regularizer = FeatureDistance("block", smooth=0)
    torch.testing.assert_close(regularizer.distance(a, b, unit_axis=-1), by_hand)
    result = FeatureAccentuation(net).accentuate(X, 1, regularizer=regularizer, n_steps=2, transforms=())
    again = at_the_block(net, X)[0]
    second = result.distances[1]
    assert result.layer == "block" and second.isfinite().all() and (second > 0).all() and again.shape == a.shape


def test_a_feature_activation_map_has_the_size_of_the_layer(net):
    a, _, _ = at_the_block(net, X)
    first = a.permute(0, 3, 1, 2).contiguous()
    ours = FeatureActivationMap(net, "block", references=X[:1])
    by_hand = FeatureActivationMap(nn.Sequential(nn.Identity()), "0", references=first[:1]).attribute(first)
    assert ours.attribute(X).shape == (2, 1, 4, 6)
    torch.testing.assert_close(ours.attribute(X), by_hand)
    torch.testing.assert_close(ours.weights(X).sum(1)[0], torch.tensor(1.0))
    said = FeatureActivationMap(net, "block", references=X[:1], unit_axis=-1)
    torch.testing.assert_close(said.attribute(X), by_hand)


class Blocks(nn.Module):
    """As a NesT: (N, blocks, tokens, channels), which is no map."""

    def __init__(self):
        super().__init__()
        self.patches, self.mixing, self.head = nn.Conv2d(3, 5, 1), Mixing(5), nn.Linear(5, 3)

    def forward(self, x):
        z = (
            self.patches(x)
            .unflatten(3, (2, 4))
            .unflatten(2, (2, 4))
            .permute(0, 2, 4, 3, 5, 1)
            .flatten(3, 4)
            .flatten(1, 2)
        )
        return self.head(self.mixing(z).mean((1, 2)))


def test_blocks_of_tokens_have_channels_and_no_map():
    net, x = Blocks().eval(), torch.rand(2, 3, 8, 8)
    assert NeuronCanvas(net, "mixing").attribute(x, target=1).shape == (2, 5)
    with pytest.raises(LayerError, match=r"its positions 4 x 16 are not a map of the 8 x 8 input. Give layer_to_grid="):
        FeatureActivationMap(net, "mixing", references=x[:1]).attribute(x)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.mixing, self.norm, self.head = (
            nn.Conv2d(3, 6, 2, 2),
            Mixing(6),
            nn.LayerNorm(6),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        return self.head(self.norm(self.mixing(self.patches(x).flatten(2).mT)).mean(1))


class Sequence(Tokens):
    """The same without a patch embedding, so that nothing shows that the tokens are patches."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 6, 1))


def test_tokens_need_unit_axis_or_a_known_class():
    net = Sequence().eval()
    with capture(net, ["mixing", "norm"]) as calls:
        y = net(X)
    tokens, normed = calls[net.mixing], calls[net.norm]
    (slope,) = torch.autograd.grad(y[:, 1].sum(), normed, retain_graph=True)
    by_hand = (normed * slope).sum(1)
    assert torch.allclose(NeuronCanvas(net, "norm").attribute(X, target=1), by_hand, atol=1e-6), "LayerNorm: the last"
    for method in (
        lambda **axis: NeuronCanvas(net, "mixing", **axis).attribute(X, target=1),
        lambda **axis: NeuronFeatureAccentuation(net, "mixing", **axis).accentuate(X, 5, **FEW).before,
        lambda **axis: FeatureAccentuation(net, **axis).accentuate(X, "mixing:5", **FEW).before,
    ):
        with pytest.raises(
            LayerError, match=r"layer 'mixing' returns shape \(2, 24, 6\), and which axis .*unit_axis=-1"
        ):
            method()
        assert method(unit_axis=-1).shape[0] == 2
    result = NeuronFeatureAccentuation(net, "mixing", unit_axis=-1).accentuate(X, 5, **FEW)
    torch.testing.assert_close(result.before, tokens[..., 5].mean(1).detach())
    assert result.distances.isfinite().all(), "the distance reads the layers it picks by their modules"
    with pytest.raises(ValueError, match="one axis of 24 positions .*, which has no middle in general"):
        FeatureAccentuation(net, unit_axis=-1).accentuate(X, objectives.neuron("mixing", 5), **FEW)
    third = FeatureAccentuation(net, unit_axis=-1).accentuate(X, objectives.neuron("mixing", 5, (3,)), **FEW)
    torch.testing.assert_close(third.before, tokens[:, 3, 5].detach())


def test_tokens_behind_a_patch_embedding_are_a_map():
    net = Tokens().eval()
    with capture(net, "mixing") as calls:
        net(X)
    tokens = calls[net.mixing].detach()
    result = NeuronFeatureAccentuation(net, "mixing").accentuate(X, 5, **FEW)
    torch.testing.assert_close(result.before, tokens[..., 5].mean(1))
    place = FeatureAccentuation(net).accentuate(X, objectives.neuron("mixing", 5, (1, 2)), **FEW)
    torch.testing.assert_close(place.before, tokens[:, 6 + 2, 5])
    units = LayerContribution(net, "mixing").attribute(X, target=1).sum(1)
    torch.testing.assert_close(NeuronCanvas(net, "mixing").attribute(X, target=1), units)


@pytest.mark.parametrize("wrap", [lambda: layer_to_grid, lambda: lambda tokens: layer_to_grid(tokens) * 1.0])
def test_the_token_map_has_the_shape_of_the_input(wrap):
    """16 tokens of a 4 x 16 picture are 2 x 8 patches, not 4 x 4."""
    net, x = Tokens().eval(), torch.rand(2, 3, 4, 16)
    result = FeatureActivationMap(net, "mixing", references=x[:1], layer_to_grid=wrap()).attribute(x)
    assert result.shape == (2, 1, 2, 8)
    by_hand = FeatureActivationMap(net, net.mixing, x[:1], layer_to_grid=lambda t: layer_to_grid(t, size=(2, 8)))
    torch.testing.assert_close(result, by_hand.attribute(x))
    with capture(net, "mixing") as calls:
        net(x)
    place = FeatureAccentuation(net, layer_to_grid=wrap()).accentuate(x, objectives.neuron("mixing", 5, (1, 6)), **FEW)
    torch.testing.assert_close(place.before, calls[net.mixing][:, 8 + 6, 5].detach())
    assert layer_to_grid(torch.rand(2, 16, 3)).shape == (2, 3, 4, 4), "alone it makes a square"


def test_points_of_one_cloud():
    """(1, N, 2) through an MLP: the units are those of the Linear, the answer has every point's."""
    mlp, points = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3)), torch.rand(1, 40, 2)
    flat = NeuronCanvas(mlp, "1").attribute(points[0])
    clouds = NeuronCanvas(mlp, "1").attribute(points)
    assert clouds.shape == (1, 6, 40, 3)
    torch.testing.assert_close(clouds[0].transpose(0, 1), flat)

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.last = nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.act(self.first(x)))

    net = Functional()
    with pytest.raises(LayerError, match=r"layer 'act' returns shape \(1, 40, 6\), and which axis holds the units"):
        NeuronCanvas(net, "act").attribute(points)
    assert NeuronCanvas(net, "act", unit_axis=-1).attribute(points).shape == (1, 6, 40, 3)
    assert NeuronCanvas(net, "act").attribute(points[0]).shape == (40, 6, 3), "(rows, units) needs no keyword"


def test_signals_keep_their_channels():
    net, x = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(28, 2)), torch.rand(3, 1, 9)
    a = net[:2](x).detach()
    (slope,) = torch.autograd.grad(net[2:](a.requires_grad_())[:, 1].sum(), a)
    assert torch.allclose(NeuronCanvas(net, "1").attribute(x, target=1), (a * slope).sum(2), atol=1e-6)


def test_unit_axis_with_pairs_raises(net):
    with pytest.raises(ValueError, match='unit_axis=-1 goes with unit="neuron"'):
        NeuronCanvas(net, "head", unit="pair", unit_axis=-1)
    with pytest.raises(ValueError, match=r"unit_axis is 7 for a layer of shape \(2, 4, 6, 5\)"):
        NeuronCanvas(net, "block", unit_axis=7).attribute(X)


def test_errors_of_selectors_name_the_layers_own_axes(net):
    with pytest.raises(IndexError, match=r"the layer's units are \(4, 6, 5\), so 9 must lie in \[-4, 3\]"):
        NeuronCanvas(net, "block").attribute(X, (9, 0, 0))


def test_the_model_is_restored(net, found):
    tokens = Tokens().eval()
    before, as_it_was = found(net), found(tokens)
    NeuronCanvas(net, "block").attribute(X)
    NeuronFeatureAccentuation(net, "block").accentuate(X, 1, **FEW)
    FeatureActivationMap(net, "block", references=X[:1]).attribute(X)
    with pytest.raises(ValueError, match="unit_axis is 3"):
        NeuronCanvas(tokens, "mixing", unit_axis=3).attribute(X)
    assert before.differences(net) == [] and as_it_was.differences(tokens) == []
