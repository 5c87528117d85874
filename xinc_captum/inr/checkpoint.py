"""Save a fitted network in one safetensors file: weights, architecture, encoding and size of its image or video."""

from pathlib import Path
from typing import NamedTuple

import torch

from .. import store
from .mlp import FourierMLP, HypoNet, Siren
from .nerv import HNeRV, NeRV

Network = FourierMLP | Siren | NeRV | HNeRV | HypoNet
KINDS: dict[str, type[FourierMLP] | type[Siren] | type[NeRV] | type[HNeRV] | type[HypoNet]] = {
    "FourierMLP": FourierMLP,
    "Siren": Siren,
    "NeRV": NeRV,
    "HNeRV": HNeRV,
    "HypoNet": HypoNet,
}
KIND, WRITER = "inr", "xinc_captum.inr.save()"


class Loaded(NamedTuple):
    """A network, and the size of the image or video that it was fitted to."""

    model: Network
    size: tuple[int, ...]


def save(model: Network, path: str | Path, *, size: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
    """Write ``model`` with the ``size`` of its image, or (frames, H, W) of its video.

    Args:
        model: a network of this package.
        path: the file to write or replace atomically; a missing folder is created.
        size: :func:`load` returns it with the model.
        dtype: of the weights in the file; ``torch.float16`` halves their size. Buffers keep their dtype, and
            :func:`load` restores the model's dtype.

    Raises:
        StoreError: the file cannot be written.
        TypeError: another class (save its state dict with safetensors), or an activation without a name.
    """
    kind = type(model).__name__
    if kind not in KINDS:
        raise TypeError(
            f"model is a {kind}; expected one of {', '.join(KINDS)}. Save others with safetensors directly."
        )
    activation = model.config.get("activation", "")
    if not isinstance(activation, str):
        raise TypeError(
            f"the model's activation is {activation!r}; expected the name of an activation, which a file can hold."
        )
    weights = {name for name, _ in model.named_parameters()}
    tensors = {
        name: tensor.detach().to("cpu", dtype if name in weights else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    dtype_name = str(next(model.parameters()).dtype).removeprefix("torch.")
    note = {"kind": kind, "config": model.config, "size": list(size), "dtype": dtype_name}
    store.write_tensors(path, tensors, kind=KIND, metadata=note)


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Loaded:
    """Read what :func:`save` wrote.

    Raises:
        FileNotFoundError: no such file.
        StoreError: a file of something else or of a newer version, an incomplete or changed file, or weights that do
            not fit the configuration.
    """
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    if note.get("kind") not in KINDS:
        raise store.StoreError(
            f"{path} holds a network of the class {note.get('kind')!r}; expected one of {', '.join(KINDS)}, a file "
            f"written by {WRITER}."
        )
    with store.consistent(path, WRITER):
        with torch.device("meta"):
            model = KINDS[note["kind"]](**note["config"])
        store.check_state(path, model.state_dict(), tensors)
        model.load_state_dict({name: value.to(device) for name, value in tensors.items()}, assign=True)
        if "dtype" in note:  # files of the first versions keep every weight as it was
            model.to(getattr(torch, note["dtype"]))
        return Loaded(model, tuple(note["size"]))
