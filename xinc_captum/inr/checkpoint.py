"""Keep a fitted network in one safetensors file: weights, architecture, encoding and size of what it draws."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .hnerv import HNeRV
from .hyponet import HypoNet
from .mlp import FourierMLP, Siren
from .nerv import NeRV

Network = FourierMLP | Siren | NeRV | HNeRV | HypoNet
KINDS: dict[str, type[FourierMLP] | type[Siren] | type[NeRV] | type[HNeRV] | type[HypoNet]] = {
    "FourierMLP": FourierMLP,
    "Siren": Siren,
    "NeRV": NeRV,
    "HNeRV": HNeRV,
    "HypoNet": HypoNet,
}
FORMAT = "xinc-captum-inr-1"
KEY = (
    "network"  # the one metadata entry: safetensors writes several in random order, and equal networks are equal bytes
)


class Loaded(NamedTuple):
    """A network and the size of the picture or video it was fitted to."""

    model: Network
    size: tuple[int, ...]


def save(model: Network, path: str | Path, *, size: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """Write ``model`` with the ``size`` of its picture, or (frames, H, W) of its video.

    Args:
        model: a network of this package.
        path: the file to write or replace; it appears whole or not at all.
        size: what :func:`load` gives back beside the model.
        dtype: what the file keeps of each weight; ``torch.float16`` halves it. Buffers are kept as they are, and
            :func:`load` gives back the model's own dtype.

    Raises:
        TypeError: another kind of model (keep its state dict with safetensors yourself), or one whose activation has no
            name.
    """
    kind = type(model).__name__
    if kind not in KINDS:
        raise TypeError(f"model is a {kind}; wanted one of {', '.join(KINDS)}. Save others with safetensors directly.")
    activation = model.config.get("activation", "")
    if not isinstance(activation, str):
        raise TypeError(f"the model's activation is {activation!r}; wanted one with a name, which a file can hold.")
    weights = {name for name, _ in model.named_parameters()}
    tensors = {
        name: tensor.detach().to("cpu", dtype if name in weights else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    own = str(next(model.parameters()).dtype).removeprefix("torch.")
    note = {"format": FORMAT, "kind": kind, "config": model.config, "size": list(size), "dtype": own}
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
    if "dtype" in note:  # files of earlier versions keep every weight as it was
        model.to(getattr(torch, note["dtype"]))
    return Loaded(model, tuple(note["size"]))
