import pytest
import torch

from xinc_captum import FeatureAccentuation
from xinc_captum.attributions.accentuation import Crops, FeatureDistance, Fourier, Noise, Settings, faccent


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
