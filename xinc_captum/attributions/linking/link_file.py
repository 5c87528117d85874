"""A link in one tensor file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ... import store
from .maps import KINDS
from .moments import ClassMeans
from .ridge import RankReport

if TYPE_CHECKING:
    from .latent_link import LatentLink

KIND, WRITER = "link", "LatentLink.save()"


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


def write(link: LatentLink, path: str | Path) -> Path:
    """Write what :meth:`LatentLink.save` documents."""
    tensors, note = packed(link)
    return store.write_tensors(path, tensors, kind=KIND, metadata=note)


def read(cls: type[LatentLink], path: str | Path) -> LatentLink:
    """Read what :meth:`LatentLink.load` documents."""
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    with store.consistent(path, WRITER):
        link = cls(**note["settings"])
        unpack(link, tensors, note)
    return link


_SOLVED = ("weight", "bias", "class_ids")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
