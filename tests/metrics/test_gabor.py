import numpy as np
import pytest
import scipy.ndimage
import torch

from xinc_captum.metrics import gabor_bank, gabor_regions, gabor_responses
from xinc_captum.metrics.gabor import ANGLES, FREQUENCIES, SIGMAS


def wave(angle, frequency, size=48):
    y, x = torch.meshgrid(*[torch.arange(float(size))] * 2, indexing="ij")
    along = x * np.cos(angle) + y * np.sin(angle)
    return (0.5 + 0.5 * torch.cos(2 * torch.pi * frequency * along)).expand(3, size, size)


def test_the_bank_is_the_whole_of_it():
    bank = gabor_bank()
    assert len(bank) == len(ANGLES) * len(SIGMAS) * len(FREQUENCIES) == 24
    assert len({tuple(k.flatten().tolist()) for k in bank}) == 24, "all four angles, not six filters four times"
    assert all(abs(complex(k.sum())) < 1e-12 for k in bank), "no answer to brightness"


@pytest.mark.parametrize("number", range(4))
def test_a_wave_is_answered_by_its_own_angle(number):
    responses = gabor_responses(wave(ANGLES[number], 0.25))[:, 12:-12, 12:-12].mean((1, 2)).view(4, 2, 3)
    assert int(responses[:, 1, 2].argmax()) == number
    assert responses[number, 1, 2] > 5 * responses[(number + 2) % 4, 1, 2], "not by the crossing one"


def test_any_phase_is_answered_alike():
    first, second = (gabor_responses(wave(0.0, 0.25).roll(shift, 2))[5, 20:28, 20:28] for shift in (0, 1))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_equals_scipy_s_convolution():
    picture = torch.rand(3, 20, 30)
    grey = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).double().numpy()
    for kernel, answer in list(zip(gabor_bank(), gabor_responses(picture), strict=True))[::5]:
        parts = [scipy.ndimage.convolve(grey, part.numpy(), mode="nearest") for part in (kernel.real, kernel.imag)]
        np.testing.assert_allclose(answer.numpy(), np.hypot(*parts), atol=1e-6)


def test_textures_are_told_apart():
    picture = torch.cat([wave(0.0, 0.25), wave(np.pi / 2, 0.25)], 2)  # stripes down, stripes across; same colours
    labels = gabor_regions(picture, 2)
    left, right = labels[8:-8, 8:40], labels[8:-8, 56:88]
    assert (left == left[0, 0]).double().mean() > 0.95 and (right == right[0, 0]).double().mean() > 0.95
    assert left[0, 0] != right[0, 0]


def test_eight_bits_are_refused():
    with pytest.raises(ValueError, match="Divide 8-bit values by 255: filtered as they are, they wrap around"):
        gabor_responses(torch.zeros(3, 8, 8, dtype=torch.uint8))
