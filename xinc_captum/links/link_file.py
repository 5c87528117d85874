"""A link in one safetensors file: no code in it, and nothing that is not checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .class_means import ClassMeans
from .maps import KINDS
from .ridge import RankReport

if TYPE_CHECKING:
    from .latent_link import LatentLink

FORMAT = "xinc-captum-link-"
VERSION = 1
KEY = "link"  # one metadata entry: safetensors writes several in random order, and equal links are equal bytes
PICKLES = (b"PK\x03\x04", b"\x80")  # torch.save's archive, and a bare pickle


def packed(link: LatentLink) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A link's tensors, and the rest as plain values."""
    assert link.map is not None and link.solved is not None  # noqa: S101, PT018 - save() solved it
    tensors = {f"map.{k}": v for k, v in link.map.tensors().items()}
    tensors |= {f"solved.{k}": v for k, v in link.map.named_buffers() if k in _SOLVED}
    tensors |= {"reservoir.rows": link.reservoir.rows, "reservoir.keys": link.reservoir.keys, "seen": link.seen}
    if link.class_means is not None:
        tensors |= {f"means.{k}": v for k, v in link.class_means.tensors().items()}
    note = {
        "settings": link.settings,
        "ridges": link.ridges,
        "report": link.solved.to_dict(),
        "manifest": link.manifest,
    }
    return tensors, note


def unpack(link: LatentLink, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
    """Fill a new link with what :func:`packed` gave."""
    own = KINDS[link.variant].restored(_under("map.", tensors), link.ridge)
    for name, value in _under("solved.", tensors).items():
        setattr(own, name, value)
    link.map = own
    link.reservoir.rows, link.reservoir.keys = tensors["reservoir.rows"], tensors["reservoir.keys"]
    link.seen = tensors["seen"]
    means = _under("means.", tensors)
    link.class_means = ClassMeans.restored(means) if means else None
    link.ridges, link.manifest = dict(note["ridges"]), dict(note["manifest"])
    link.solved = RankReport(**note["report"])


def write(path: str | Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> Path:
    """Write the file whole or not at all; it holds the sha256 of its tensors."""
    held = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    marked = {"format": f"{FORMAT}{VERSION}", "sha256": _digest(held), **note}
    path = Path(path)
    temporary = path.with_name(f"{path.name}.part")
    save_file(held, temporary, metadata={KEY: json.dumps(marked)})
    temporary.replace(path)
    return path


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a pickle, a damaged file, a file of something else or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted a link written by LatentLink.save().")
    with path.open("rb") as file:
        head = file.read(9)
        if head.startswith(PICKLES) and head[8:] != b"{":  # safetensors: 8 bytes of length, then JSON
            raise ValueError(
                f"{path} is a pickle (or an archive of torch.save), and reading one runs whatever code its author put "
                "in; it is not opened. Wanted a safetensors file written by LatentLink.save()."
            )
    try:
        with safe_open(path, framework="pt") as opened:
            note = json.loads((opened.metadata() or {}).get(KEY, "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no whole safetensors file ({error}); save the link again, or copy the file again."
        ) from error
    mark = str(note.get("format", "nothing"))
    number = mark.removeprefix(FORMAT)
    if number == mark or not number.isdigit():
        raise ValueError(f"{path} is marked with {mark!r}; wanted a link written by LatentLink.save().")
    if int(number) > VERSION:
        raise ValueError(
            f"{path} has format {number} of links, newer than this version reads ({VERSION}); update xinc-captum."
        )
    if _digest(tensors) != note["sha256"]:
        raise ValueError(f"the tensors of {path} are not those that were saved (their sha256 differs); copy it again.")
    return tensors, note


_SOLVED = ("weight", "bias", "class_ids")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
