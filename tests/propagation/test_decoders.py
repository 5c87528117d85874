"""All rules on a small convolutional decoder: completeness, per-pixel backward passes, ablation by hand, pairs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum import NeuronCanvas

SITES = ["stem", "blocks.0.0", "blocks.0", "blocks.1.0", "blocks.1", "head"]


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


@pytest.mark.parametrize("site", SITES)
def test_secant_adds_up_at_every_block(decoder, site):
    model, t = decoder
    image = model(t).detach()
    shares = NeuronCanvas(model, site, rule="secant").attribute(t)
    assert (shares.sum(1) - image).abs().max() <= 1e-12 * image.abs().max()


@pytest.mark.parametrize("site", ["first", "norm", "up", "mix", "pool"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_secant_adds_up_through_everything(site, unit):
    if unit == "pair" and site in ("norm", "pool"):
        return
    model, x = Everything().double().eval(), torch.rand(2, 2, 3, 4, dtype=torch.float64)
    image = model(x).detach()
    shares = NeuronCanvas(model, site, rule="secant", unit=unit).attribute(x)
    assert (shares.flatten(1, -4).sum(1) - image).abs().max() <= 1e-12 * image.abs().max()


@pytest.mark.parametrize("site", SITES[:-1])
def test_tangent_is_a_backward_pass_of_every_pixel(decoder, site):
    model, t = decoder
    model, t = model.float(), t.float()
    whole = NeuronCanvas(model, site).attribute(t)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        c, y, x = (int(torch.randint(n, (1,), generator=generator)) for n in (3, 8, 12))
        alone = NeuronCanvas(model, site).attribute(t, target=(c, y, x))  # one output: one backward pass
        assert (whole[:, :, c, y, x] - alone).abs().max() <= 1e-6


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


@pytest.mark.parametrize("rule", ["tangent", "secant", "ablation"])
@pytest.mark.parametrize("unit", ["neuron", "pair"])
def test_any_budget_gives_the_same_frames(decoder, rule, unit):
    model, t = decoder
    canvas = NeuronCanvas(model, "blocks.0.0", rule=rule, unit=unit)
    torch.testing.assert_close(canvas.attribute(t, memory_budget=20_000), canvas.attribute(t), atol=1e-12, rtol=1e-9)
