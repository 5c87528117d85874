import math

import numpy as np
import pytest
import torch

from xinc_captum.inr import (
    FourierFeatures,
    LogFrequencies,
    NerfFrequencies,
    coordinates,
    pixel_centres,
    ray_samples,
    ray_weights,
    times,
)


def test_longer_side_spans_the_range():
    grid = coordinates((3, 5)).reshape(3, 5, 2)
    assert grid[0, :, 1].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert grid[:, 0, 0].tolist() == [-1, -0.5, 0], "pixels are square: the shorter axis ends early"


def test_rows_of_the_papers_image_end_below_zero():
    assert coordinates((128, 256))[:, 0].max().item() == pytest.approx(-0.0039, abs=1e-4)


def test_double_size_covers_the_same_range():
    np.testing.assert_allclose(coordinates((9, 9)).reshape(9, 9, 2)[::2, ::2], coordinates((5, 5)).reshape(5, 5, 2))


def test_dims_dtypes_and_single_pixels():
    assert coordinates((2, 3, 4), dtype=torch.float64).shape == (24, 3)
    assert coordinates((4, 1), dtype=torch.float64).dtype == torch.float64
    assert coordinates((1,)).tolist() == [[-1.0]]
    for size in ((), (0, 3)):
        with pytest.raises(ValueError, match="expected at least one side, each of at least 1 pixel"):
            coordinates(size)


def test_times_span_zero_to_one():
    assert times(5).flatten().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert times(1).tolist() == [[0.0]]
    assert times(2, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="frames is 0; expected at least 1"):
        times(0)


def test_pixel_centres():
    """Edges at -1 and 1 on every axis: two rows at -1/2 and 1/2, four columns at -3/4, -1/4, 1/4, 3/4."""
    where = pixel_centres((2, 4), dtype=torch.float64)
    assert where[:, 0].tolist() == [-0.5] * 4 + [0.5] * 4
    assert where[:4, 1].tolist() == [-0.75, -0.25, 0.25, 0.75]
    with pytest.raises(ValueError, match=r"size is \(2, 0\); expected at least one side"):
        pixel_centres((2, 0))


def test_fourier_features_are_sines_then_cosines():
    encode = FourierFeatures(2, 3, scale=2.0, generator=torch.Generator().manual_seed(0))
    x = torch.rand(5, 2)
    angle = 2 * math.pi * x @ encode.B.T
    assert torch.equal(encode(x), torch.cat([angle.sin(), angle.cos()], 1))
    assert "B" in encode.state_dict()
    assert encode.out_features == 6
    assert 1.0 < FourierFeatures(2, 4000, scale=2.0).B.std() < 3.0


def test_nerf_frequencies_are_octaves():
    encoded = NerfFrequencies(2, 3)(torch.tensor([[0.25, 0.0]]))
    angles = [0.25 * math.pi * 2**k for k in range(3)] + [0.0] * 3
    torch.testing.assert_close(encoded[0], torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]))
    assert repr(NerfFrequencies(2, 3)) == "NerfFrequencies(in_features=2, octaves=3, base=2)"
    assert "scale=10.0" in repr(FourierFeatures())


def test_nerf_frequencies_with_another_base():
    encoded = NerfFrequencies(1, 3, base=1.25)(torch.tensor([[0.5]]))
    angles = [0.5 * math.pi * 1.25**k for k in range(3)]
    torch.testing.assert_close(encoded[0], torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]))


def test_logarithmic_frequencies_are_cosines_then_sines():
    """Frequencies 1, 4, 16 of each coordinate in turn."""
    encoded = LogFrequencies(2, 3, highest=16.0)(torch.tensor([[0.125, -0.5]]))
    angles = [math.pi * x * w for x in (0.125, -0.5) for w in (1, 4, 16)]
    expected = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    torch.testing.assert_close(encoded[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        LogFrequencies(1, 1, unit=1.0)(torch.tensor([0.5])), torch.tensor([math.cos(0.5), math.sin(0.5)])
    )
    assert repr(LogFrequencies(1, 3, 8.0, 1.0)) == "LogFrequencies(in_features=1, count=3, highest=8, unit=1)"
    with pytest.raises(ValueError, match="count is 2 and highest is 0; expected at least 1, and more than 0"):
        LogFrequencies(2, 2, 0)


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


def test_invalid_rays_are_refused():
    with pytest.raises(ValueError, match=r"size is \(2, 0\) with 3 samples a ray; expected at least one"):
        ray_samples((2, 0), 3)
    with pytest.raises(ValueError, match=r"density has shape \(4, 5\); expected \(rays, samples, 1\)"):
        ray_weights(torch.rand(4, 5), 0.1)
