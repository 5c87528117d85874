"""Contributions of pairs against results by hand; sites against the contributions of all units."""

import pytest
import torch
from torch import nn

from xinc_captum import Ablation, LayerError, NeuronCanvas, Secant, Tangent
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.attributions.canvas.rules.kernels import DirectSite, Kernels
from xinc_captum.batch import Batch

LAYERS = [
    (nn.Linear(4, 6), ()),
    (nn.Conv1d(4, 6, 3, bias=False), (5,)),
    (nn.Conv2d(4, 6, 3, padding=1, stride=2), (5, 6)),
    (nn.Conv2d(4, 6, 3, padding="same", groups=2, padding_mode="reflect"), (5, 6)),
    (nn.Conv2d(4, 4, 3, dilation=2, groups=4), (5, 6)),
    (nn.Conv3d(4, 2, 2), (3, 3, 3)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (5, 6)),
    (nn.ConvTranspose1d(4, 6, 3, groups=2), (5,)),
]


@pytest.mark.parametrize(("layer", "space"), LAYERS, ids=str)
def test_kernel_outputs_and_their_sums(layer, space):
    layer = layer.double()
    kernels, x = Kernels(layer, "l"), torch.rand(2, 4, *space, dtype=torch.float64)
    y = layer(x).detach()
    parts = kernels.outputs(kernels.check(x), slice(None))
    assert parts.shape == (2, *kernels.shape, *y.shape[2:])
    bias = kernels.bias.reshape(1, -1, *[1] * len(space))
    torch.testing.assert_close(parts.sum(1) + bias, y)
    torch.testing.assert_close(kernels.outputs(x, slice(1, 3)), parts[:, :, 1:3])
    g = torch.rand_like(y)
    expected = (parts * g[:, None]).reshape(2, *kernels.shape, -1).sum(3)
    torch.testing.assert_close(kernels.sum_over_positions(x, g), expected)


def test_kernel_outputs_by_hand():
    conv = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([2.0, -3.0]).reshape(2, 1, 1, 1))
    parts = Kernels(conv, "c").outputs(torch.full((1, 1, 1, 1), 5.0), slice(None))
    assert parts.flatten().tolist() == [10.0, -15.0]


def test_other_layers_and_inputs_raise():
    with pytest.raises(LayerError, match=r"layer act is a GELU; pairs and the 'xinc' rule need a torch.nn.Linear or a"):
        Kernels(nn.GELU(), "act")
    with pytest.raises(LayerError, match=r"takes inputs of shape \(2, 4, 5\); .* need \(rows, channels, ...\) with 4"):
        Kernels(nn.Conv2d(4, 2, 1), "c").check(torch.rand(2, 4, 5))


def test_pairs_by_hand(hand_net):
    net, x = hand_net  # z = W1 x: pairs x_i W_ji = [[2, 4], [1, 0]] (in, out); then the last layer's weights
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


@pytest.mark.parametrize("rule", ["tangent", "secant"])
@pytest.mark.parametrize("site", ["stem", "blocks.0.0", "blocks.1.0", "head"])
@pytest.mark.parametrize("target", [None, (1, 2, 3)])
def test_pairs_sum_to_neurons(decoder, rule, site, target):
    model, t = decoder
    pairs = NeuronCanvas(model, site, rule=rule, unit="pair").attribute(t, target=target)
    neurons = NeuronCanvas(model, site, rule=rule).attribute(t, target=target, attribute_to_layer_input=True)
    torch.testing.assert_close(pairs.sum(2), neurons, atol=1e-12, rtol=1e-9)
    some = NeuronCanvas(model, site, rule=rule, unit="pair").attribute(t, [(0, 2), (-1, 0), (0, 0)], target=target)
    ins = -2 if rule == "secant" else -1
    torch.testing.assert_close(some, pairs[:, [0, ins, 0], [2, 0, 0]], atol=1e-12, rtol=1e-9)


RULES = {"tangent": Tangent(), "secant": Secant()}


def site_and_contributions(decoder, rule, pairs):
    model, t = decoder
    layer = model.blocks[0][0]
    tail, batch = Tail(model, layer, at_input=pairs), Batch.of(t)
    full = NeuronCanvas(model, layer, rule=rule, unit="pair" if pairs else "neuron").attribute(t)
    return rule.site(tail, batch, pairs, 2), full


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_neuron_site_with_remainder(decoder, rule):
    site, full = site_and_contributions(decoder, rule, pairs=False)
    units = [3, 0, 16] if rule.remainders else [3, 0]
    torch.testing.assert_close(site.maps(units), full[:, units])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_pair_site_with_remainders(decoder, rule):
    site, full = site_and_contributions(decoder, rule, pairs=True)
    pairs = [(1, 5), (0, 0), *([(3, 2), (3, 5)] if rule.remainders else [])]
    torch.testing.assert_close(site.maps(pairs), torch.stack([full[:, i, o] for i, o in pairs], 1))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("pairs", [False, True])
def test_sums_equal_sums_of_maps(decoder, rule, pairs):
    site, full = site_and_contributions(decoder, rule, pairs)
    weights = torch.rand(2, 3, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(site.sums(weights), torch.einsum("nfchw,f...chw->nf...", weights, full))


def test_direct_site_has_maps_only(decoder):
    site, full = site_and_contributions(decoder, Ablation(), pairs=False)
    assert isinstance(site, DirectSite)
    torch.testing.assert_close(site.maps([2, 1]), full[:, [2, 1]])
    assert site.sums(torch.ones(1, 3, 3, 8, 12, dtype=torch.float64)) is None
