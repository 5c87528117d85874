import math

import torch

from xinc_captum.inr import FourierFeatures, NerfFrequencies


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


def test_closer_steps_than_octaves():
    encoded = NerfFrequencies(1, 3, base=1.25)(torch.tensor([[0.5]]))
    angles = [0.5 * math.pi * 1.25**k for k in range(3)]
    torch.testing.assert_close(encoded[0], torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]))
