"""A trained style generator in one safetensors file, with the recipe that made it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .style_generator import StyleGenerator

FORMAT = "xinc-captum-style-generator-1"
KEY = "generator"  # the one metadata entry: safetensors writes several in random order


class LoadedStyle(NamedTuple):
    """A generator and the recipe that made it."""

    generator: StyleGenerator
    recipe: dict[str, Any]


def save_style_generator(model: StyleGenerator, path: str | Path, *, recipe: Mapping[str, Any]) -> None:
    """Write a generator with its recipe and the sha256 of its weights.

    Args:
        model: the generator.
        path: the file to write or replace; it appears whole or not at all.
        recipe: how it came about, in plain numbers and words: data, seed, steps.

    Raises:
        TypeError: a recipe that JSON cannot hold.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    note = {
        "format": FORMAT,
        "config": model.config,
        "recipe": dict(recipe),
        "sha256": weights_sha256(tensors),
    }
    temporary = Path(path).with_suffix(".part")
    save_file(tensors, temporary, metadata={KEY: json.dumps(note)})
    temporary.replace(path)


def load_style_generator(path: str | Path, *, device: torch.device | str = "cpu") -> LoadedStyle:
    """Read what :func:`save_style_generator` wrote, in eval mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, not one of ours, or weights that are not those that were saved.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted a generator written by save_style_generator().")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            note = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no whole safetensors file ({error}); write it again with save_style_generator()."
        ) from error
    if note.get("format") != FORMAT:
        raise ValueError(
            f"{path} is marked {note.get('format', 'with nothing')!r}; wanted {FORMAT!r}, as save_style_generator() "
            "writes."
        )
    seen = weights_sha256(tensors)
    if seen != note["sha256"]:
        raise ValueError(f"the weights in {path} have the sha256 {seen}, but it says {note['sha256']}; get it again.")
    config = {**note["config"], "channels": tuple(note["config"]["channels"])}
    model = StyleGenerator(**config, generator=torch.Generator())
    model.load_state_dict(tensors)
    return LoadedStyle(model.to(device).eval(), note["recipe"])


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hex digest of names, dtypes, shapes and bytes, in the order of the names.

    Example:
        >>> weights_sha256({"a": torch.zeros(2)})[:8]
        'da53f451'
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
