"""Load the photos and small images that arguments name."""

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
from .models import ClassifierAndGenerator

ENOUGH = 100  # with this many photos, one crop per photo
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"}
_PLACES = (
    (1.0, 0.5, 0.5),
    (0.6, 0.5, 0.5),
    (0.75, 0.0, 0.0),
    (0.75, 1.0, 1.0),
)  # side length, row and column, relative
_DOUBLES = {"motorcycle_right": "motorcycle_left"}  # photos of the zoo that show the same scene


@dataclass(frozen=True, eq=False)
class InputPhoto:
    """The photo to explain: its name, the image (3, H, W) in [0, 1], and its source."""

    name: str
    image: Tensor = field(repr=False)
    origin: dict[str, Any]


def load_photo(name: str, longer_side: int) -> InputPhoto:
    """Load a photo file, or a photo of the zoo if there is no such file.

    Raises:
        FileNotFoundError: neither exists.
        PhotoError: the file is not a photo.
        AssetError: the photo's package is missing.
    """
    path = Path(name)
    if path.is_file():
        return InputPhoto(path.stem, read_photo(path, longer_side=longer_side), {path.name: store.sha256(path)})
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
    return InputPhoto(name, small, {"photo of the zoo": name})


@dataclass(frozen=True, eq=False)
class NaturalImages:
    """Natural images, (M, 3, size, size) in [0, 1], and a description of them."""

    images: Tensor = field(repr=False)
    description: str


def natural_images(folder: Path | None, size: int, without: str) -> NaturalImages | None:
    """Return square crops of the photos of a folder or of the zoo; None if the zoo's photos are not installed.

    Each photo gives up to four crops, the centre first, for about a hundred in total.

    Args:
        folder: folder with photos, or None for the zoo's.
        size: height and width of the crops.
        without: photo of the zoo to leave out, because it is the one to explain.

    Raises:
        UsageError: not a folder, or fewer than two photos in it.
        PhotoError: a file with the suffix of a photo is not a photo.
    """
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"--natural {folder} is not a folder; give a folder with photos, or leave the option out.")
        files = photo_files(folder)
        if len(files) < 2:
            raise UsageError(
                f"--natural {folder} holds {len(files)} photos; expected at least 2, preferably a hundred."
            )
        photos, source = [read_photo(path, longer_side=4 * size) for path in files], folder.name
    else:
        try:
            photos = [zoo.photo(name).image for name in _natural_photo_names(without)]
        except zoo.AssetError:
            return None
        source = "foolbox and scikit-image"
    each = min(len(_PLACES), math.ceil(ENOUGH / len(photos)))
    images = torch.stack([square for photo in photos for square in crop_squares(photo, size, each)])
    return NaturalImages(images, f"{len(images)} squares out of {len(photos)} photos of {source}")


def photo_files(folder: Path) -> list[Path]:
    """Return the photos in a folder and its subfolders, sorted, without hidden files and result folders."""
    results = store.results_below(folder)
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    return sorted(path for path in paths if not store.is_hidden(path, folder) and not results & set(path.parents))


def crop_squares(photo: Tensor, size: int, count: int) -> Sequence[Tensor]:
    """Return the central square of a photo, a closer one, the upper left and the lower right one, resized."""
    height, width = photo.shape[-2:]
    crops = []
    for share, down, right in _PLACES[:count]:
        side = max(1, round(share * min(height, width)))
        first_row, first_column = round(down * (height - side)), round(right * (width - side))
        crops.append(centre_crop(photo[:, first_row : first_row + side, first_column : first_column + side], size, 1.0))
    return crops


def _natural_photo_names(without: str) -> list[str]:
    """Return the names of the colour photos of scikit-image and foolbox."""
    excluded = {"voc", "quokka", *_DOUBLES, without, _DOUBLES.get(without, "")}
    return [name for name in zoo.photo_names() if name not in excluded]


DIGITS = "mnist_digits"
LARGEST, MOST_IMAGES = 64, 5000  # pixels per side, and images
GREY = 0.5 / 255  # channels that differ by less count as equal


@dataclass(frozen=True, eq=False)
class SmallImages:
    """Images of one size.

    Attributes:
        name: name for titles.
        images: (N, C, H, W) in [0, 1]; C is 1 if all are grey.
        names: name of each image.
        origin: their source, for the manifest.
    """

    name: str
    images: Tensor = field(repr=False)
    names: tuple[str, ...]
    origin: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[2], self.images.shape[3]


def load_small_images(sources: Sequence[str], side: int | None) -> SmallImages:
    """Load the images of files and folders, or the digits of the zoo.

    Args:
        sources: files and folders, or ``["mnist_digits"]``.
        side: crop the central square of each image and resize it to this many pixels; None keeps the images.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        UsageError: no images, too many, too large ones, or several sizes.
        PhotoError: a file is not an image, or holds NaN or infinity.
        AssetError: the digits' package is missing.
    """
    if list(sources) == [DIGITS] and not Path(DIGITS).exists():
        if side is not None:
            raise UsageError(f"--size cannot be changed for {DIGITS}, which are 28 x 28; leave it out.")
        digits = zoo.mnist_digits()
        names = tuple(f"{digits.classes[label]}, number {i}" for i, label in enumerate(digits.labels.tolist()))
        return SmallImages(DIGITS, digits.images, names, {"digits of the zoo": digest(digits.images)})
    files = [path for source in sources for path in _image_files(source)]
    if len(files) > MOST_IMAGES:
        raise UsageError(f"there are {len(files):,} images; expected at most {MOST_IMAGES:,}: give fewer.")
    all_images = [_read_small(path, side) for path in files]
    _same_size(files, all_images)
    images = torch.stack(all_images)
    if float((images - images[:, :1]).abs().max()) < GREY:
        images = images[:, :1].contiguous()
    name = Path(sources[0]).resolve().name if len(sources) == 1 else f"{len(files)} pictures"
    return SmallImages(name, images, tuple(path.stem for path in files), {name: digest(images)})


def with_channels(images: Tensor, channels: int, model: str) -> Tensor:
    """Return images with the channels of a model: grey images are repeated, colour is not converted to grey.

    Raises:
        UsageError: the number of channels does not fit.
    """
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1 and channels == 3:
        return images.expand(-1, 3, -1, -1)
    colours = "in colour" if images.shape[1] == 3 else "grey"
    raise UsageError(
        f"the images are {colours}, and {model} has {channels} channel{'s' * (channels != 1)}; give a --model that "
        "was fitted to such images, or --model fit."
    )


def _image_files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"{source} is not a file or folder; expected small images (PNG, JPEG …), folders of them, or {DIGITS}."
        )
    files = photo_files(path)
    if not files:
        raise UsageError(f"{source} holds no images; give a folder that does, or {DIGITS}.")
    return files


def _read_small(path: Path, side: int | None) -> Tensor:
    image = read_photo(path)
    if side is not None:
        return centre_crop(image, side, 1.0)
    height, width = image.shape[1:]
    if max(height, width) > LARGEST:
        raise UsageError(
            f"{path} is {height} x {width} pixels (high x wide), and this command takes images of at most {LARGEST};"
            " give --size 32 to crop the central square of each and resize it."
        )
    return image


def _same_size(files: Sequence[Path], images: Sequence[Tensor]) -> None:
    first = images[0].shape[1:]
    for path, image in zip(files, images, strict=True):
        if image.shape[1:] != first:
            sizes = [f"{shape[0]} x {shape[1]}" for shape in (first, image.shape[1:])]
            raise UsageError(
                f"the images have several sizes (high x wide): {files[0].name} is {sizes[0]}, {path.name} {sizes[1]};"
                " give --size 32 to crop the central square of each and resize it."
            )


@dataclass(frozen=True, eq=False)
class StartImages:
    """Images to start from.

    Attributes:
        images: (N, C, H, W) in [0, 1], on the CPU, in the size and channels of the generator.
        names: name of each image.
        predictions: (N,), the predicted class of each image.
        inputs: sha256 of their files.
    """

    images: Tensor = field(repr=False)
    names: tuple[str, ...]
    predictions: Tensor
    inputs: dict[str, str]


def load_start_images(
    models: ClassifierAndGenerator, photos: Sequence[Path], count: int, truncation: float, seed: int
) -> StartImages:
    """Load photos, cropped to the generator's shape; without photos, generate ``count`` images, class by class.

    Raises:
        PhotoError: a file is not a photo.
        FileNotFoundError: a file does not exist.
    """
    if photos:
        images = torch.stack([read_at_shape(path, models.shape) for path in photos])
        names = tuple(path.stem for path in photos)
        known = [path.name for path in photos]
        inputs = {path.name if known.count(path.name) == 1 else str(path): store.sha256(path) for path in photos}
    else:
        images, names, inputs = generate_images(models, count, truncation, seed), None, {}
    predictions = models.predict(images).argmax(1)
    if names is None:
        names = tuple(f"drawn: {models.label(int(prediction))}" for prediction in predictions)
    return StartImages(images, names, predictions, inputs)


def generate_images(models: ClassifierAndGenerator, count: int, truncation: float, seed: int) -> Tensor:
    """Generate images, of each class in turn if the generator has classes."""
    known = int(getattr(models.generator, "num_classes", 0))
    classes = torch.arange(count) % known if known else None
    stream = torch.Generator().manual_seed(seed)
    return models.generate(models.generator.sample_latents(count, classes, truncation, generator=stream))


def read_at_shape(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Read the centre of a photo, in the size and channels of the generator's images."""
    channels, height, width = shape
    photo = read_photo(path, longer_side=4 * max(height, width))
    square = centre_crop(photo, max(height, width), 1.0)
    first_row, first_column = (square.shape[1] - height) // 2, (square.shape[2] - width) // 2
    image = square[:, first_row : first_row + height, first_column : first_column + width]
    return image.mean(0, keepdim=True).expand(channels, -1, -1) if channels != 3 else image


MOST_REAL_IMAGES = 1000
REAL_DIGITS = "mnist_digits"


class RealImages(NamedTuple):
    """Real images (n, C, H, W) in [0, 1], in the size and channels of the generator, and a description of them."""

    images: Tensor
    description: str


def load_real_images(name: str | None, models: ClassifierAndGenerator) -> RealImages | None:
    """Load the held-out digits of the zoo or the photos of a folder.

    Args:
        name: ``mnist_digits`` or a folder. None loads the digits for the zoo's digit generator if they are installed,
            and nothing for other generators.
        models: the classifier and the generator.

    Raises:
        UsageError: not a folder, no photos in it, or digits for a generator of other images.
        AssetError: the digits are named and not installed.
        PhotoError: a file with the suffix of a photo is not a photo.
    """
    if name is None:
        try:
            return load_real_digits(models.shape[-1]) if models.generator_name == "mnist_generator" else None
        except zoo.AssetError:
            return None
    if name == REAL_DIGITS:
        if models.shape not in ((1, 28, 28), (1, 16, 16)):
            raise UsageError(
                f"--real {REAL_DIGITS} are grey, 28 x 28 or 16 x 16; the generator's images are {models.shape}. Give "
                "a folder."
            )
        return load_real_digits(models.shape[-1])
    folder = Path(name)
    if not folder.is_dir():
        raise UsageError(
            f"--real {name} is not a folder; give a folder with photos, or {REAL_DIGITS}, or leave the option out."
        )
    files = photo_files(folder)[:MOST_REAL_IMAGES]
    if not files:
        raise UsageError(f"--real {name} holds no photos; give a folder that does, or leave the option out.")
    return RealImages(
        torch.stack([read_at_shape(path, models.shape) for path in files]), f"{len(files)} photos of {folder.name}"
    )


def load_real_digits(size: int) -> RealImages:
    """Load every fifth of the zoo's digits, shuffled; its generator and classifier were not trained on them."""
    known = zoo.mnist_digits()
    images = (known.halve() if size == 16 else known).images[4::5]
    mixed = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return RealImages(images[mixed], f"{len(images)} digits held out")
