import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xinc_captum.attributions.accentuation import Fourier, Phase, Pixel
from xinc_captum.attributions.accentuation.parameterizations import frequencies, frequency_scale, seeded, unseeded

ALL = pytest.mark.parametrize("kind", [Fourier(), Pixel(), Phase()], ids=lambda kind: type(kind).__name__)


def picture(kind):
    """The images that the originals lose or crash on."""
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
    params, draw = seeded(kind, x)
    assert decibels(draw(), x) >= 120
    assert all(p.shape[0] == x.shape[0] and p.requires_grad and p.is_leaf for p in params)
    slopes = torch.autograd.grad(draw().sum(), params)
    assert all(s.isfinite().all() for s in slopes)


@pytest.mark.parametrize("kind", [Fourier(), Pixel()])
def test_saturated_pixels_can_still_move(kind):
    x = torch.cat([torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.99)])
    params, draw = seeded(kind, x)
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


def test_recorded_pictures_and_parameters(recorded):
    x, fourier, close = recorded["seed_image"], Fourier(margin=1e-6), torch.testing.assert_close
    close(fourier.encode(x)[0], recorded["fourier_params"], atol=5e-5, rtol=1e-5)
    close(fourier.decode((recorded["fourier_params"],), (64, 64)), x, atol=1e-5, rtol=0)
    steep = Fourier(1.5, margin=1e-6)
    close(steep.encode(x)[0], recorded["fourier_params_decay1p5"], atol=5e-5, rtol=1e-5)
    close(steep.decode((recorded["fourier_params_decay1p5"],), (64, 64)), x, atol=1e-5, rtol=0)
    drawn = fourier.decode((recorded["fourier_random_params"],), (64, 64))
    close(drawn, recorded["fourier_random_image"], atol=1e-5, rtol=0)
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


def test_equals_lucents_picture():
    param = pytest.importorskip("lucent.optvis.param", reason="pip install torch-lucent")
    (params,), image_f = param.image(12, 8, decorrelate=True, fft=True)
    ours = Fourier(desaturation=4.0).decode((params,), (8, 12))  # Lucid's magic 4
    torch.testing.assert_close(ours, image_f(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [Fourier(), Pixel()])
def test_noise_depends_on_the_generator_alone(kind):
    like = torch.zeros(2, 3, 7, 9, dtype=torch.float64)
    drawn = []
    for seed in (0, 0, 1):
        params, draw = unseeded(kind, like, torch.Generator().manual_seed(seed))
        assert params[0].dtype == torch.float64 and params[0].is_leaf and params[0].requires_grad
        drawn.append(draw())
        torch.rand(1)
    assert drawn[0].shape == like.shape
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_steeper_decay_moves_coarser():
    """The same step in every coefficient changes smooth parts most where decay is 1, all alike where it is 0."""
    x, step = torch.full((1, 1, 32, 32), 0.5), torch.randn(1, 1, 32, 17, 2)
    fine = []
    for decay in (0.0, 1.0):
        fourier = Fourier(decay)
        change = fourier.decode((fourier.encode(x)[0] + 0.05 * step,), (32, 32)) - x
        energy = torch.fft.rfft2(change).abs().square()
        fine.append(float(energy[..., frequencies((32, 32)) > 0.25].sum() / energy.sum()))
    assert fine[0] > 0.7 > 0.4 > fine[1]
