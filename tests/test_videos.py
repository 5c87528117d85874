import io
import struct
import sys
import warnings
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from xinc_captum.videos import VideoError, read_video


def noise(frames=4, height=6, width=8):
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def encoded(path, frames, codec="ffv1", pixels="bgr0", *, sound=0, times=None, **options):
    """A file that loses nothing, so that what is read can be compared."""
    with av.open(str(path.absolute()), "w", container_options=options) as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        second = file.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        for i, frame in enumerate(frames):
            drawn = av.VideoFrame.from_ndarray(frame, format="rgb24")
            drawn.pts = i if times is None else times[i]
            drawn.time_base = Fraction(1, 10)
            file.mux(stream.encode(drawn))
        file.mux(stream.encode())
        if second:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * sound), np.int16), "s16", "mono")
            silence.sample_rate, silence.pts = 8000, 0
            file.mux(second.encode(silence))
    return path


def folder(path, frames, names=None):
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(path / (names[i] if names else f"{i:03}.png"))
    return path


def as_tensor(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def test_a_file_and_a_folder_of_its_frames_are_the_same(tmp_path):
    frames = noise()
    read = read_video(encoded(tmp_path / "video.mkv", frames))
    assert read.shape == (4, 3, 6, 8)
    assert read.dtype == torch.float32
    assert read.is_contiguous()
    torch.testing.assert_close(read, as_tensor(frames))
    (tmp_path / "frames").mkdir()
    assert torch.equal(read_video(folder(tmp_path / "frames", frames)), read)


def test_only_so_many_frames(tmp_path):
    path = encoded(tmp_path / "video.mkv", noise())
    assert torch.equal(read_video(path, limit=3), read_video(path)[:3])
    assert read_video(path, 1).shape == (1, 3, 6, 8), "one frame, if only one is asked for"
    assert read_video(path, limit=99).shape[0] == 4


def test_frames_come_in_counting_order(tmp_path):
    frames = noise(4)
    names = ["frame10.png", "frame2.PNG", "frame1.png", "take2-frame0.png"]
    folder(tmp_path, frames, names)
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".hidden.png").write_text("no frame either")
    assert torch.equal(read_video(tmp_path), as_tensor(frames[[2, 1, 0, 3]]))


def test_another_size(tmp_path):
    frames = noise(2, 12, 16) // 4
    frames[1] = 51
    read = read_video(encoded(tmp_path / "video.mkv", frames), size=(6, 8))
    assert read.shape == (2, 3, 6, 8)
    torch.testing.assert_close(read[1], torch.full((3, 6, 8), 0.2))
    torch.testing.assert_close(read[0].mean(), as_tensor(frames)[0].mean(), atol=0.01, rtol=0)
    assert read[0].std() < as_tensor(frames)[0].std(), "antialiased: noise averages out"


@pytest.mark.parametrize("bytes_", [b"Pr\xfcfung\0", b"\xff\xfe\x00\xd8\xff\xff\xff\xff"])
def test_a_title_in_another_encoding(bytes_, tmp_path):
    path = tmp_path / "video.avi"
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "Prüfung"
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in noise(2, 32, 48):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    plain = read_video(path)
    path.write_bytes(path.read_bytes().replace("Prüfung".encode(), bytes_))
    assert torch.equal(read_video(path), plain)


@pytest.mark.parametrize("name", ["10:30.mkv", "a#b?c%20d.mkv", "take%03d.mkv", "ü ö.mkv"])
def test_names_with_odd_characters(name, tmp_path, monkeypatch):
    frames = noise(2)
    encoded(tmp_path / name, frames)
    monkeypatch.chdir(tmp_path)
    torch.testing.assert_close(read_video(name), as_tensor(frames))


def test_odd_sides_and_a_varying_frame_rate(tmp_path):
    frames = noise(3, 7, 9)
    path = encoded(tmp_path / "video.mkv", frames, times=[0, 1, 30])
    torch.testing.assert_close(read_video(path), as_tensor(frames))


def jpegs(*sizes):
    content = b""
    for size in sizes:
        file = io.BytesIO()
        Image.new("RGB", size, "red").save(file, "JPEG")
        content += file.getvalue()
    return content


def test_frames_of_different_sizes(tmp_path):
    (tmp_path / "video.mjpeg").write_bytes(jpegs((16, 8), (16, 8), (24, 8)))
    text = r"frame 2 has 24 x 8 pixels and the frames before it have 16 x 8; expected one size. Cut the video there"
    with pytest.raises(VideoError, match=r"video.mjpeg: " + text):
        read_video(tmp_path / "video.mjpeg")
    with pytest.raises(VideoError, match=text):
        read_video(tmp_path / "video.mjpeg", size=(4, 4))
    assert read_video(tmp_path / "video.mjpeg", limit=2).shape == (2, 3, 8, 16)
    (tmp_path / "frames").mkdir()
    folder(tmp_path / "frames", [np.zeros((2, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)])
    with pytest.raises(VideoError, match="frame 1 has 3 x 3 pixels and the frames before it have 3 x 2"):
        read_video(tmp_path / "frames")


def test_one_frame_where_several_are_needed(tmp_path):
    path = encoded(tmp_path / "video.mkv", noise(1))
    with pytest.raises(
        VideoError, match=r"video.mkv has 1 frame; expected at least 2. A still image is read by read_photo"
    ):
        read_video(path)
    assert read_video(path, least=1).shape[0] == 1
    with pytest.raises(VideoError, match="has 1 frame; expected at least 3"):
        read_video(path, 3, least=5)


def test_no_frames(tmp_path):
    with av.open(str(tmp_path / "video.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 6, 8, "bgr0"
        file.start_encoding()
    with pytest.raises(VideoError, match="video.mkv has 0 frames; expected at least 2"):
        read_video(tmp_path / "video.mkv")
    with pytest.raises(VideoError, match="expected at least 1"):
        read_video(tmp_path / "video.mkv", least=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="empty holds no photos; expected one file a frame"):
        read_video(tmp_path / "empty")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 800)
    with pytest.raises(VideoError, match="sound.wav holds no video stream"):
        read_video(tmp_path / "sound.wav")


def test_undecodable_files_raise_errors(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VideoError, match=r"text.mp4: frame 0 cannot be decoded .*It may be truncated, or no video"):
        read_video(tmp_path / "text.mp4")
    whole = encoded(tmp_path / "whole.mp4", noise(4, 48, 64), "mpeg4", "yuv420p").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match="half.mp4: frame 0 cannot be decoded"):
        read_video(tmp_path / "half.mp4")
    (tmp_path / "frames").mkdir()
    folder(tmp_path / "frames", noise(2))
    (tmp_path / "frames" / "zzz.png").write_text("hello")
    with pytest.raises(VideoError, match=r"zzz.png cannot be read as a photo"):
        read_video(tmp_path / "frames")


def test_readable_frames_of_a_damaged_file_are_returned(tmp_path):
    path = encoded(tmp_path / "video.mov", noise(4), "png", "rgb24")
    content = bytearray(path.read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 8] == b"\x89PNG\r\n\x1a\n"]
    assert len(starts) == 4
    content[starts[2] : starts[2] + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"frame 2 cannot be decoded .* The 2 before it can be read with limit=2"):
        read_video(path)
    assert torch.equal(read_video(path, limit=2), as_tensor(noise(4)[:2]))


CUT = [("mp4", "mpeg4", {"movflags": "faststart"}), ("avi", "mpeg4", {}), ("mkv", "mpeg4", {}), ("flv", "flv", {})]


@pytest.mark.parametrize(("kind", "codec", "options"), CUT)
@pytest.mark.filterwarnings("ignore:unclosed")
def test_a_recording_that_was_cut_off_gives_its_frames_and_a_warning(kind, codec, options, tmp_path):
    path = encoded(tmp_path / f"video.{kind}", noise(20, 48, 64), codec, "yuv420p", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = read_video(path)
    assert len(whole) == 20
    content = path.read_bytes()
    path.write_bytes(content[: int(0.6 * len(content))])
    with pytest.warns(UserWarning, match=rf"video.{kind} ends before the recording that its header announces; frames"):
        rest = read_video(path)
    assert 2 <= len(rest) < 20
    assert torch.equal(rest, whole[: len(rest)]), "and no frame of which a part is missing"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_video(path, limit=2)) == 2, "nothing is said of what is not read"
        with pytest.raises(UserWarning, match="ends before the recording"):
            read_video(path)


def test_sound_that_goes_on_is_no_lost_picture(tmp_path):
    path = encoded(tmp_path / "video.mkv", noise(4), sound=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_video(path)) == 4


def test_damaged_frames_are_named(tmp_path):
    path = encoded(tmp_path / "video.mpg", noise(20, 48, 64), "mpeg2video", "yuv420p")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # such a file has no header that announces its length
    with pytest.warns(UserWarning, match=r"video.mpg: frame \d+ is damaged; the decoder filled in a part of it"):
        read_video(path)


@pytest.mark.parametrize("error", [ValueError, UnicodeDecodeError, IndexError, struct.error, RuntimeError, OSError])
def test_errors_of_decoders_become_one_error_type(error, tmp_path, monkeypatch):
    def fails(*_args, **_kwargs):
        raise error(*(("utf-8", b"a", 0, 1, "odd bytes") if error is UnicodeDecodeError else ("odd bytes",)))

    path = encoded(tmp_path / "video.mkv", noise())
    monkeypatch.setattr(av, "open", fails)
    with pytest.raises(VideoError, match=r"video.mkv: frame 0 cannot be decoded \(.*odd bytes\). It may be truncated"):
        read_video(path)


def test_a_folder_is_no_frame_whatever_its_name(tmp_path):
    folder(tmp_path, noise(2))
    (tmp_path / "more.png").mkdir()
    assert len(read_video(tmp_path)) == 2
    (tmp_path / "zzz.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(VideoError, match=r"zzz.png is not a file; expected a photo"):
        read_video(tmp_path)


def test_missing_files_raise_errors(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"none.mp4 does not exist; expected a video .* or a folder of frames"):
        read_video(tmp_path / "none.mp4")
    path = encoded(tmp_path / "video.mkv", noise())
    for bad in ({"limit": 0}, {"limit": 2.0}, {"size": (0, 4)}, {"size": (4,)}, {"size": 4}, {"size": (4.5, 4)}):
        with pytest.raises(
            ValueError, match=r"limit is .* and size is .*; expected integers, at least 1 frame of at least 1 x 1"
        ):
            read_video(path, **bad)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ImportError, match=r"needs PyAV, which is not installed; run: pip install 'xinc-captum\[video\]'"
    ):
        read_video(path)
    (tmp_path / "frames").mkdir()
    assert read_video(folder(tmp_path / "frames", noise())).shape[0] == 4, "a folder needs no PyAV"


def video_frames_encoded(path, frames, codec="mpeg4", pixels="yuv420p", ratio=None):
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
    whole = video_frames_encoded(path, frames[None, ..., None].repeat(2, 1, 1, 3).numpy())
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
    with pytest.warns(
        UserWarning, match="video.mp4 is to be shown rotated by an angle between multiples of 90°"
    ) as told:
        read = read_video(path)
    torch.testing.assert_close(read[0, 0][[6, -7]][:, [6, -7]], CORNERS, atol=0.05, rtol=0)
    assert told[0].filename == __file__


def test_transparency_lies_on_white(tmp_path):
    frames = np.zeros((2, 6, 8, 4), np.uint8)
    frames[..., 0], frames[:, :, 4:, 3] = 255, 255  # red, of which the left half cannot be seen
    read = read_video(video_frames_encoded(tmp_path / "video.mov", frames, "png", "rgba"))
    assert read[0, :, 0, 0].tolist() == [1, 1, 1] and read[0, :, 0, 7].tolist() == [1, 0, 0]


def test_pixels_that_are_not_square_are_named(tmp_path):
    path = video_frames_encoded(tmp_path / "video.mp4", np.zeros((2, 32, 48, 3), np.uint8), ratio=Fraction(16, 11))
    with pytest.warns(
        UserWarning, match=r"video.mp4 has pixels of 16 : 11 \(wide : high\), which are not square"
    ) as told:
        assert read_video(path).shape[2:] == (32, 48)
    assert told[0].filename == __file__
