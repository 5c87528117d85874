import math

import pytest
import torch
from torch import nn

from xinc_captum.inr import FourierMLP, Siren, fit, psnr, render


def ramp(channels=3, *size):
    return torch.linspace(0, 1, math.prod(size)).reshape(1, *size).expand(channels, *size).clone()


@pytest.mark.parametrize("size", [(30,), (8, 12), (4, 5, 6)])
@pytest.mark.parametrize("kind", ["ffn", "siren"])
def test_it_learns_signals_of_any_dims(size, kind):
    make = {
        "ffn": lambda: FourierMLP(len(size), 2, hidden=24, scale=1.0, seed=0),
        "siren": lambda: Siren(len(size), 2, hidden=24, seed=0),
    }
    model = make[kind]()
    result = fit(model, ramp(2, *size), steps=150, lr=5e-3, show_progress=False)
    assert result.psnr > 25
    assert result.curve[0] < result.curve[-1]
    assert render(model, size).shape == (2, *size)
    assert result.psnr == pytest.approx(psnr(render(model, size), ramp(2, *size)), abs=1e-4)


def test_it_stops_at_its_target():
    result = fit(
        FourierMLP(hidden=24, scale=1.0, seed=0), ramp(3, 8, 8), steps=2000, target_psnr=25, show_progress=False
    )
    assert result.steps < 2000
    assert result.psnr >= 25


def test_the_seed_decides_the_minibatches_and_nothing_else_is_touched(found):
    models = [FourierMLP(hidden=8, seed=0) for _ in range(3)]
    models[0].linear1.weight.grad = torch.ones_like(models[0].linear1.weight)
    models[0].eval()
    before = found(models[0])
    for model, seed in zip(models, (0, 0, 1), strict=True):
        fit(model, ramp(3, 8, 8), steps=5, batch_size=16, seed=seed, show_progress=False)
    first, second, third = (m.linear1.weight for m in models)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert {one for one in before.differences(models[0]) if "version" not in one} == {"weights"}


def test_frozen_parameters_stay():
    model = FourierMLP(hidden=8, seed=0)
    model.linear1.requires_grad_(False)
    weight = model.linear1.weight.clone()
    fit(model, ramp(3, 4, 4), steps=3, show_progress=False)
    assert torch.equal(model.linear1.weight, weight)


def test_under_no_grad():
    with torch.no_grad():
        assert fit(FourierMLP(hidden=8, seed=0), ramp(3, 4, 4), steps=3, show_progress=False).steps == 3


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), TypeError, "image is torch.uint8; wanted a float tensor in .*by 255"),
        ([[1.0]], TypeError, "image is list"),
        (torch.full((3, 4, 4), 2.0), ValueError, r"image values lie in \[2, 2\]; wanted \[0, 1\]"),
        (torch.full((3, 4, 4), float("nan")), ValueError, "image holds NaN"),
        (torch.zeros(3, 0, 4), ValueError, r"image has shape \(3, 0, 4\)"),
        (torch.zeros(4), ValueError, r"image has shape \(4,\)"),
        (torch.zeros(1, 4, 4), ValueError, r"the model answers \(1, 3\) for one pixel, but the image has 1 channels"),
        (torch.zeros(3, 4), ValueError, "cannot take coordinates of shape .rows, 1.*in_features=1"),
    ],
)
def test_pictures_that_cannot_be_fitted(image, error, text):
    with pytest.raises(error, match=text):
        fit(FourierMLP(hidden=4), image, show_progress=False)


def test_psnr_by_hand():
    assert psnr(torch.zeros(4), torch.full((4,), 0.1)) == pytest.approx(20)
    assert psnr(torch.zeros(4), torch.zeros(4)) == math.inf


def test_a_model_of_the_users_own():
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    assert fit(model, ramp(1, 4, 4), steps=2, show_progress=False).size == (4, 4)


@pytest.mark.cuda
def test_on_a_gpu():
    model = FourierMLP(hidden=24, scale=1.0, seed=0).cuda()
    result = fit(model, ramp(3, 8, 8), steps=200, batch_size=32, show_progress=False)
    assert result.psnr > 25
