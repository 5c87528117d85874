import math

import pytest
import torch

from xinc_captum.inr import ray_samples, ray_weights


def test_samples_lie_on_their_rays():
    points = ray_samples((2, 4), 3, half=2.0, dtype=torch.float64)
    assert points.shape == (8, 3, 3)
    assert points[:, 0, 0].tolist() == [-1.0] * 4 + [1.0] * 4
    assert points[:4, 2, 1].tolist() == [-3.0, -1.0, 1.0, 3.0]
    torch.testing.assert_close(points[5, :, 2], torch.tensor([-4 / 3, 0, 4 / 3], dtype=torch.float64))


def test_quarter_turn_rotates_the_camera():
    straight, turned = ray_samples((3, 3), 3), ray_samples((3, 3), 3, turn=math.pi / 2)
    torch.testing.assert_close(turned[..., 0], straight[..., 0])
    torch.testing.assert_close(turned[..., 1], -straight[..., 2])
    torch.testing.assert_close(turned[..., 2], straight[..., 1])


def test_ray_weights_equal_hand_computed_values():
    density = torch.tensor([[[0.0], [1.0], [2.0]]], dtype=torch.float64)
    alpha = [1 - math.exp(-s * 0.5) for s in (0.0, 1.0, 2.0)]
    by_hand = [alpha[0], (1 - alpha[0]) * alpha[1], (1 - alpha[0]) * (1 - alpha[1]) * alpha[2]]
    torch.testing.assert_close(ray_weights(density, 0.5).flatten().tolist(), by_hand)
    assert float(ray_weights(torch.full((1, 5, 1), 1e4), 1.0).sum()) == 1.0


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match=r"size is \(2, 0\) with 3 samples a ray; expected at least one"):
        ray_samples((2, 0), 3)
    with pytest.raises(ValueError, match=r"density has shape \(4, 5\); expected \(rays, samples, 1\)"):
        ray_weights(torch.rand(4, 5), 0.1)
