"""Resolve image arguments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import store, zoo
from ..images import centre_crop, read_photo
from ..inr.training import digest
from .errors import UsageError
from .models import Ends

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
            f"{name} is not a file; expected a photo (PNG, JPEG, TIFF, WebP …), or one of the zoo: {known}, "
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
            raise UsageError(f"--natural {folder} holds {len(files)} photos; expected at least 2, better a hundred.")
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


DIGITS = "mnist_digits"
LARGEST, MOST_IMAGES = 64, 5000  # pixels a side, and pictures
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
    if len(files) > MOST_IMAGES:
        raise UsageError(f"there are {len(files):,} pictures; expected at most {MOST_IMAGES:,}: give a part of them.")
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
            f"{source} is no file or folder; expected small pictures (PNG, JPEG …), folders of them, or {DIGITS}."
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


MOST_REAL_IMAGES = 1000
REAL_DIGITS = "mnist_digits"


class Real(NamedTuple):
    """Pictures (n, C, H, W) in [0, 1], as the generator's in size and colour, and what they are, in words."""

    pictures: Tensor
    words: str


def real_called(name: str | None, ends: Ends) -> Real | None:
    """The digits that the zoo's generator was not trained on, or the photos of a folder; None where there are none.

    Args:
        name: ``mnist_digits``, or a folder; None takes what belongs to a generator of the zoo, if it is installed.
        ends: what draws and what looks.

    Raises:
        UsageError: no such folder, or no photos in it, or digits for a generator of something else.
        AssetError: the digits were asked for and are not installed.
        PhotoError: a file with a photo's name that is none.
    """
    if name is None:
        try:
            return digits(ends.shape[-1]) if ends.generator_name == "mnist_generator" else None
        except zoo.AssetError:
            return None
    if name == REAL_DIGITS:
        if ends.shape not in ((1, 28, 28), (1, 16, 16)):
            raise UsageError(
                f"--real {REAL_DIGITS} are grey, 28 x 28 or 16 x 16; the generator draws {ends.shape}. Give a folder."
            )
        return digits(ends.shape[-1])
    folder = Path(name)
    if not folder.is_dir():
        raise UsageError(
            f"--real {name} is no folder; give one with photos, or {REAL_DIGITS}, or leave the option out."
        )
    files = photo_files(folder)[:MOST_REAL_IMAGES]
    if not files:
        raise UsageError(f"--real {name} holds no photos; give a folder that does, or leave the option out.")
    return Real(torch.stack([fitting(path, ends.shape) for path in files]), f"{len(files)} photos of {folder.name}")


def digits(size: int) -> Real:
    """Every fifth of the zoo's digits: those that its generator and classifier were not trained on, in mixed order."""
    known = zoo.mnist_digits()
    images = (known.halve() if size == 16 else known).images[4::5]
    mixed = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return Real(images[mixed], f"{len(images)} digits held out")
