"""The small pictures that a person names, for a network that reads and draws whole ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..images import centre_crop, read_photo
from ..inr.resume import digest
from .failures import UsageError
from .photos import photo_files

DIGITS = "mnist_digits"
LARGEST, MOST = 64, 5000  # pixels a side, and pictures
GREY = 0.5 / 255  # channels that differ by less are one


@dataclass(frozen=True, eq=False)
class SmallPictures:
    """Pictures of one size.

    Attributes:
        name: for titles.
        images: (N, C, H, W) in [0, 1]; C is 1 where all of them are grey.
        names: one for each.
        origin: where they are from, for the manifest.
    """

    name: str
    images: Tensor = field(repr=False)
    names: tuple[str, ...]
    origin: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.images.shape[2], self.images.shape[3]


def small_called(sources: Sequence[str], side: int | None) -> SmallPictures:
    """Files, folders, or the digits of the zoo.

    Args:
        sources: what to read, all of it.
        side: the middle square of each, shrunk or enlarged to so many pixels; None takes them as they are.

    Raises:
        FileNotFoundError: no such file or folder.
        UsageError: no pictures, too many, several sizes, or large ones.
        PhotoError: a file with a picture's name that is none, or that holds NaN or infinity.
        AssetError: the digits' package is missing.
    """
    if list(sources) == [DIGITS] and not Path(DIGITS).exists():
        if side is not None:
            raise UsageError(f"--size cannot be changed for {DIGITS}, which are 28 x 28; leave it out.")
        kept = zoo.mnist_digits()
        names = tuple(f"{kept.classes[label]}, number {i}" for i, label in enumerate(kept.labels.tolist()))
        return SmallPictures(DIGITS, kept.images, names, {"digits of the zoo": digest(kept.images)})
    files = [path for source in sources for path in _files(source)]
    if len(files) > MOST:
        raise UsageError(f"there are {len(files):,} pictures; wanted at most {MOST:,}: give a part of them.")
    pictures = [_read(path, side) for path in files]
    _same_size(files, pictures)
    images = torch.stack(pictures)
    if float((images - images[:, :1]).abs().max()) < GREY:
        images = images[:, :1].contiguous()
    name = Path(sources[0]).resolve().name if len(sources) == 1 else f"{len(files)} pictures"
    return SmallPictures(name, images, tuple(path.stem for path in files), {name: digest(images)})


def with_channels(images: Tensor, channels: int, model: str) -> Tensor:
    """The pictures as a model takes them: grey ones go into three channels; colour does not go into one.

    Raises:
        UsageError: other channels.
    """
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1 and channels == 3:
        return images.expand(-1, 3, -1, -1)
    seen = "in colour" if images.shape[1] == 3 else "grey"
    raise UsageError(
        f"the pictures are {seen}, and {model} draws {channels} channel{'s' * (channels != 1)}; give a --model that was"
        " fitted to such pictures, or --model fit."
    )


def _files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"{source} is no file or folder; wanted small pictures (PNG, JPEG …), folders of them, or {DIGITS}."
        )
    found = photo_files(path)
    if not found:
        raise UsageError(f"{source} holds no pictures; give a folder that does, or {DIGITS}.")
    return found


def _read(path: Path, side: int | None) -> Tensor:
    picture = read_photo(path)
    if side is not None:
        return centre_crop(picture, side, 1.0)
    height, width = picture.shape[1:]
    if max(height, width) > LARGEST:
        raise UsageError(
            f"{path} is {height} x {width} pixels (high x wide), and this command is for pictures of at most {LARGEST};"
            " say --size 32 for the middle square of each, shrunk."
        )
    return picture


def _same_size(files: Sequence[Path], pictures: Sequence[Tensor]) -> None:
    first = pictures[0].shape[1:]
    for path, picture in zip(files, pictures, strict=True):
        if picture.shape[1:] != first:
            sizes = [f"{shape[0]} x {shape[1]}" for shape in (first, picture.shape[1:])]
            raise UsageError(
                f"the pictures have several sizes (high x wide): {files[0].name} is {sizes[0]}, {path.name} {sizes[1]};"
                " say --size 32 for the middle square of each, in one size."
            )
