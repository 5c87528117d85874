"""Keep a fitted network in one safetensors file: weights, architecture, encoding and picture size."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .mlp import FourierMLP, Siren

KINDS: dict[str, type[FourierMLP] | type[Siren]] = {"FourierMLP": FourierMLP, "Siren": Siren}
FORMAT = "xinc-captum-inr-1"
KEY = (
    "network"  # the one metadata entry: safetensors writes several in random order, and equal networks are equal bytes
)


class Loaded(NamedTuple):
    """A network and the size of the picture it was fitted to."""

    model: FourierMLP | Siren
    size: tuple[int, ...]


def save(model: FourierMLP | Siren, path: str | Path, *, size: tuple[int, ...]) -> None:
    """Write ``model`` with the ``size`` of its picture.

    Raises:
        TypeError: another kind of model (keep its state dict with safetensors yourself).
    """
    kind = type(model).__name__
    if kind not in KINDS:
        raise TypeError(f"model is a {kind}; wanted one of {', '.join(KINDS)}. Save others with safetensors directly.")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    note = {"format": FORMAT, "kind": kind, "config": model.config, "size": list(size)}
    temporary = Path(path).with_suffix(".part")
    save_file(tensors, temporary, metadata={KEY: json.dumps(note)})
    temporary.replace(path)


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Loaded:
    """Read what :func:`save` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, or not one of ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted a network written by xinc_captum.inr.save().")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            note = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); write it again with save().") from error
    if note.get("format") != FORMAT or note.get("kind") not in KINDS:
        raise ValueError(
            f"{path} is marked {note.get('format', 'with nothing')!r}; wanted {FORMAT!r}, as xinc_captum.inr.save() "
            "writes."
        )
    with torch.device("meta"):
        model = KINDS[note["kind"]](**note["config"])
    model.load_state_dict(tensors, assign=True)
    return Loaded(model, tuple(note["size"]))
