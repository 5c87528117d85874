import pytest
import torch
from torch import nn

from xinc_captum.attributions.nern import smoothness_loss
from xinc_captum.attributions.nern.smoothness import layer_roughness


def test_the_cosines_as_recorded(arrays, recorded):
    found = smoothness_loss(recorded, ["conv1", "conv2", "conv4"])
    torch.testing.assert_close(-found[None], arrays["smooth/cosine_term"], atol=0, rtol=1e-5)


def test_the_recorded_distances_hold_a_slip_that_ours_does_not(arrays, recorded):
    w = recorded.conv3.weight.detach()[:, :, 0, 0]
    unit = w / w.norm()
    slip = (w[:, 1:] - unit[:, :-1]).abs().sum() + (w[1:] - unit[:-1]).abs().sum()
    torch.testing.assert_close(-slip[None], arrays["smooth/cosine_l2_term_1x1"], atol=0, rtol=1e-5)
    by_hand = sum(abs(w[f, c] - w[f, c + 1]) for f in range(8) for c in range(7))
    by_hand += sum(abs(w[f, c] - w[f + 1, c]) for f in range(7) for c in range(8))
    torch.testing.assert_close(smoothness_loss(recorded, ["conv3"]), by_hand, atol=1e-4, rtol=0)


def test_training_with_it_makes_neighbours_alike():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 1))
    before = [layer_roughness(model[i].weight).item() for i in (0, 1)]
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        smoothness_loss(model).backward()
        optimizer.step()
    after = [layer_roughness(model[i].weight).item() for i in (0, 1)]
    assert all(a < b - 1 for a, b in zip(after, before, strict=True))


def test_one_kernel_has_no_neighbours():
    assert layer_roughness(torch.randn(1, 1, 3, 3)).item() == 0


def test_no_convolutions():
    with pytest.raises(ValueError, match=r"has no nn\.Conv2d"):
        smoothness_loss(nn.Linear(1, 1))
