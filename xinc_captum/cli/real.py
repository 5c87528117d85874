"""Real pictures that a link is tried on, beside those that the generator draws."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .. import zoo
from .ends import Ends
from .failures import UsageError
from .photos import photo_files
from .starts import fitting

MOST = 1000
DIGITS = "mnist_digits"


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
    if name == DIGITS:
        if ends.shape not in ((1, 28, 28), (1, 16, 16)):
            raise UsageError(
                f"--real {DIGITS} are grey, 28 x 28 or 16 x 16; the generator draws {ends.shape}. Give a folder."
            )
        return digits(ends.shape[-1])
    folder = Path(name)
    if not folder.is_dir():
        raise UsageError(f"--real {name} is no folder; give one with photos, or {DIGITS}, or leave the option out.")
    files = photo_files(folder)[:MOST]
    if not files:
        raise UsageError(f"--real {name} holds no photos; give a folder that does, or leave the option out.")
    return Real(torch.stack([fitting(path, ends.shape) for path in files]), f"{len(files)} photos of {folder.name}")


def digits(size: int) -> Real:
    """Every fifth of the zoo's digits: those that its generator and classifier were not trained on, in mixed order."""
    known = zoo.mnist_digits()
    images = (known.halved() if size == 16 else known).images[4::5]
    mixed = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return Real(images[mixed], f"{len(images)} digits held out")
