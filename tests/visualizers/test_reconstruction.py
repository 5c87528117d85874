import pytest
import torch

from xinc_captum.visualizers import frames_beside_drawn

FRAMES = torch.rand(5, 3, 12, 18, generator=torch.Generator().manual_seed(0))


def test_frames_drawing_difference_and_every_frames_decibels(legible):
    drawn = (FRAMES + 0.1).clamp(0, 1)
    figure = frames_beside_drawn(FRAMES, drawn, [30.0, 31.5, 29.0, 40.0, 33.0], columns=3)
    legible(figure)
    words = [text.get_text() for text in figure.texts]
    assert [word for word in words if word.startswith("frame ")] == ["frame 0", "frame 2", "frame 4"]
    assert "mean 32.7, worst 29.0" in " ".join(words)
    clip, picture, missing, curve = (figure.axes[i] for i in (0, 3, 6, 9))
    assert torch.allclose(torch.as_tensor(clip.images[0].get_array()), FRAMES[0].permute(1, 2, 0))
    assert torch.allclose(torch.as_tensor(picture.images[0].get_array()), drawn[0].permute(1, 2, 0))
    gap = torch.as_tensor(missing.images[0].get_array())
    assert torch.allclose(gap, (FRAMES - drawn)[0].mean(0), atol=1e-6), "red where it is drawn too dark"
    assert curve.lines[0].get_ydata().tolist() == [30.0, 31.5, 29.0, 40.0, 33.0]


def test_the_scale_of_the_difference_is_said():
    figure = frames_beside_drawn(FRAMES, FRAMES - 0.05, [26.0] * 5)
    assert "full colour at 5.0 % of white" in " ".join(text.get_text() for text in figure.texts)


def test_what_does_not_match_is_refused():
    with pytest.raises(ValueError, match="there are 4 decibels; wanted one shape and one number a frame"):
        frames_beside_drawn(FRAMES, FRAMES, [1.0] * 4)
    with pytest.raises(ValueError, match=r"drawn \(4, 3, 12, 18\)"):
        frames_beside_drawn(FRAMES, FRAMES[:4], [1.0] * 5)
