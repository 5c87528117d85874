import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from xinc_captum.videos import read_video


def encoded(path, frames, codec="mpeg4", pixels="yuv420p", ratio=None):
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.sample_aspect_ratio = ratio or Fraction(1)
        for frame in frames:
            kind = "rgba" if frame.shape[-1] == 4 else "rgb24"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=kind)))
        file.mux(stream.encode())
    return path


CORNERS = torch.tensor([[0.0, 0.3], [0.6, 0.9]])  # upper left, upper right, lower left, lower right
ONE = 1 << 16
HELD = {  # a, b, c, d of the track header: to the right a x + c y, down b x + d y
    (ONE, 0, 0, ONE): CORNERS,
    (0, ONE, -ONE, 0): torch.tensor([[0.6, 0.0], [0.9, 0.3]]),
    (-ONE, 0, 0, -ONE): torch.tensor([[0.9, 0.6], [0.3, 0.0]]),
    (0, -ONE, ONE, 0): torch.tensor([[0.3, 0.9], [0.0, 0.6]]),
    (-ONE, 0, 0, ONE): torch.tensor([[0.3, 0.0], [0.9, 0.6]]),
    (ONE, 0, 0, -ONE): torch.tensor([[0.6, 0.9], [0.0, 0.3]]),
    (0, ONE, ONE, 0): torch.tensor([[0.0, 0.6], [0.3, 0.9]]),
    (0, -ONE, -ONE, 0): torch.tensor([[0.9, 0.3], [0.6, 0.0]]),
    (2 * ONE, 300, -300, 2 * ONE): CORNERS,
    (0, 0, 0, 0): CORNERS,
}


def held(path, matrix):
    """A video whose corners are CORNERS as stored, and whose display matrix begins with a, b, c, d."""
    frames = (CORNERS.repeat_interleave(24, 0).repeat_interleave(32, 1) * 255).round().byte()
    whole = encoded(path, frames[None, ..., None].repeat(2, 1, 1, 3).numpy())
    content = bytearray(whole.read_bytes())
    start = content.index(struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), content.index(b"tkhd"))
    content[start : start + 20] = struct.pack(">5i", matrix[0], matrix[1], 0, *matrix[2:])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("matrix", HELD)
def test_turns_and_mirrors_of_the_display_matrix(matrix, tmp_path):
    read = read_video(held(tmp_path / "video.mp4", matrix))
    assert read.shape[2:] == ((64, 48) if matrix[0] == 0 and matrix[1] else (48, 64))
    seen = read[0, 0][[6, -7]][:, [6, -7]]
    torch.testing.assert_close(seen, HELD[matrix], atol=0.05, rtol=0)


def test_a_slant_is_left_with_a_warning(tmp_path):
    path = held(tmp_path / "video.mp4", (46341, 46341, -46341, 46341))
    with pytest.warns(UserWarning, match=r"video.mp4 is to be shown at a slant; its frames are read as stored") as told:
        read = read_video(path)
    torch.testing.assert_close(read[0, 0][[6, -7]][:, [6, -7]], CORNERS, atol=0.05, rtol=0)
    assert told[0].filename == __file__


def test_transparency_lies_on_white(tmp_path):
    frames = np.zeros((2, 6, 8, 4), np.uint8)
    frames[..., 0], frames[:, :, 4:, 3] = 255, 255  # red, of which the left half cannot be seen
    read = read_video(encoded(tmp_path / "video.mov", frames, "png", "rgba"))
    assert read[0, :, 0, 0].tolist() == [1, 1, 1] and read[0, :, 0, 7].tolist() == [1, 0, 0]


def test_pixels_that_are_not_square_are_named(tmp_path):
    path = encoded(tmp_path / "video.mp4", np.zeros((2, 32, 48, 3), np.uint8), ratio=Fraction(16, 11))
    with pytest.warns(
        UserWarning, match=r"video.mp4 has pixels of 16 : 11 \(wide : high\), which are not square"
    ) as told:
        assert read_video(path).shape[2:] == (32, 48)
    assert told[0].filename == __file__
