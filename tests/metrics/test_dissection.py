import pytest
import torch
from torch import nn

from xinc_captum import LayerError
from xinc_captum.metrics import ablated, concept_overlap, dissect, part_area


def painter():
    """A generator: latents 0 to 3 lay out four blobs in feature units, of which 0 and 1 paint red, 2 and 3 blue."""
    net = nn.Sequential(nn.Linear(4, 4 * 64, bias=False), nn.Unflatten(1, (4, 8, 8)), nn.ReLU(), nn.Conv2d(4, 3, 1))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net[0].weight.zero_()
        for unit in range(4):
            places = torch.randperm(64, generator=g)[:10]
            net[0].weight[unit * 64 + places, unit] = 1.0
        net[3].weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])[:, :, None, None])
        net[3].bias.zero_()
    return net


def colours(pictures):
    return torch.stack([pictures[:, 0] > 0.5, pictures[:, 2] > 0.5], 1)


def test_units_of_a_generator_and_what_goes_with_them():
    net, g = painter(), torch.Generator().manual_seed(1)
    latents = torch.rand(30, 4, generator=g).round() * 2
    masks = colours(net(latents))
    found = dissect(net, "2", latents, masks, generator=g, quantile=0.9)
    assert found.units_for(0).units.sort().values.tolist() == [0, 1]
    assert found.units_for(1).units.sort().values.tolist() == [2, 3]
    fallen = ablated(net, "2", latents, [0, 2, [0, 1]], lambda p: part_area(p, colours(p))[..., 0], batch_size=7)
    areas = part_area(net(latents), masks)[..., 0].mean(0).double()
    assert fallen[0, 0] > 0 and fallen[0, 1] == 0 and fallen[1, 0] == 0 and fallen[1, 1] > 0
    torch.testing.assert_close(fallen[2], torch.stack([areas[0], torch.tensor(0.0).double()]))


def test_units_of_a_classifier():
    g = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
        )
    pictures = torch.rand(9, 3, 8, 8, generator=g)
    masks = pictures[:, :1] > 0.7
    state = torch.get_rng_state()
    found = dissect(model, model[1], pictures, masks, generator=torch.Generator().manual_seed(3), batch_size=4)
    direct = concept_overlap(model[:2](pictures), masks, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(found.iou, direct.iou)
    fallen = ablated(model, "1", pictures, [3], lambda y: y, value=0.5)
    held = model[:2](pictures)
    held[:, 3] = 0.5
    torch.testing.assert_close(fallen[0].float(), (model(pictures) - model[2:](held)).mean(0))
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters()) and not model[1]._forward_hooks


def test_rows_without_a_score_do_not_count():
    model = nn.Sequential(nn.Identity())
    inputs = torch.tensor([[1.0, 2.0], [-1.0, 4.0]])
    fallen = ablated(model, "0", inputs, [1], lambda y: torch.where(y[:, :1] > 0, y, torch.nan))
    assert fallen.tolist() == [[0.0, 2.0]]


def test_what_does_not_fit_is_said():
    net, latents = painter(), torch.rand(4, 4)
    g = torch.Generator()
    with pytest.raises(LayerError, match=r"layer '0' returns \(4, 256\); concepts have places"):
        dissect(net, "0", latents, torch.ones(4, 1, 8, 8), generator=g)
    with pytest.raises(ValueError, match=r"units are \[4\]; wanted some of 0 to 3"):
        ablated(net, "2", latents, [4], lambda p: p.flatten(1))
    with pytest.raises(ValueError, match=r"score gave \(4, 3, 8, 8\) for 4 inputs; wanted a tensor \(4, scores\)"):
        ablated(net, "2", latents, [0], lambda p: p)
    with pytest.raises(ValueError, match="got 4 inputs and 0 entries of units"):
        ablated(net, "2", latents, [], lambda p: p.flatten(1))
    assert not net[2]._forward_hooks


class Last(nn.Module):
    """Maps (n, h, w, units) of a picture."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU())

    def forward(self, x):
        return self.block(x.permute(0, 2, 3, 1)).mean((1, 2))


def test_units_on_the_last_axis():
    net, x = Last(), torch.rand(6, 3, 8, 8)
    first = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    first[0].weight.data = net.block[0].weight.data[:, :, None, None]
    masks = x[:, :1] > 0.8
    for axis in (None, -1):
        seed = lambda: torch.Generator().manual_seed(0)
        found = dissect(net, "block", x, masks, generator=seed(), unit_axis=axis)
        torch.testing.assert_close(found.iou, dissect(first, "1", x, masks, generator=seed()).iou)
        fell = ablated(net, "block", x, [2, [0, 1]], lambda y: y, unit_axis=axis)
        y = net(x).double().mean(0)
        by_hand = torch.stack([y * (torch.arange(4) == 2), y * (torch.arange(4) < 2)])
        torch.testing.assert_close(fell, by_hand.detach(), atol=1e-6, rtol=1e-5)
