"""A network that writes networks in one safetensors file: weights, means and the arguments that built it."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ... import store

KIND = "trans-inr"
M = TypeVar("M", bound=nn.Module)


def save_model(model: nn.Module, config: dict[str, Any], path: str | Path) -> None:
    """Write ``model`` and what its class was called with, as :func:`~xinc_captum.store.write_tensors` does.

    Args:
        model: all its parameters and buffers are kept.
        config: keyword arguments of its class, as JSON can hold them.
        path: the file to write or replace; a missing folder is created.

    Raises:
        StoreError: the file cannot be written.
    """
    store.write_tensors(path, model.state_dict(), kind=KIND, metadata={"kind": type(model).__name__, "config": config})


def load_model(kind: type[M], path: str | Path, device: torch.device | str) -> M:
    """Build a ``kind`` as the file says and give it the file's weights.

    Raises:
        FileNotFoundError: no such file.
        StoreError: not a file of a ``kind``, one of a newer version, an incomplete or changed file, or weights that do
            not fit the configuration.
    """
    writer = f"{kind.__name__}.save()"
    tensors, note = store.read_tensors(path, kind=KIND, writer=writer)
    if note.get("kind") != kind.__name__:
        raise store.StoreError(f"{path} holds a {note.get('kind')}; wanted a {kind.__name__}, a file of {writer}.")
    with store.consistent(path, writer):
        config = {name: tuple(value) if isinstance(value, list) else value for name, value in note["config"].items()}
        with torch.device("meta"):  # no weights to draw: the random state is unchanged
            model = kind(**config)
        store.check_state(path, model.state_dict(), tensors)
        model.load_state_dict({name: value.to(device) for name, value in tensors.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
