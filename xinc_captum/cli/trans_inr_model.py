"""The TransINR that a person names, or one fitted to the pictures at hand; and which pictures it has not seen."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..attributions.trans_inr import TransFit, TransINR
from .failures import UsageError
from .small_pictures import DIGITS, SmallPictures, with_channels

FIT, SHIPPED = "fit", "mnist_trans_inr"
FEWEST = 40  # pictures to fit to; a tenth of them is held out
COARSEST = 8  # patches on the longer side, at most
STEPS = 1000


@dataclass(frozen=True, eq=False)
class Written:
    """A model, and pictures to show it.

    Attributes:
        model: on its device.
        name: as it was asked for.
        images: (N, C, H, W), those to look at.
        names: of these.
        words: what they are to the model.
        fit: how the fit went, where one was made here.
    """

    model: TransINR = field(repr=False)
    name: str
    images: Tensor = field(repr=False)
    names: tuple[str, ...]
    words: str
    fit: TransFit | None


def written_called(
    pictures: SmallPictures,
    model: str | None,
    patch: int | None,
    steps: int | None,
    seed: int,
    device: torch.device,
) -> Written:
    """Find a model or fit one.

    Args:
        pictures: what it shall read.
        model: a file, ``mnist_trans_inr`` or ``fit``; None is the shipped one for the zoo's digits, else ``fit``.
        patch: side of a patch, of a model that is fitted here; None chooses.
        steps: of the fit; None is 1,000.
        seed: of first weights and fit.
        device: where to compute.

    Raises:
        FileNotFoundError: no such file.
        UsageError: a file of something else, pictures that the model does not take, too few to fit to, or options of
            a fit beside a model that is fitted already.
    """
    asked = model or (SHIPPED if pictures.name == DIGITS and patch is None and steps is None else FIT)
    held = torch.arange(len(pictures.images)) % 10 == 0
    if asked == FIT:
        return _fitted(pictures, held, patch, steps or STEPS, seed, device)
    if patch is not None or steps is not None:
        raise UsageError(f"--patch and --steps are of a fit, and {asked} is fitted already; leave them out.")
    found = loaded(asked).to(device)
    images = with_channels(pictures.images, found.config["channels"], asked).to(device)
    _try(found, images, asked)
    if asked == SHIPPED and pictures.name == DIGITS:
        names = tuple(name for name, out in zip(pictures.names, held.tolist(), strict=True) if out)
        return Written(found, asked, images[held.to(device)], names, "held out when it was fitted", None)
    words = "its file does not say whether it was fitted to them"
    return Written(found, asked, images, pictures.names, words, None)


def loaded(name: str) -> TransINR:
    """The shipped model, or that of a file.

    Raises:
        FileNotFoundError: no such file.
        UsageError: a file of something else.
    """
    if name == SHIPPED and not Path(name).exists():
        return zoo.mnist_trans_inr()
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file; wanted one that TransINR.save wrote, {SHIPPED}, or {FIT}.")
    try:
        return TransINR.load(name)
    except ValueError as error:
        raise UsageError(f"--model: {error}") from error


def settings_for(size: tuple[int, int], channels: int, patch: int | None) -> dict[str, Any]:
    """Arguments of a TransINR for pictures of ``size``: about 8 x 8 patches, frequencies up to half a cycle a pixel.

    Raises:
        UsageError: a size that no patch tiles into four a side or more, or not the one that is asked for.

    Example:
        >>> settings_for((28, 28), 1, None)["patch"]
        4
    """
    longer, shorter = max(size), min(size)
    good = [p for p in range(2, shorter // 4 + 1) if size[0] % p == 0 and size[1] % p == 0]
    if patch is None and not good:
        raise UsageError(
            f"pictures of {size[0]} x {size[1]} pixels (high x wide) do not tile into square patches, four or more on "
            "a side; say --size 28 or 32 for the middle square of each, in that size."
        )
    chosen = patch or min(good, key=lambda p: (longer // p > COARSEST, abs(longer / p - COARSEST)))
    if size[0] % chosen or size[1] % chosen:
        sides = f"; choose among {', '.join(map(str, good))}" if good else ""
        raise UsageError(
            f"pictures of {size[0]} x {size[1]} pixels do not tile into patches of --patch {chosen}{sides}."
        )
    small = longer <= 12
    return {
        "channels": channels,
        "size": size,
        "patch": chosen,
        "dim": 48 if small else 64,
        "count": 4 if small else 8,
        "highest": longer / 2,
        "groups": 16,
    }


def _fitted(
    pictures: SmallPictures, held: Tensor, patch: int | None, steps: int, seed: int, device: torch.device
) -> Written:
    count = len(pictures.images)
    if count < FEWEST:
        raise UsageError(
            f"{count} picture{'s' * (count != 1)} to fit to, of which a tenth is held out; wanted at least {FEWEST}, "
            f"better thousands, or a --model that is fitted already (such as {SHIPPED}, for digits)."
        )
    arguments = settings_for(pictures.size, pictures.images.shape[1], patch)
    model = TransINR(**arguments, seed=seed).to(device)
    fit = model.fit(pictures.images[~held].to(device), validation=None, steps=steps, lr=3e-3, seed=seed)
    names = tuple(name for name, out in zip(pictures.names, held.tolist(), strict=True) if out)
    words = f"held out: every tenth of {count:,}, looked at after the fit only"
    return Written(model, FIT, pictures.images[held].to(device), names, words, fit)


def _try(model: TransINR, images: Tensor, name: str) -> None:
    try:
        with torch.no_grad():
            model(images[:1])
    except ValueError as error:
        raise UsageError(f"{name} does not take these pictures: {error}") from error
