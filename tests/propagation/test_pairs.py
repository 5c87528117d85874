"""Pairs of units, worked out by hand under every rule."""

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
