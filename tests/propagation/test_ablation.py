"""Ablation against a forward pass worked out by hand."""

import pytest
import torch

from xinc_captum import Ablation, NeuronCanvas
from xinc_captum.inr import FourierMLP


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


def test_ablated_kernels_by_hand(decoder):
    model, t = decoder
    conv = model.blocks[1][0]
    pairs = NeuronCanvas(model, conv, rule="ablation", unit="pair").attribute(t, perturbations_per_eval=5)
    whole = model(t)
    with torch.no_grad():
        for i, o in ((0, 0), (3, 5)):
            kept = conv.weight[o, i].clone()
            conv.weight[o, i] = 0
            without = model(t)
            conv.weight[o, i] = kept
            torch.testing.assert_close(pairs[:, i, o], (whole - without).detach())
