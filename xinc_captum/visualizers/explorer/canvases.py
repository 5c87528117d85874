"""A page on which a reader asks who paints a pixel, and what a neuron paints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .images import album
from .pack import MOST_UNITS, PackedUnits, pack_units
from .page import ROOM, Said, blob, write_page

_PICTURES = 1_500_000  # bytes of the room for pictures, at most
_FEWEST = 300_000  # and at least, so that one that lacks room is said to be too large as a whole
_LONGEST = 640  # pixels of a picture's longer side
_SCRIPTS = ("units.js", "drawing.js", "cluster_map.js", "panels.js", "canvases.js")


def explore_canvases(
    path: str | Path,
    picture: Tensor,
    layers: Mapping[str, Tensor | PackedUnits],
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    verdicts: Mapping[str, tuple[str, str]] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write one HTML file that needs nothing else: hover a pixel for its neurons, click a neuron for its canvas.

    It stays below 5 MB by quantising: shares to 1/65,535, maps to 255 levels of their own largest value, and by making
    the maps smaller where there are many, and pictures where these are large. What is brought along packed is taken as
    it is.

    Args:
        path: of the file to make or to replace.
        picture: (C, H, W), or (frames, C, H, W), in [0, 1], 1 or 3 channels.
        layers: by name, canvases (units, C, H, W), or (frames, units, C, H, W), or what
            :func:`pack_units` made of them.
        title: what the page is about.
        facts: short labelled values.
        verdicts: by layer, "holds", "weak" or "fails", and because of what.
        names: by layer, what its units are called; "neuron 0" and so on otherwise.

    Returns:
        the path.

    Raises:
        ValueError: no layers, another number of frames or names, packed layers that take more than a page may hold, or
            as :func:`pack_units`.

    Example:
        >>> maps = torch.randn(5, 3, 8, 12)
        >>> explore_canvases("cat.html", torch.rand(3, 8, 12), {"h1": maps}, title="A cat")  # doctest: +SKIP
    """
    frames = picture[None] if picture.dim() == 3 else picture
    if not layers:
        raise ValueError("there are no layers; expected the canvases of at least one.")
    told, called = verdicts or {}, names or {}
    there = {name: blob(units) for name, units in layers.items() if isinstance(units, PackedUnits)}
    left = ROOM - sum(map(len, there.values())) - sum(len("".join(words)) for words in called.values())
    held = album(list(frames), min(_PICTURES, max(_FEWEST, left)), longest=_LONGEST)
    room = (left - sum(map(len, held.addresses))) * 3 // 4 // max(1, len(layers) - len(there))
    packed = {
        name: maps if isinstance(maps, PackedUnits) else pack_units(maps, room=max(room, 1 << 14))
        for name, maps in layers.items()
    }
    entries = []
    for name, units in packed.items():
        count, steps = units.amounts.shape
        if steps != len(frames):
            raise ValueError(f"{name} has canvases of {steps} frames, and there are {len(frames)} pictures.")
        if name in called and len(called[name]) != count:
            raise ValueError(f"{name} has {count} units and {len(called[name])} names; expected one name each.")
        if int(units.top.to(torch.int32).max()) >= min(count, MOST_UNITS):
            raise ValueError(f"{name} names unit {int(units.top.to(torch.int32).max())}, and has {count}.")
        entries.append(_entry(name, units, called.get(name)))
    data = {"size": list(held.size), "frames": held.addresses, "layers": entries}
    said = [Said(name, *told[name]) for name in packed if name in told]
    return write_page(
        path,
        "canvases.html.j2",
        _SCRIPTS,
        title=title,
        facts=facts or {},
        verdicts=said,
        reduced=held.said,
        data=data,
        blobs={name: there.get(name) or blob(units) for name, units in packed.items()},
        film=len(frames) > 1,
    )


def _entry(name: str, units: PackedUnits, names: Sequence[str] | None) -> dict[str, Any]:
    frames, height, width, k = units.top.shape
    return {
        "layer": name,
        "units": len(units.scale),
        "frames": frames,
        "grid": [height, width],
        "k": k,
        "small": list(units.maps.shape[2:]),
        "near": units.near.shape[1],
        "spread": [round(float(part), 4) for part in units.spread],
        "names": None if names is None else list(names),
    }
