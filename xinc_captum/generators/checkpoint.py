"""A trained style generator in one safetensors file, with the recipe that made it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import store
from .style_generator import StyleGenerator

KIND, WRITER = "style-generator", "save_style_generator()"


class LoadedStyle(NamedTuple):
    """A generator and the recipe that made it."""

    generator: StyleGenerator
    recipe: dict[str, Any]


def save_style_generator(model: StyleGenerator, path: str | Path, *, recipe: Mapping[str, Any]) -> None:
    """Write a generator with its recipe, as :func:`~xinc_captum.store.write_tensors` does.

    Args:
        model: the generator.
        path: the file to write or replace; a missing folder is created.
        recipe: how it came about, in plain numbers and words: data, seed, steps.

    Raises:
        StoreError: the file cannot be written.
        TypeError: a recipe that JSON cannot hold.
    """
    note = {"config": model.config, "recipe": dict(recipe)}
    store.write_tensors(path, model.state_dict(), kind=KIND, metadata=note)


def load_style_generator(path: str | Path, *, device: torch.device | str = "cpu") -> LoadedStyle:
    """Read what :func:`save_style_generator` wrote, in eval mode.

    Raises:
        FileNotFoundError: no such file.
        StoreError: a file of something else or of a newer version, an incomplete or changed file, or weights that do
            not fit the configuration.
    """
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    with store.consistent(path, WRITER):
        config = {**note["config"], "channels": tuple(note["config"]["channels"])}
        model = StyleGenerator(**config, generator=torch.Generator())
        store.check_state(path, model.state_dict(), tensors)
        model.load_state_dict(tensors)
        return LoadedStyle(model.to(device).eval(), dict(note["recipe"]))
