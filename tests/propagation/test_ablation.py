"""Ablation against a forward pass worked out by hand."""

import pytest
import torch
from torch import nn

from xinc_captum import Ablation, NeuronCanvas
from xinc_captum.attributions.canvas.rules import Tail
from xinc_captum.batch import Batch
from xinc_captum.inr import FourierMLP


@pytest.mark.parametrize("baselines", [0.0, 0.5, "mean", "resample", torch.full((6,), 0.25)])
def test_ablation_does_what_it_says(baselines):
    model, x = FourierMLP(hidden=6), torch.rand(8, 2)
    shares = NeuronCanvas(model, "activation1", rule=Ablation(baselines)).attribute(x, memory_budget=3000)
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


@pytest.mark.parametrize("rows", [2, 3, 7, 180])
def test_resampling_replaces_no_sample_by_itself_and_uses_each_once(rows):
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    batch = Batch.of(torch.arange(float(rows))[:, None])
    for seed in range(20):
        _, donors = Ablation("resample", seed=seed).prepared(Tail(net, net[0]), batch, rows)._donors
        assert not bool((donors == torch.arange(rows)).any())
        assert donors.sort().values.tolist() == list(range(rows))


@pytest.fixture
def images():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)), torch.rand(1, 1, 4, 4)


def test_the_mean_of_one_image_is_taken_over_its_places(images):
    net, x = images
    found = NeuronCanvas(net, "1", rule=Ablation("mean")).attribute(x)
    a = net[:2](x)
    assert found.shape == (1, 3, 2) and bool(found.any())
    for u in range(3):
        level = a.clone()
        level[:, u] = a[:, u].mean()
        torch.testing.assert_close(found[:, u], net(x) - net[2:](level))


def test_several_images_keep_their_mean_place_by_place(images):
    net, _ = images
    x = torch.rand(4, 1, 4, 4)
    found = NeuronCanvas(net, "1", rule=Ablation("mean")).attribute(x)
    a = net[:2](x)
    level = a.clone()
    level[:, 1] = a[:, 1].mean(0)
    torch.testing.assert_close(found[:, 1], net(x) - net[2:](level))


def test_one_sample_without_another_is_refused(images):
    net, x = images
    for unit in ("neuron", "pair"):
        with pytest.raises(
            ValueError, match=r"takes the value of each unit from another sample, and the batch has only"
        ):
            NeuronCanvas(net, "0", rule=Ablation("resample"), unit=unit).attribute(x)
    with pytest.raises(ValueError, match=r"layer '3' has shape \(1, 2\): one place for each unit. Give at least two"):
        NeuronCanvas(net, "3", rule=Ablation("mean")).attribute(x)
    with pytest.raises(ValueError, match="one place for each unit"):
        NeuronCanvas(net, "3", rule=Ablation("mean"), unit="pair").attribute(x)
    with pytest.raises(ValueError, match="another sample"):
        frames = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1))
        NeuronCanvas(frames, "1", rule=Ablation("resample")).canvas(x, (4, 4))
