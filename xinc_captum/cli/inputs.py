"""Load the photos, small images, videos and masks that arguments name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from .. import store, zoo
from ..images import centre_crop, read_photo
from ..inr.training import digest
from ..videos import VideoError, frame_files, read_video
from ..zoo.photos import skimage_photo
from ..zoo.videos import Sprite, sprite_clip
from .command import UsageError

PHOTO_SUFFIXES = set(".png .jpg .jpeg .tif .tiff .webp .bmp".split())
VIDEO_SUFFIXES = set(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .ogv .y4m .wmv .flv .ts .3gp".split())


@dataclass(frozen=True, eq=False)
class InputPhoto:
    """The photo to explain: its name, the image (3, H, W) in [0, 1], and its source."""

    name: str
    image: Tensor = field(repr=False)
    origin: dict[str, Any]


def load_photo(name: str, longer_side: int) -> InputPhoto:
    """Load a photo file, or a photo of the zoo if there is no such file; its longer side is at most ``longer_side``."""
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
    height, width = (max(1, round(side * share)) for side in image.shape[1:])
    return InputPhoto(name, _resize(image[None], (height, width))[0], {"photo of the zoo": name})


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


_CROPS = ((1.0, 0.5, 0.5), (0.6, 0.5, 0.5), (0.75, 0.0, 0.0), (0.75, 1.0, 1.0))  # side, row and column, relative
_DOUBLES = {"motorcycle_right": "motorcycle_left"}  # photos of the zoo that show the same scene


class ImageSet(NamedTuple):
    """Images (N, C, H, W) in [0, 1], and a description of them."""

    images: Tensor
    description: str


def natural_images(folder: Path | None, size: int, without: str) -> ImageSet | None:
    """Return square crops of the photos of a folder or of the zoo; None if the zoo's photos are not installed.

    Each photo gives up to four crops, the centre first, for about a hundred in total. The photo ``without`` of the zoo
    is left out, because it is the one to explain.
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
        excluded = {"voc", "quokka", *_DOUBLES, without, _DOUBLES.get(without, "")}
        try:
            photos = [zoo.photo(name).image for name in zoo.photo_names() if name not in excluded]
        except zoo.AssetError:
            return None
        source = "foolbox and scikit-image"
    each = min(len(_CROPS), math.ceil(100 / len(photos)))
    images = torch.stack([square for photo in photos for square in crop_squares(photo, size, each)])
    return ImageSet(images, f"{len(images)} squares out of {len(photos)} photos of {source}")


def photo_files(folder: Path) -> list[Path]:
    """Return the photos in a folder and its subfolders, sorted, without hidden files and result folders."""
    results = store.results_below(folder)
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and not path.is_dir())
    return sorted(path for path in paths if not store.is_hidden(path, folder) and not results & set(path.parents))


def crop_squares(photo: Tensor, size: int, count: int) -> Sequence[Tensor]:
    """Return the central square of a photo, a closer one, the upper left and the lower right one, resized."""
    height, width = photo.shape[-2:]
    crops = []
    for share, down, right in _CROPS[:count]:
        side = max(1, round(share * min(height, width)))
        first_row, first_column = round(down * (height - side)), round(right * (width - side))
        crops.append(centre_crop(photo[:, first_row : first_row + side, first_column : first_column + side], size, 1.0))
    return crops


DIGITS = "mnist_digits"
LARGEST, MOST_IMAGES = 64, 5000  # pixels per side, and images


@dataclass(frozen=True, eq=False)
class SmallImages:
    """Images (N, C, H, W) of one size, where C is 1 if all are grey, and names for titles and for each image."""

    name: str
    images: Tensor = field(repr=False)
    names: tuple[str, ...]
    origin: dict[str, Any]


def load_small_images(sources: Sequence[str], side: int | None) -> SmallImages:
    """Load the images of files and folders, or the digits of the zoo for ``["mnist_digits"]``.

    With ``side``, the central square of each image is cropped and resized to this many pixels.
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
    first = all_images[0].shape[1:]
    for path, image in zip(files, all_images, strict=True):
        if image.shape[1:] != first:
            sizes = [f"{shape[0]} x {shape[1]}" for shape in (first, image.shape[1:])]
            raise UsageError(
                f"the images have several sizes (high x wide): {files[0].name} is {sizes[0]}, {path.name} {sizes[1]};"
                " give --size 32 to crop the central square of each and resize it."
            )
    images = torch.stack(all_images)
    if float((images - images[:, :1]).abs().max()) < 0.5 / 255:  # all grey
        images = images[:, :1].contiguous()
    name = Path(sources[0]).resolve().name if len(sources) == 1 else f"{len(files)} pictures"
    return SmallImages(name, images, tuple(path.stem for path in files), {name: digest(images)})


def with_channels(images: Tensor, channels: int, model: str) -> Tensor:
    """Return images with the channels of a model: grey images are repeated, colour is not converted to grey."""
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


FITTED, SPRITE = "carphone_nerv", "sprite"
GRID = 8  # sides are multiples of it: each of three blocks doubles the size
_DISCS = (Sprite(9, (20, 12), (0, 4), (0.2, 0.85, 0.3)), Sprite(8, (52, 84), (-1, -5), (0.15, 0.35, 0.9)))


@dataclass(frozen=True, eq=False)
class VideoInput:
    """The video to explain."""

    name: str
    frames: Tensor = field(repr=False)  # (frames, 3, H, W) in [0, 1]
    origin: dict[str, Any]
    objects: tuple[str, ...] = ()  # names of the objects with masks
    masks: Tensor | None = field(default=None, repr=False)  # (frames, objects, H, W), bool
    flow: Tensor | None = field(default=None, repr=False)  # (frames - 1, 2, H, W) if it is known exactly


def video_names() -> list[str]:
    """Return the names of the zoo that ``xinc canvas`` takes as videos."""
    return [FITTED, *zoo.video_names(), SPRITE]


def is_video(source: str) -> bool:
    """Whether a name means a video: a folder, a file of such a kind, an animated GIF, or one of the zoo."""
    path = Path(source)
    if path.is_dir():
        return True
    if not path.is_file():
        return source in video_names()
    if path.suffix.lower() == ".gif":
        try:
            with Image.open(path) as image:
                return int(getattr(image, "n_frames", 1)) > 1
        except Exception:  # of nearly every type; read_photo() then raises a PhotoError
            return False
    return path.suffix.lower() in VIDEO_SUFFIXES


def load_video(source: str, limit: int, longer_side: int | None, masks: Path | None) -> VideoInput:
    """Load at most ``limit`` frames of a file, a folder or a video of the zoo, and the masks of its objects.

    The video is shrunk to ``longer_side`` pixels (None: 96); its sides become multiples of 8.
    """
    path = Path(source)
    known = not path.exists()
    if known and source in (FITTED, SPRITE) and longer_side is not None:
        raise UsageError(f"--size does not apply to {source}, whose size is fixed; leave it out.")
    if known and source == SPRITE:
        if masks is not None:
            raise UsageError(f"--masks does not apply to {SPRITE}, whose masks are known; leave it out.")
        photo = interpolate(skimage_photo("coffee").image[None], size=(64, 96), mode="area")[0]
        clip, discs = sprite_clip(photo, _DISCS, max(2, min(limit, 12))), ("the green disc", "the blue disc")
        return VideoInput(SPRITE, clip.frames, {"clip of the zoo": SPRITE}, discs, clip.masks, clip.flow)
    try:
        if known:
            original = zoo.video("carphone_pristine" if source == FITTED else source, limit).frames
            full = original.shape[2:]
            size = (72, 88) if source == FITTED else network_size(full[0], full[1], longer_side or 96)
            frames = _resize(original, size)
        else:
            full = read_video(path, 1, least=1).shape[2:]
            frames = read_video(path, limit, network_size(full[0], full[1], longer_side or 96), least=1)
    except ImportError as error:
        raise UsageError(str(error)) from error
    if len(frames) < 2:
        still = str(frame_files(path)[0]) if path.is_dir() else "frame.png"
        raise UsageError(
            f"{path} has a single frame; expected at least 2 for a video. For a photo: xinc canvas {still}"
        )
    if known:
        origin = {"video of the zoo": source}
    else:
        origin = {path.name: digest(frames) if path.is_dir() else store.sha256(path)}
    name = source if known else path.resolve().stem
    if masks is None:
        return VideoInput(name, frames, origin)
    objects = read_masks(masks, frames, (full[0], full[1]), cut=len(frames) == limit)
    origin |= {f"masks of {one}": digest(objects[one]) for one in objects}
    return VideoInput(name, frames, origin, tuple(objects), torch.stack(list(objects.values()), 1))


def network_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Return the (H, W) of the resized video: multiples of 8, with nearly the same aspect ratio, hardly enlarged."""
    share = min(1.0, longer_side / max(height, width))
    return max(GRID, round(height * share / GRID) * GRID), max(GRID, round(width * share / GRID) * GRID)


def read_masks(folder: Path, frames: Tensor, full: tuple[int, int], *, cut: bool) -> dict[str, Tensor]:
    """Read the masks of objects by name: bool, (frames, H, W) in the size of ``frames`` (frames, C, H, W).

    ``folder`` holds one image per frame, of one object, or a folder of such images for each object. ``full`` is the
    (H, W) of the original video, which masks may also have. With ``cut``, the video, and thus the masks, may be longer
    than these frames.
    """
    if not folder.is_dir():
        raise UsageError(f"--masks {folder} is not a folder; expected one image per frame, white where the object is.")
    inside = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    return {f.name: _read_masks(f, frames, full, cut) for f in inside or [folder.resolve()]}


def _read_masks(folder: Path, frames: Tensor, full: tuple[int, int], cut: bool) -> Tensor:
    count, size = len(frames), tuple(frames.shape[2:])
    try:
        values = read_video(folder, count if cut else None, least=1).mean(1, keepdim=True)
    except VideoError as error:
        raise UsageError(f"the masks of {folder.name!r} cannot be used: {error}") from error
    if len(values) != count:
        raise UsageError(
            f"{folder} has {len(values)} mask{'' if len(values) == 1 else 's'} for {count} frames; expected one a "
            "frame, in the order of their names. If an object is not visible, its mask is black."
        )
    mask_size = tuple(values.shape[2:])
    if mask_size not in (full, size):
        raise UsageError(
            f"the masks in {folder} are {mask_size[1]} x {mask_size[0]} pixels and the video is {full[1]} x "
            f"{full[0]}; expected the video's size."
        )
    resized = interpolate(values, size, mode="area") if mask_size != size else values
    masks = resized[:, 0] > 0.5
    if not masks.any():
        raise UsageError(
            f"the masks in {folder} are black in all {count} frames; expected white (not 1 of 255) where the object "
            "is, and an object of at least about one pixel after resizing."
        )
    if masks.all():
        raise UsageError(
            f"the masks in {folder} are white in all {count} frames; expected white where the object is and black "
            "elsewhere, not transparent: transparency counts as white."
        )
    return masks
