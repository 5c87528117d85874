"""All rules side by side: answers worked out by hand, selectors, names."""

import pytest
import torch

from xinc_captum import Ablation, NeuronCanvas, Secant, Tangent
from xinc_captum.attributions.canvas.rules import as_rule
from xinc_captum.inr import FourierMLP


def test_worked_out_by_hand(hand_net):
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
