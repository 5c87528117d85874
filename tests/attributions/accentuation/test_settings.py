import pytest
import torch

from xinc_captum import FeatureAccentuation
from xinc_captum.attributions.accentuation import Crops, FeatureDistance, Fourier, Noise, Options, Settings, faccent
from xinc_captum.attributions.accentuation.settings import settings_of


def test_every_option_is_a_setting():
    assert set(Options.__annotations__) == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("name", ["n_steps", "n_draws", "mask_every", "internal_batch_size"])
def test_counts_begin_at_one(name):
    with pytest.raises(ValueError, match=f"{name} is 0; expected a whole number, at least 1"):
        Settings(**{name: 0})


def test_what_cannot_be():
    for lr in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lr is .*; expected a finite number above 0"):
            Settings(lr=lr)
    with pytest.raises(ValueError, match="dose and activation both say where to stop; give one"):
        Settings(dose=1, activation=2.0)
    with pytest.raises(TypeError, match="steps"):
        Settings(steps=3)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"steps": 3}, TypeError, r"'steps' is no option; expected some of n_steps, lr, optimizer"),
        (
            {"regularizer": "layer2"},
            TypeError,
            r"regularizer is 'layer2'; expected FeatureDistance\(layer, weight\), Ball",
        ),
        ({"regularizer": 1.0}, TypeError, r"regularizer is 1.0; expected FeatureDistance"),
        (
            {"transforms": Crops(2)},
            TypeError,
            r"transforms is Crops\(.*; expected a list or tuple of views, such as \[Crop",
        ),
        ({"optimizer": "adam"}, TypeError, "optimizer is 'adam'; expected a class such as torch.optim.Adam"),
        ({"n_steps": 2.5}, ValueError, "n_steps is 2.5; expected a whole number, at least 1"),
    ],
    ids=lambda value: "" if isinstance(value, type | str) else next(iter(value)),
)
def test_what_makes_no_sense_is_said(options, error, text):
    with pytest.raises(error, match=text):
        settings_of(options)
    assert settings_of({"n_steps": 3}) == Settings(n_steps=3)


def test_the_originals_numbers():
    settings = Settings(**faccent("layer2", weight=0.5))
    assert (settings.n_steps, settings.lr, settings.mask_every) == (99, 0.05, 1)
    assert settings.n_draws >= settings.n_steps, "new views every step"
    assert settings.parameterization == Fourier(decay=1.0, desaturation=5.0, margin=1e-6)
    crops, noise = settings.transforms
    assert isinstance(crops, Crops) and (crops.count, crops.side, crops.edge) == (16, (0.05, 0.99), 0)
    two_kinds = 0.02 * torch.randn(200_000) + 0.02 * (torch.rand(200_000) - 0.5)
    assert noise == Noise(pytest.approx(float(two_kinds.std()), rel=0.01), 0.0)
    assert settings.regularizer == FeatureDistance("layer2", 0.5, smooth=0.0)
    assert faccent()["regularizer"] is None


def test_it_runs_and_can_be_changed(smooth):
    x = torch.rand(1, 3, 12, 12)
    found = FeatureAccentuation(smooth).accentuate(x, target=1, **faccent("1") | {"n_steps": 3})
    assert found.layer == "1" and found.distances.shape == (3, 1)
    assert found.after > found.before
