import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter

from xinc_captum import FeatureAccentuation
from xinc_captum.attributions.accentuation import Crops, FeatureDistance, opacity, result
from xinc_captum.attributions.accentuation.result import blur
from xinc_captum.store import StoreError, sha256

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def accentuation(smooth):
    return FeatureAccentuation(smooth).accentuate(X, target=[1, 2], n_steps=2, dose=[0.0, 0.001], seed=3)


def test_opacity_method_equals_the_function(accentuation):
    assert torch.equal(accentuation.opacity(), opacity(accentuation.masks, 97, 3))
    assert torch.equal(accentuation.opacity(50, 0), opacity(accentuation.masks, 50, 0))


def test_trust_is_computed_once_with_the_current_model(smooth):
    passes = []
    result = FeatureAccentuation(smooth).accentuate(X, target=1, n_steps=2, natural=torch.rand(4, 3, 12, 12))
    smooth.register_forward_hook(lambda *_: passes.append(1))
    assert result.trust is result.trust and passes
    count = len(passes)
    assert str(result.trust).startswith(f"{result.trust.verdict}, because ")
    assert len(passes) == count


def test_a_saved_result_can_be_loaded(accentuation, tmp_path):
    folder = accentuation.save(tmp_path / "result")
    tensors = load_file(folder / "accentuation.safetensors")
    assert set(tensors) == {"images", "masks", "seeds", "scores", "distances", "before", "after", "dose", "level"}
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, getattr(accentuation, name), rtol=0, atol=0, equal_nan=True)
    image = np.asarray(Image.open(folder / "row1_accentuated.png"))
    np.testing.assert_allclose(image / 255, accentuation.images[1].permute(1, 2, 0), atol=0.5 / 255 + 1e-6)
    through = np.asarray(Image.open(folder / "row0_through_mask.png"))
    np.testing.assert_allclose(through[..., 3] / 255, accentuation.opacity()[0, 0], atol=0.5 / 255 + 1e-6)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["outputs"]["accentuation.safetensors"] == sha256(folder / "accentuation.safetensors")
    assert (manifest["feature"], manifest["layer"], manifest["steps"]) == (
        accentuation.feature,
        accentuation.layer,
        accentuation.steps,
    )
    assert manifest["settings"]["seed"] == 3 and manifest["settings"]["regularizer"]["kind"] == "FeatureDistance"
    assert manifest["settings"]["optimizer"] == "Steepest", "functions and classes by their names"
    assert manifest["trust"]["verdict"] == accentuation.trust.verdict


def test_images_with_one_or_other_numbers_of_channels_are_saved(tmp_path):
    for channels, images in ((1, 2), (5, 0)):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * 64, 2))
        result = FeatureAccentuation(net).accentuate(torch.rand(1, channels, 8, 8), target=1, n_steps=1)
        folder = result.save(tmp_path / str(channels))
        assert len(list(folder.glob("*.png"))) == images
        assert load_file(folder / "accentuation.safetensors")["images"].shape[1] == channels


def test_settings_without_a_json_type_are_saved_by_name(smooth, tmp_path):
    result = FeatureAccentuation(smooth).accentuate(
        X,
        target=1,
        n_steps=1,
        contrast=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 3)),
        natural=torch.rand(3, 3, 12, 12),
        transforms=(Crops(2), torch.relu),
        regularizer=FeatureDistance(smooth[1]),
        activation=torch.tensor([5.0, 6.0]),
    )
    settings = json.loads((result.save(tmp_path / "r") / "manifest.json").read_text())["settings"]
    assert settings["contrast"] == "Sequential" and settings["natural"] == "tensor (3, 3, 12, 12)"
    assert settings["activation"] == [5, 6] and settings["regularizer"]["layer"] == "Softplus"


def test_files_are_written_atomically(accentuation, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(result, "_write", full)
        with pytest.raises(OSError, match="no space left"):
            accentuation.save(tmp_path / "result")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not an earlier result"):
        accentuation.save(tmp_path / "mine")


def test_a_result_from_noise_is_saved_without_seeds(smooth, tmp_path):
    result = FeatureAccentuation(smooth).accentuate(None, target=1, shape=(1, 3, 12, 12), n_steps=1)
    tensors = load_file(result.save(tmp_path / "r") / "accentuation.safetensors")
    assert set(tensors) == {"images", "masks", "scores", "after"}


def test_opacity_by_hand():
    """Means over channels 0, 1, 2, 3, 4: the 75th percentile is 3, so 3 and 4 are drawn in full."""
    masks = torch.stack([torch.arange(5.0) - 1, torch.arange(5.0) - 1]).abs().reshape(1, 2, 1, 5)
    masks[0, 0, 0], masks[0, 1, 0] = torch.arange(5.0) * 2, 0
    assert opacity(masks, 75, 0).flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_the_recorded_mask(recorded):
    ours = opacity(recorded["traj_fourier_noreg_alpha"], 80, 2)
    torch.testing.assert_close(ours[0, 0], recorded["alpha_mask_p20_sigma2"], atol=1e-5, rtol=0)


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    percentile=st.floats(1, 100),
    sigma=st.floats(0.3, 4),
    seed=st.integers(0, 99),
)
def test_opacity_equals_numpy_and_scipy(height, width, percentile, sigma, seed):
    masks = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    ours = opacity(masks, percentile, sigma)
    assert ours.shape == (2, 1, height, width) and ours.min() >= 0 and ours.max() <= 1
    for mask, mine in zip(masks.mean(1).numpy(), ours[:, 0].numpy(), strict=True):
        clipped = np.minimum(mask, np.percentile(mask, percentile))
        np.testing.assert_allclose(mine, gaussian_filter(clipped / clipped.max(), sigma), atol=1e-4)


def test_a_map_smaller_than_the_blur_keeps_its_sum():
    maps = torch.rand(1, 1, 2, 3)
    assert float(blur(maps, 5.0).sum()) == pytest.approx(float(maps.sum()), rel=1e-4)


def test_a_mask_of_zeros_has_opacity_zero():
    assert torch.equal(opacity(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("wrong", [(0, 2), (101, 2), (80, -1)])
def test_impossible_percentile_or_sigma_raises(wrong):
    with pytest.raises(ValueError, match=f"percentile={wrong[0]}, sigma={wrong[1]}; expected 0 < percentile <= 100"):
        opacity(torch.ones(1, 1, 2, 2), *wrong)
