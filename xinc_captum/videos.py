"""Read videos."""

import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from .images import PhotoError, read_photo

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer


_LEVEL = 0.02  # tolerance for a rotation (about one degree, as in FFmpeg) and for the pixels' aspect ratio


def _on_white(frame: "VideoFrame") -> Tensor:
    """Return the stored colours of a frame, (3, H, W) in [0, 1]; transparent pixels are blended with white."""
    if not frame.format.has_palette and not any(part.is_alpha for part in frame.format.components):
        return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float() / 255
    pixels = torch.from_numpy(frame.to_ndarray(format="rgba")).permute(2, 0, 1).float() / 255
    return pixels[:3] * pixels[3:] + (1 - pixels[3:])


def _rotate(pixels: Tensor, frame: "VideoFrame", path: Path) -> Tensor:
    """Return a frame (C, H, W), turned and mirrored by FFmpeg's display matrix.

    ``frame.rotation`` alone has the same value for different mirrored matrices.
    """
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return pixels
    a, b, _, c, d = struct.unpack("=9i", bytes(side))[:5]  # to the right: a x + c y; down: b x + d y
    if a and d and max(abs(b), abs(c)) < _LEVEL * min(abs(a), abs(d)):
        return pixels.flip([axis for axis, factor in ((2, a), (1, d)) if factor < 0])
    if b and c and max(abs(a), abs(d)) < _LEVEL * min(abs(b), abs(c)):
        return pixels.mT.flip([axis for axis, factor in ((2, c), (1, b)) if factor < 0])
    if a or b or c or d:  # FFmpeg ignores a matrix of zeros
        warnings.warn(
            f"{path} is to be shown rotated by an angle between multiples of 90°; its frames are read as stored.",
            stacklevel=4,
        )
    return pixels


def _warn_of_pixels(path: Path, ratio: Fraction | None) -> None:
    """Warn of pixels that are not square; ``ratio`` is their width by their height, None where the file has none."""
    if ratio and abs(ratio - 1) > _LEVEL:
        warnings.warn(
            f"{path} has pixels of {ratio.numerator} : {ratio.denominator} (wide : high), which are not square; its "
            "frames are read as stored. Give size=(H, W) to see them in the shape that a player shows.",
            stacklevel=4,
        )


class VideoError(ValueError):
    """A file or folder that cannot be read as a video."""


def read_video(
    path: str | Path, limit: int | None = None, size: tuple[int, int] | None = None, *, least: int = 2
) -> Tensor:
    """Return a video as floats in [0, 1]: (T, 3, H, W).

    Frames are turned and mirrored as the file requires (FFmpeg's display matrix; in folders, the orientation tag), and
    transparent pixels are blended with white. Frames are returned in their stored order: times, and with them a
    variable frame rate, are not read. Pixels that are not square are kept, and of a truncated file the frames that can
    be read are returned, both with a warning. All frames are kept in memory, 12 bytes per pixel: give ``limit`` for a
    long video.

    Args:
        path: any video that FFmpeg reads, or a folder of frames in the order of their names, ``frame2`` before
            ``frame10``.
        limit: read only this many frames, from the first on.
        size: (H, W) to resize each frame to, by an antialiased bicubic filter.
        least: fewer frames than this are an error (or than ``limit``, if that is less).

    Raises:
        FileNotFoundError: no such file or folder.
        ImportError: a file, and PyAV is not installed.
        VideoError: not a video, no frames, too few, frames that cannot be decoded, or frames of different sizes.
        ValueError: a limit or size that is not an integer of at least 1.

    Example:
        >>> import tempfile; from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(3):
        ...         Image.new("RGB", (8, 6)).save(f"{folder}/{i}.png")
        ...     read_video(folder, limit=2).shape
        torch.Size([2, 3, 6, 8])
    """
    path = Path(path)
    sides = (size,) if size is not None and not isinstance(size, Sequence) else size
    if not _counts(limit) or (sides is not None and (len(sides) != 2 or None in sides or not _counts(*sides))):
        raise ValueError(
            f"limit is {limit!r} and size is {size!r}; expected integers, at least 1 frame of at least 1 x 1 pixel: "
            "limit=8, size=(height, width)."
        )
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a video (MP4, AVI, WebM …) or a folder of frames.")
    frames: list[Tensor] = []
    shape: torch.Size | None = None
    for frame in islice(_photos(path) if path.is_dir() else _decode(path), limit):
        shape = shape or frame.shape
        if frame.shape != shape:
            raise VideoError(
                f"{path}: frame {len(frames)} has {frame.shape[2]} x {frame.shape[1]} pixels and the frames before it "
                f"have {shape[2]} x {shape[1]}; expected one size. Cut the video there, or resize its frames first."
            )
        frames.append(frame if size is None else _resize(frame, size))
    minimum = least if limit is None else min(least, limit)
    if len(frames) < minimum or not frames:
        raise VideoError(
            f"{path} has {len(frames)} frame{'' if len(frames) == 1 else 's'}; expected at least {max(minimum, 1)}. A "
            "still image is read by read_photo() of xinc_captum.images."
        )
    return torch.stack(frames)


def _counts(*numbers: object) -> bool:
    """Return whether all are integers of at least 1, or None."""
    return all(one is None or (hasattr(one, "__index__") and one.__index__() >= 1) for one in numbers)


def frame_files(folder: Path) -> list[Path]:
    """Return the photos of a folder in the order of its frames, without hidden files."""
    kinds = Image.registered_extensions()
    files = (file for file in folder.iterdir() if file.suffix.lower() in kinds and not file.name.startswith("."))
    return sorted((file for file in files if not file.is_dir()), key=_in_counting_order)


def _resize(frame: Tensor, size: tuple[int, int]) -> Tensor:
    resized = torch.nn.functional.interpolate(frame[None], size, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def _decode(path: Path) -> Iterator[Tensor]:
    """Yield every frame of a file, decoded by PyAV."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs PyAV, which is not installed; run: pip install 'xinc-captum[video]', or give a "
            "folder of frames."
        ) from error
    done = 0
    try:  # absolute, because FFmpeg takes the text before a colon for a protocol
        with av.open(str(path.absolute()), metadata_errors="replace") as file:
            stream = file.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise VideoError(f"{path} holds no video stream; expected a video (MP4, AVI, WebM …).")
            _warn_of_pixels(path, stream.sample_aspect_ratio)
            for frame in _to_the_end(path, file, stream):
                yield _rotate(_on_white(frame), frame, path)
                done += 1
    except (VideoError, Warning):  # Warning: one that the caller turned into an error
        raise
    except av.EOFError:  # a header without frames
        return
    except Exception as error:  # decoders raise errors of nearly every type on damaged files
        rest = f"The {done} before it can be read with limit={done}." if done else "It may be truncated, or no video."
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: frame {done} cannot be decoded ({reason}). {rest}") from error


def _to_the_end(path: Path, file: "InputContainer", stream: "VideoStream") -> Iterator["VideoFrame"]:
    """Yield every frame of a stream; warn if the file ends before the recording does, or if a frame is damaged."""
    packets, seconds, done, clean = 0, 0.0, 0, True
    previous: Packet[Any] | None = None
    for packet in file.demux():
        if packet.size and packet.pts is not None:
            seconds = max(seconds, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        packets += packet.size > 0
        # At the end: the last packet, of which a part may be missing.
        cut = not packet.size and previous is not None and previous.is_corrupt
        ready = [] if previous is None or cut else stream.decode(previous)
        for frame in ready if packet.size else [*ready, *stream.decode(None)]:
            if frame.is_corrupt and clean:
                warnings.warn(f"{path}: frame {done} is damaged; the decoder filled in a part of it.", stacklevel=4)
                clean = False
            yield frame
            done += 1
        if cut or (not packet.size and _lost(file, stream, packets, seconds)):
            warnings.warn(
                f"{path} ends before the recording that its header announces; frames that can be read: {done}. It may "
                "be cut off: copy it again, or use these frames.",
                stacklevel=4,
            )
        previous = packet if packet.size else None


def _lost(file: "InputContainer", stream: "VideoStream", packets: int, seconds: float) -> bool:
    """Return whether the header announces more than the file holds; False for formats without such a header."""
    if file.format.name == "avi":
        return packets < stream.frames
    if not file.duration or not file.format.name.startswith(("matroska", "mov", "flv")):
        return False
    announced = (file.duration + (file.start_time or 0)) / 1e6
    return announced - seconds > max(0.3, 0.03 * announced)


def _photos(folder: Path) -> Iterator[Tensor]:
    """Yield every photo of a folder, in the order of their names."""
    files = frame_files(folder)
    if not files:
        raise VideoError(
            f"{folder} holds no photos; expected one file a frame (PNG, JPEG …), in the order of their names."
        )
    for file in files:
        try:
            yield read_photo(file)
        except (PhotoError, FileNotFoundError) as error:  # FileNotFoundError: a symbolic link without a target
            raise VideoError(str(error)) from error


def _in_counting_order(file: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts ``frame10`` after ``frame9``: digits count as numbers."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
