"""Videos in: files and folders of frames to float tensors."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .images import PhotoError, read_photo


class VideoError(ValueError):
    """A file or folder that cannot be read as a video."""


def read_video(
    path: str | Path, limit: int | None = None, size: tuple[int, int] | None = None, *, least: int = 2
) -> Tensor:
    """A video as floats in [0, 1]: (T, 3, H, W).

    Turned upright as its file says. Everything is held in memory, 12 bytes a pixel: say ``limit`` of a long one.

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
        ValueError: a limit or size below 1.

    Example:
        >>> import tempfile; from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(3):
        ...         Image.new("RGB", (8, 6)).save(f"{folder}/{i}.png")
        ...     read_video(folder, limit=2).shape
        torch.Size([2, 3, 6, 8])
    """
    path = Path(path)
    if (limit is not None and limit < 1) or (size is not None and (len(size) != 2 or min(size) < 1)):
        raise ValueError(f"limit is {limit} and size is {size}; wanted at least 1 frame of at least 1 x 1 pixel.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; wanted a video (MP4, AVI, WebM …) or a folder of frames.")
    frames: list[Tensor] = []
    first = None
    for frame in islice(_photos(path) if path.is_dir() else _decoded(path), limit):
        first = tuple(frame.shape[1:]) if first is None else first
        if tuple(frame.shape[1:]) != first:
            raise VideoError(
                f"{path}: frame {len(frames)} is {frame.shape[2]} x {frame.shape[1]} pixels and those before it are "
                f"{first[1]} x {first[0]}; wanted one size throughout. Cut the video there, or resize its frames first."
            )
        frames.append(frame if size is None else _resized(frame, size))
    wanted = least if limit is None else min(least, limit)
    if len(frames) < wanted or not frames:
        raise VideoError(
            f"{path} has {len(frames)} frame{'' if len(frames) == 1 else 's'}; wanted at least {max(wanted, 1)}. "
            "A still picture is read by read_photo() of xinc_captum.images."
        )
    return torch.stack(frames)


def frame_files(folder: Path) -> list[Path]:
    """The photos of a folder in the order in which they are its frames; hidden files are none."""
    kinds = Image.registered_extensions()
    files = [file for file in folder.iterdir() if file.suffix.lower() in kinds and not file.name.startswith(".")]
    return sorted(files, key=_in_counting_order)


def _resized(frame: Tensor, size: tuple[int, int]) -> Tensor:
    resized = torch.nn.functional.interpolate(frame[None], size, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def _decoded(path: Path) -> Iterator[Tensor]:
    """Every frame of a file, as PyAV decodes it."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs PyAV, which is not installed; run: pip install 'xinc-captum[video]', or give a "
            "folder of frames."
        ) from error
    done = 0
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise VideoError(f"{path} holds no video stream; wanted a video (MP4, AVI, WebM …).")
            for frame in file.decode(video=0):
                pixels = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                if frame.rotation % 90 == 0:  # how a phone was held; in degrees, counter-clockwise
                    pixels = torch.rot90(pixels, frame.rotation // 90, (1, 2))
                yield pixels.float() / 255
                done += 1
    except av.EOFError:  # a header with nothing behind it
        return
    except (av.FFmpegError, OSError) as error:
        rest = f"The {done} before it can be read with limit={done}." if done else "It may be truncated, or no video."
        raise VideoError(f"{path}: frame {done} cannot be decoded ({error}). {rest}") from error


def _photos(folder: Path) -> Iterator[Tensor]:
    """Every photo of a folder, in the order of their names."""
    files = frame_files(folder)
    if not files:
        raise VideoError(
            f"{folder} holds no photos; wanted one file a frame (PNG, JPEG …), in the order of their names."
        )
    for file in files:
        try:
            yield read_photo(file)
        except PhotoError as error:
            raise VideoError(str(error)) from error


def _in_counting_order(file: Path) -> list[tuple[int, str]]:
    """``frame10`` after ``frame9``: runs of digits by their number, all else by its letters."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
