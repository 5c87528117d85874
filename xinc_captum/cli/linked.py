"""A link in a folder, with the names of its two ends, so that later commands need nothing but the folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import store
from ..attributions.linking import LatentLink
from ..model_hash import other_weights
from .ends import Ends, ends_called
from .failures import UsageError

FILE = "link.safetensors"
TRUNCATION = 0.7


class Linked(NamedTuple):
    """A link, its ends, the verdict on it when it was made, and how its pictures were drawn."""

    link: LatentLink
    ends: Ends
    trust: str
    truncation: float
    seed: int


def described(ends: Ends) -> dict[str, Any]:
    """What a manifest must say for :func:`linked_called` to find the ends again."""
    return {"model": ends.model_name, "generator": ends.generator_name, "layer": ends.layer}


def linked_called(folder: Path, device: torch.device) -> Linked:
    """What ``xinc link`` wrote into a folder, ready for use.

    Raises:
        FileNotFoundError: no such folder.
        UsageError: it holds no link, or one that was damaged.
        AssetError: a package of the zoo is missing.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; wanted one that xinc link wrote.")
    try:
        note = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
        names = note["ends"]
        model, generator, layer = names["model"], names["generator"], names["layer"]
        drawn = float(note.get("truncation", TRUNCATION)), int(note.get("seed", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} holds no link; wanted a folder that xinc link wrote, with {store.MANIFEST} and {FILE}."
        ) from error
    try:
        link = LatentLink.load(folder / FILE)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"the link in {folder} cannot be used: {error}") from error
    ends = ends_called(model, generator, layer, device)
    link.to(device)
    trust, others = (
        str(note.get("trust", "unknown")),
        other_weights(link.manifest, ends.classifier.model, ends.generator),
    )
    if others:  # a function of the person's may make other weights each time; the method warns of it on the terminal
        trust = f"{trust}; but {others.rstrip('.')}"
    return Linked(link, ends, trust, *drawn)
