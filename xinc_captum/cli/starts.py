"""The pictures that units are set in and classes flipped in: photos of a person's own, or drawn ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .. import store
from ..images import centre_crop, read_photo
from .ends import Ends


@dataclass(frozen=True, eq=False)
class Starts:
    """Pictures to start from.

    Attributes:
        pictures: (N, C, H, W) in [0, 1], on the host, as the generator draws them in size and colour.
        names: one for each.
        answers: the class that the network gives each, (N,).
        inputs: sha256 of the files among them.
    """

    pictures: Tensor = field(repr=False)
    names: tuple[str, ...]
    answers: Tensor
    inputs: dict[str, str]


def starts_called(ends: Ends, photos: Sequence[Path], count: int, truncation: float, seed: int) -> Starts:
    """Photos where there are some, cropped to what the generator draws; else ``count`` drawn pictures, class by class.

    Raises:
        PhotoError: a file that is no photo.
        FileNotFoundError: no such file.
    """
    if photos:
        pictures = torch.stack([fitting(path, ends.shape) for path in photos])
        names = tuple(path.stem for path in photos)
        known = [path.name for path in photos]
        inputs = {path.name if known.count(path.name) == 1 else str(path): store.sha256(path) for path in photos}
    else:
        pictures, names, inputs = drawn(ends, count, truncation, seed), None, {}
    answers = ends.answers(pictures).argmax(1)
    if names is None:
        names = tuple(f"drawn: {ends.label(int(answer))}" for answer in answers)
    return Starts(pictures, names, answers, inputs)


def drawn(ends: Ends, count: int, truncation: float, seed: int) -> Tensor:
    """Pictures of the generator's, of each class in turn where it knows some."""
    known = int(getattr(ends.generator, "num_classes", 0))
    classes = torch.arange(count) % known if known else None
    stream = torch.Generator().manual_seed(seed)
    return ends.draw(ends.generator.sample_latents(count, classes, truncation, generator=stream))


def fitting(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """The middle of a photo, in the size and the colours of the generator's pictures."""
    channels, height, width = shape
    photo = read_photo(path, longer_side=4 * max(height, width))
    square = centre_crop(photo, max(height, width), 1.0)
    top, left = (square.shape[1] - height) // 2, (square.shape[2] - width) // 2
    fitted = square[:, top : top + height, left : left + width]
    return fitted.mean(0, keepdim=True).expand(channels, -1, -1) if channels != 3 else fitted
