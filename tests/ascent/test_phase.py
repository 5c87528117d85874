import zlib

import pytest
import torch

from xinc_captum.attributions.accentuation import Phase, natural_magnitude
from xinc_captum.attributions.accentuation.ascend import ascend
from xinc_captum.attributions.accentuation.color import decorrelate
from xinc_captum.attributions.accentuation.objectives import logit
from xinc_captum.attributions.accentuation.parameterizations import frequencies, unseeded
from xinc_captum.attributions.accentuation.phase import resize_magnitude


def test_phases_are_the_recorded_ones(recorded):
    x = recorded["seed_image"]
    (phases,), decode = Phase(margin=1e-6).at(x)
    turn = torch.polar(torch.ones(()), phases - recorded["phase_phase"])
    torch.testing.assert_close(turn, torch.ones_like(turn), atol=1e-4, rtol=0)
    torch.testing.assert_close(decode((phases,)), x, atol=1e-5, rtol=0)


def test_the_originals_gate_takes_some_off(recorded):
    x = recorded["seed_image"]
    params, decode = Phase(margin=1e-6, gate=5.0).at(x)
    assert 1e-3 < (decode(params) - x).abs().max() < 2e-3


def climbed(recorded, tiny, magnitude=None):
    """Six steps of phases and gates, before each the image."""
    params, decode = Phase(margin=1e-6, gate=5.0).at(recorded["seed_image"])
    if magnitude is not None:
        _, decode = Phase(gate=5.0)._start(params[0], magnitude, (64, 64))
    leaves, images = tuple(p.clone().requires_grad_() for p in params), []
    unit = int(recorded["meta"][3])
    climb = ascend(
        leaves,
        lambda: decode(leaves),
        lambda x, _: (logit(unit)(tiny.read(x, (), [], whole=True)), None),
        n_steps=6,
        on_step=lambda step, x, scores: images.append(x),
    )
    return torch.cat(images), climb


def test_recorded_trajectory(recorded, tiny):
    images, climb = climbed(recorded, tiny)
    steps = recorded["traj_steps"]
    assert steps.tolist() == [1, 2, 5]
    torch.testing.assert_close(images[[1, 2]], recorded["traj_phase_noreg_images"][:2], atol=1e-5, rtol=0)
    torch.testing.assert_close(climb.scores[:3, 0].double(), recorded["traj_phase_noreg_loss"][:3], atol=0, rtol=1e-5)


def test_recorded_trajectory_to_its_end(recorded, tiny):
    """At the fourth step a ReLU sits on its kink, and the magnitude's last bit decides which way it goes."""
    theirs = recorded["color_decorrelated"].contiguous(memory_format=torch.channels_last)
    magnitude = torch.fft.rfft2(theirs).abs()
    if zlib.crc32(magnitude.contiguous().numpy().tobytes()) != int(recorded["phase_magnitude_crc32"]):
        pytest.skip("this machine's Fourier transform rounds otherwise than the recording's")
    images, climb = climbed(recorded, tiny, magnitude)
    torch.testing.assert_close(images[[1, 2, 5]], recorded["traj_phase_noreg_images"], atol=1e-5, rtol=0)
    torch.testing.assert_close(climb.scores[:, 0].double(), recorded["traj_phase_noreg_loss"], atol=0, rtol=1e-5)
    alpha = recorded["traj_phase_noreg_alpha"]
    assert (climb.mask - alpha).abs().max() <= 1e-4 * alpha.abs().max()


def test_magnitudes_stay_whatever_the_phases_do():
    x = torch.rand(1, 3, 10, 12) * 0.9 + 0.05
    params, decode = Phase().at(x)
    moved = decode((params[0] + torch.randn_like(params[0]),))
    before, after = (torch.fft.rfft2(decorrelate(torch.logit(y))).abs()[..., 1:-1] for y in (x, moved))
    torch.testing.assert_close(before, after, atol=1e-3, rtol=1e-3)
    assert (moved - x).abs().max() > 0.1


def test_the_natural_magnitude_is_the_mean():
    photos = torch.rand(3, 3, 6, 8) * 0.9 + 0.05
    each = torch.stack([torch.fft.rfft2(decorrelate(torch.logit(photo[None])))[0].abs() for photo in photos])
    torch.testing.assert_close(natural_magnitude(photos), each.mean(0), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (9, 15), (33, 8)])
def test_a_magnitude_fits_any_size_and_keeps_the_contrast(size):
    photos = torch.rand(4, 3, 16, 16) * 0.9 + 0.05
    magnitude = natural_magnitude(photos)
    resized = resize_magnitude(magnitude, size)
    assert resized.shape == (3, size[0], size[1] // 2 + 1)
    if size == (16, 16):
        torch.testing.assert_close(resized, magnitude, atol=1e-3, rtol=1e-4)
    _, draw = unseeded(Phase(magnitude), torch.zeros(2, 3, *size), torch.Generator().manual_seed(0))
    assert draw().shape == (2, 3, *size)
    assert 0.5 < float(torch.logit(draw().detach()).std() / torch.logit(photos).std()) < 2


def test_noise_falls_off_as_photos_do(generator):
    """Amplitude goes with 1/f: a slope of -1 on logarithmic axes, give or take."""
    (phases,), decode = Phase().random((4, 3, 96, 128), generator)
    pictures = decode((phases,))
    assert pictures.shape == (4, 3, 96, 128)
    spectrum = torch.fft.rfft2(pictures.mean(1) - pictures.mean((1, 2, 3))[:, None, None]).abs().mean(0)
    f = frequencies((96, 128)).float()
    band = (f > 0.02) & (f < 0.4)
    x, y = f[band].log(), spectrum[band].log()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / x.var(unbiased=False)
    assert -1.6 < slope < -0.8
    assert 0.1 < float(pictures.std()) < 0.35


def test_noise_wants_a_magnitude_with_the_pictures_channels(generator):
    one = Phase(natural_magnitude(torch.rand(2, 1, 8, 8)))
    with pytest.raises(ValueError, match="the magnitude has 1 channels, but the picture has 3; measure one from"):
        one.random((1, 3, 8, 8), generator)
    with pytest.raises(ValueError, match=r"the magnitude has 3 channels, but the picture has 2.*natural_magnitude\(ph"):
        Phase().random((1, 2, 8, 8), generator)


def test_a_flat_picture_has_no_phases_to_move():
    photos = torch.stack([torch.rand(3, 8, 8), torch.full((3, 8, 8), 0.3)])
    with pytest.raises(ValueError, match=r"image 1 is one flat colour.*Use Fourier\(\) or Pixel\(\), or start from"):
        Phase().at(photos)
