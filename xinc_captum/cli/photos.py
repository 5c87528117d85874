"""The photos that a person names, and natural ones to compare with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import store, zoo
from ..images import centre_crop, read_photo
from .failures import UsageError

ENOUGH = 100  # natural images, from which on a photo gives but one
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"}
_PLACES = ((1.0, 0.5, 0.5), (0.6, 0.5, 0.5), (0.75, 0.0, 0.0), (0.75, 1.0, 1.0))  # side, and how far down and right
_DOUBLES = {"motorcycle_right": "motorcycle_left"}  # photos of the zoo that show the same thing


@dataclass(frozen=True, eq=False)
class Subject:
    """The photo to explain: its name, (3, H, W) in [0, 1], and where it is from."""

    name: str
    image: Tensor = field(repr=False)
    origin: dict[str, Any]


def subject_called(name: str, longer_side: int) -> Subject:
    """A file, or a photo of the zoo where there is no such file.

    Raises:
        FileNotFoundError: neither.
        PhotoError: a file that is no photo.
        AssetError: the photo's package is missing.
    """
    path = Path(name)
    if path.is_file():
        return Subject(path.stem, read_photo(path, longer_side=longer_side), {path.name: store.sha256(path)})
    if name not in zoo.photo_names():
        known = ", ".join(n for n in zoo.photo_names() if ":" not in n)
        raise FileNotFoundError(
            f"{name} is not a file; wanted a photo (PNG, JPEG, TIFF, WebP …), or one of the zoo: {known}, "
            "foolbox:00 to foolbox:19."
        )
    image = zoo.photo(name).image
    share = min(1.0, longer_side / max(image.shape[1:]))
    size = [max(1, round(side * share)) for side in image.shape[1:]]
    small = torch.nn.functional.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    return Subject(name, small, {"photo of the zoo": name})


@dataclass(frozen=True, eq=False)
class Natural:
    """Natural images, (M, 3, size, size) in [0, 1], and what they are, in words."""

    images: Tensor = field(repr=False)
    words: str


def natural_images(folder: Path | None, size: int, without: str) -> Natural | None:
    """Squares out of the photos of a folder, or of the zoo; None where the zoo has no photos here.

    Up to four squares a photo, the middle first, until there are about a hundred.

    Args:
        folder: with photos, or None for the zoo's.
        size: height and width of what comes out.
        without: a photo of the zoo that is left out, because it is the one to explain.

    Raises:
        UsageError: no folder, or fewer than two photos in it.
        PhotoError: a file with a photo's name that is none.
    """
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"--natural {folder} is no folder; give one with photos, or leave the option out.")
        files = photo_files(folder)
        if len(files) < 2:
            raise UsageError(f"--natural {folder} holds {len(files)} photos; wanted at least 2, better a hundred.")
        photos, source = [read_photo(path, longer_side=4 * size) for path in files], folder.name
    else:
        try:
            photos = [zoo.photo(name).image for name in _others(without)]
        except zoo.AssetError:
            return None
        source = "foolbox and scikit-image"
    each = min(len(_PLACES), math.ceil(ENOUGH / len(photos)))
    images = torch.stack([square for photo in photos for square in squares(photo, size, each)])
    return Natural(images, f"{len(images)} squares out of {len(photos)} photos of {source}")


def photo_files(folder: Path) -> list[Path]:
    """Return the photos in a folder and below it, sorted; no hidden files, and no pictures of earlier results."""
    results = store.results_below(folder)
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    return sorted(path for path in found if not store.is_hidden(path, folder) and not results & set(path.parents))


def squares(photo: Tensor, size: int, count: int) -> Sequence[Tensor]:
    """The middle square of a photo, then a closer one, then its upper left and lower right."""
    height, width = photo.shape[-2:]
    found = []
    for share, down, right in _PLACES[:count]:
        side = max(1, round(share * min(height, width)))
        top, left = round(down * (height - side)), round(right * (width - side))
        found.append(centre_crop(photo[:, top : top + side, left : left + side], size, 1.0))
    return found


def _others(without: str) -> list[str]:
    """The colour photos of scikit-image and those of foolbox."""
    left_out = {"voc", "quokka", *_DOUBLES, without, _DOUBLES.get(without, "")}
    return [name for name in zoo.photo_names() if name not in left_out]
