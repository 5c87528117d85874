"""Pairs of units, worked out by hand under every rule."""

import pytest
import torch

from xinc_captum import NeuronCanvas


def test_pairs_worked_out_by_hand(hand_net):
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
