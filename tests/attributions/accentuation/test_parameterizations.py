import math
import zlib

import pytest
import torch
from attributions.accentuation.problems import stub
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.accentuation import Fourier, Phase, Pixel, natural_magnitude
from xinc_captum.attributions.accentuation.objectives import logit
from xinc_captum.attributions.accentuation.optimization import optimize
from xinc_captum.attributions.accentuation.parameterizations import (
    decorrelate,
    frequencies,
    frequency_scale,
    recorrelate,
    resize_magnitude,
    start_from_images,
    start_from_noise,
)

ALL = pytest.mark.parametrize("kind", [Fourier(), Pixel(), Phase()], ids=lambda kind: type(kind).__name__)


def picture(kind):
    """Images that fail in the original implementations."""
    torch.manual_seed(1)
    shapes = {"odd": (2, 3, 65, 63), "wide": (1, 3, 20, 47), "tall odd": (1, 3, 33, 8), "tiny": (1, 3, 1, 2)}
    channels = {f"{c} channels": (2, c, 28, 28) for c in (1, 2, 4, 7)}
    x = torch.rand((shapes | channels).get(kind, (2, 3, 32, 32)))
    if kind == "low contrast":
        return 0.5 + (x - 0.5) / 100
    if kind == "saturated":
        return (x > 0.5).float()
    return x


def decibels(a, b):
    return float(-10 * (a - b).detach().double().square().mean().clamp_min(1e-30).log10())


@ALL
@pytest.mark.parametrize(
    "name",
    "normal|low contrast|saturated|odd|wide|tall odd|tiny|1 channels|2 channels|4 channels|7 channels".split("|"),
)
def test_step_0_is_the_seed(kind, name):
    x = picture(name)
    params, draw = start_from_images(kind, x)
    assert decibels(draw(), x) >= 120
    assert all(p.shape[0] == x.shape[0] and p.requires_grad and p.is_leaf for p in params)
    slopes = torch.autograd.grad(draw().sum(), params)
    assert all(s.isfinite().all() for s in slopes)


@pytest.mark.parametrize("kind", [Fourier(), Pixel()])
def test_saturated_pixels_have_a_gradient(kind):
    x = torch.cat([torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.99)])
    params, draw = start_from_images(kind, x)
    assert torch.equal(draw(), x)
    (slope,) = torch.autograd.grad(draw().sum(), params[0])
    assert (slope.flatten(1).abs().sum(1) > 0).all()
    with torch.no_grad():
        params[0][0] -= 50
        params[0][1] += 50
    assert draw()[0].min() == 0 and draw()[1].max() == 1


def test_one_coefficient_by_hand():
    """A 2x2 picture's constant coefficient has scale 2 and adds p·2/√4 to every value."""
    params = torch.zeros(1, 1, 2, 2, 2)
    params[0, 0, 0, 0, 0] = 5 * math.log(3)  # logit .75, times the desaturation
    assert Fourier().decode((params,), (2, 2)).flatten().tolist() == pytest.approx([0.75] * 4)
    pixel = torch.full((1, 1, 1, 1), 5 * math.log(3))
    assert Pixel().decode((pixel,)).item() == pytest.approx(0.75)
    assert Pixel().encode(torch.full((1, 1, 1, 1), 0.75))[0].item() == pytest.approx(5 * math.log(3))


@given(height=st.integers(1, 9), width=st.integers(1, 9), decay=st.floats(0, 2), seed=st.integers(0, 99))
def test_round_trip_at_any_size(height, width, decay, seed):
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 0.96 + 0.02
    fourier = Fourier(decay)
    torch.testing.assert_close(fourier.decode(fourier.encode(x), (height, width)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(Pixel().decode(Pixel().encode(x)), x, atol=1e-5, rtol=0)


def test_recorded_images_and_parameters(recorded):
    x, fourier, close = recorded["seed_image"], Fourier(margin=1e-6), torch.testing.assert_close
    close(fourier.encode(x)[0], recorded["fourier_params"], atol=5e-5, rtol=1e-5)
    close(fourier.decode((recorded["fourier_params"],), (64, 64)), x, atol=1e-5, rtol=0)
    steep = Fourier(1.5, margin=1e-6)
    close(steep.encode(x)[0], recorded["fourier_params_decay1p5"], atol=5e-5, rtol=1e-5)
    close(steep.decode((recorded["fourier_params_decay1p5"],), (64, 64)), x, atol=1e-5, rtol=0)
    draws = fourier.decode((recorded["fourier_random_params"],), (64, 64))
    close(draws, recorded["fourier_random_image"], atol=1e-5, rtol=0)
    close(Pixel(margin=1e-6).encode(x)[0], 5 * recorded["color_decorrelated"], atol=5e-5, rtol=1e-5)


def test_recorded_scales(recorded):
    x, close = recorded["seed_image"], torch.testing.assert_close
    close(frequencies((64, 64)), recorded["fourier_freqs"], atol=1e-12, rtol=0)
    close(frequency_scale(x, 1.0), recorded["fourier_scale_decay1"], atol=0, rtol=1e-6)
    close(frequency_scale(x, 1.5), recorded["fourier_scale_decay1p5"], atol=0, rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (9, 12), (12, 9), (5, 5)])
def test_equals_lucents_spectrum(size):
    spatial = pytest.importorskip("lucent.optvis.param.spatial", reason="pip install torch-lucent")
    theirs = torch.from_numpy(spatial.rfft2d_freqs(*size))[:, : size[1] // 2 + 1]  # odd widths get a column too many
    torch.testing.assert_close(frequencies(size), theirs, atol=1e-12, rtol=0)


def test_equals_lucents_image():
    param = pytest.importorskip("lucent.optvis.param", reason="pip install torch-lucent")
    (params,), image_f = param.image(12, 8, decorrelate=True, fft=True)
    ours = Fourier(desaturation=4.0).decode((params,), (8, 12))  # Lucid's magic 4
    torch.testing.assert_close(ours, image_f(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [Fourier(), Pixel()])
def test_noise_depends_on_the_generator_alone(kind):
    like = torch.zeros(2, 3, 7, 9, dtype=torch.float64)
    draws = []
    for seed in (0, 0, 1):
        params, draw = start_from_noise(kind, like, torch.Generator().manual_seed(seed), 0, len(like))
        assert params[0].dtype == torch.float64 and params[0].is_leaf and params[0].requires_grad
        draws.append(draw())
        torch.rand(1)
    assert draws[0].shape == like.shape
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_larger_decay_gives_coarser_changes():
    """The same step in every coefficient changes smooth parts most where decay is 1, all alike where it is 0."""
    x, step = torch.full((1, 1, 32, 32), 0.5), torch.randn(1, 1, 32, 17, 2)
    fine = []
    for decay in (0.0, 1.0):
        fourier = Fourier(decay)
        change = fourier.decode((fourier.encode(x)[0] + 0.05 * step,), (32, 32)) - x
        energy = torch.fft.rfft2(change).abs().square()
        fine.append(float(energy[..., frequencies((32, 32)) > 0.25].sum() / energy.sum()))
    assert fine[0] > 0.7 > 0.4 > fine[1]


def test_phases_are_the_recorded_ones(recorded):
    x = recorded["seed_image"]
    (phases,), decode = Phase(margin=1e-6).at(x)
    turn = torch.polar(torch.ones(()), phases - recorded["phase_phase"])
    torch.testing.assert_close(turn, torch.ones_like(turn), atol=1e-4, rtol=0)
    torch.testing.assert_close(decode((phases,)), x, atol=1e-5, rtol=0)


def test_the_originals_gate_reduces_magnitudes(recorded):
    x = recorded["seed_image"]
    params, decode = Phase(margin=1e-6, gate=5.0).at(x)
    assert 1e-3 < (decode(params) - x).abs().max() < 2e-3


def six_steps(recorded, tiny, magnitude=None):
    """Six steps of phases and gates, before each the image."""
    params, decode = Phase(margin=1e-6, gate=5.0).at(recorded["seed_image"])
    if magnitude is not None:
        _, decode = Phase(gate=5.0)._start(params[0], magnitude, (64, 64))
    leaves, images = tuple(p.clone().requires_grad_() for p in params), []
    unit = int(recorded["meta"][3])
    evaluate = lambda x, _: (logit(unit)(tiny.run(x, (), [], to_output=True)), None)
    problem = stub(evaluate, recorded["seed_image"], n_steps=6, on_step=lambda step, x, scores: images.append(x))
    trajectory = optimize(problem, (leaves, lambda: decode(leaves)))
    return torch.cat(images), trajectory


def test_recorded_trajectory(recorded, tiny):
    images, trajectory = six_steps(recorded, tiny)
    steps = recorded["traj_steps"]
    assert steps.tolist() == [1, 2, 5]
    torch.testing.assert_close(images[[1, 2]], recorded["traj_phase_noreg_images"][:2], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        trajectory.scores[:3, 0].double(), recorded["traj_phase_noreg_loss"][:3], atol=0, rtol=1e-5
    )


def test_recorded_trajectory_to_its_end(recorded, tiny):
    """At the fourth step a ReLU sits on its kink, and rounding of the magnitude decides its sign."""
    theirs = recorded["color_decorrelated"].contiguous(memory_format=torch.channels_last)
    magnitude = torch.fft.rfft2(theirs).abs()
    if zlib.crc32(magnitude.contiguous().numpy().tobytes()) != int(recorded["phase_magnitude_crc32"]):
        pytest.skip("this machine's Fourier transform rounds otherwise than the recording's")
    images, trajectory = six_steps(recorded, tiny, magnitude)
    torch.testing.assert_close(images[[1, 2, 5]], recorded["traj_phase_noreg_images"], atol=1e-5, rtol=0)
    torch.testing.assert_close(trajectory.scores[:, 0].double(), recorded["traj_phase_noreg_loss"], atol=0, rtol=1e-5)
    alpha = recorded["traj_phase_noreg_alpha"]
    assert (trajectory.masks - alpha).abs().max() <= 1e-4 * alpha.abs().max()


def test_magnitudes_do_not_depend_on_the_phases():
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
def test_a_resized_magnitude_has_the_same_contrast(size):
    photos = torch.rand(4, 3, 16, 16) * 0.9 + 0.05
    magnitude = natural_magnitude(photos)
    resized = resize_magnitude(magnitude, size)
    assert resized.shape == (3, size[0], size[1] // 2 + 1)
    if size == (16, 16):
        torch.testing.assert_close(resized, magnitude, atol=1e-3, rtol=1e-4)
    _, draw = start_from_noise(Phase(magnitude), torch.zeros(2, 3, *size), torch.Generator().manual_seed(0), 0, 2)
    assert draw().shape == (2, 3, *size)
    assert 0.5 < float(torch.logit(draw().detach()).std() / torch.logit(photos).std()) < 2


def test_noise_has_the_spectrum_of_photos(generator):
    """Amplitude goes with 1/f: a slope of about -1 on logarithmic axes."""
    (phases,), decode = Phase().random((4, 3, 96, 128), generator)
    images = decode((phases,))
    assert images.shape == (4, 3, 96, 128)
    spectrum = torch.fft.rfft2(images.mean(1) - images.mean((1, 2, 3))[:, None, None]).abs().mean(0)
    f = frequencies((96, 128)).float()
    band = (f > 0.02) & (f < 0.4)
    x, y = f[band].log(), spectrum[band].log()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / x.var(unbiased=False)
    assert -1.6 < slope < -0.8
    assert 0.1 < float(images.std()) < 0.35


def test_a_magnitude_with_other_channels_raises(generator):
    one = Phase(natural_magnitude(torch.rand(2, 1, 8, 8)))
    with pytest.raises(ValueError, match="the magnitude has 1 channels, but the image has 3; measure one from"):
        one.random((1, 3, 8, 8), generator)
    with pytest.raises(ValueError, match=r"the magnitude has 3 channels, but the image has 2.*natural_magnitude\(ph"):
        Phase().random((1, 2, 8, 8), generator)


def test_an_image_of_one_colour_raises():
    photos = torch.stack([torch.rand(3, 8, 8), torch.full((3, 8, 8), 0.3)])
    with pytest.raises(ValueError, match=r"image 1 is one flat colour.*Use Fourier\(\) or Pixel\(\), or start from"):
        Phase().at(photos)


def test_colours_by_hand():
    one = torch.zeros(1, 3, 1, 1)
    one[0, 1] = 2  # the second axis is red against blue
    assert recorrelate(one).flatten().tolist() == pytest.approx([0.38965056, 0, -0.38965056])


def test_the_recorded_matrix_and_its_inverse(recorded):
    logits = torch.logit(recorded["seed_image"])
    eye = torch.eye(3)[:, :, None, None]
    assert torch.equal(recorrelate(eye)[:, :, 0, 0], recorded["color_matrix"])
    torch.testing.assert_close(decorrelate(eye)[:, :, 0, 0], recorded["color_matrix_inv"], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(decorrelate(logits), recorded["color_decorrelated"], atol=1e-5, rtol=0)
    torch.testing.assert_close(recorrelate(recorded["color_decorrelated"]), logits, atol=1e-5, rtol=0)


def test_equals_lucents_matrix():
    color = pytest.importorskip("lucent.optvis.param.color", reason="pip install torch-lucent")
    theirs = torch.from_numpy(color.color_correlation_normalized.T.copy())
    torch.testing.assert_close(
        recorrelate(torch.eye(3).to(theirs)[:, :, None, None])[:, :, 0, 0], theirs, atol=1e-6, rtol=0
    )
    values = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(recorrelate(values), color._linear_decorrelate_color(values), atol=1e-6, rtol=0)


@given(channels=st.integers(1, 7), seed=st.integers(0, 99))
def test_round_trip_at_any_number_of_channels(channels, seed):
    values = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(recorrelate(decorrelate(values)), values, atol=1e-5, rtol=1e-5)
    assert (recorrelate(values) is values) is (channels != 3), "only three channels are colours"


def test_float64_is_preserved():
    values = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(decorrelate(recorrelate(values)), values, atol=1e-13, rtol=1e-13)
