"""A network that writes networks in one safetensors file: weights, means and the arguments that built it."""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

FORMAT = "xinc-captum-trans-inr-1"
KEY = "network"  # one metadata entry: safetensors writes several in random order, and equal models are equal bytes
M = TypeVar("M", bound=nn.Module)


def save_model(model: nn.Module, config: dict[str, Any], path: str | Path) -> None:
    """Write ``model`` and what its class was called with; the file appears whole or not at all.

    Args:
        model: all its parameters and buffers are kept.
        config: keyword arguments of its class, as JSON can hold them.
        path: the file to write or replace.

    Raises:
        FileNotFoundError: its folder is not there.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} is not there; make it first, or give another path.")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    note = {"format": FORMAT, "kind": type(model).__name__, "config": config}
    temporary = path.with_name(f"{path.name}.part")
    save_file(tensors, temporary, metadata={KEY: json.dumps(note)})
    temporary.replace(path)


def load_model(kind: type[M], path: str | Path, device: torch.device | str) -> M:
    """Build a ``kind`` as the file says and give it the file's weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, not one of a ``kind``, or weights of another configuration.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted a model written by {kind.__name__}.save().")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            note = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); write it again with save().") from error
    if note.get("format") != FORMAT or note.get("kind") != kind.__name__:
        seen = f"{note.get('kind', 'nothing')!r} of format {note.get('format')!r}"
        raise ValueError(f"{path} holds {seen}; wanted {kind.__name__!r} of format {FORMAT!r}, as save() writes.")
    config = {name: tuple(value) if isinstance(value, list) else value for name, value in note["config"].items()}
    with torch.device("meta"):  # no weights to draw: the random state stays as found
        model = kind(**config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted != found:
        names = sorted(set(wanted) ^ set(found)) or [name for name in wanted if wanted[name] != found[name]]
        first = names[0]
        raise ValueError(
            f"{path} is a checkpoint of another configuration than it says: {first!r} has shape {found.get(first)}; "
            f"wanted {wanted.get(first)}. {len(names)} of {len(wanted)} tensors differ; write it again with save()."
        )
    model.load_state_dict(tensors, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
