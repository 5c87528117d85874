"""A page on which a reader asks who paints a pixel, and what a neuron paints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .embedded import blob, pictures
from .pack import MOST_UNITS, PackedUnits, pack_units
from .page import Said, write_page

ROOM = 4_900_000  # bytes of the whole page
_REST = 80_000  # of it for words, style and script
_PICTURES = 2_000_000  # of it for pictures, at most
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
    the maps smaller where there are many. Only the pictures that a reader brings along packed are taken as they are.

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
        ValueError: no layers, another number of frames or names, or as :func:`pack_units`.

    Example:
        >>> maps = torch.randn(5, 3, 8, 12)
        >>> explore_canvases("cat.html", torch.rand(3, 8, 12), {"h1": maps}, title="A cat")  # doctest: +SKIP
    """
    frames = _framed(picture)
    if not layers:
        raise ValueError("there are no layers; wanted the canvases of at least one.")
    shown = pictures(frames)
    while sum(map(len, shown)) > _PICTURES and min(frames.shape[-2:]) > 1:
        frames = _resized(frames, 0.75)
        shown = pictures(frames)
    told, called = verdicts or {}, names or {}
    room = (ROOM - _REST - sum(map(len, shown)) - sum(len("".join(n)) for n in called.values())) * 3 // 4
    packed = {
        name: maps if isinstance(maps, PackedUnits) else pack_units(maps, room=max(room // len(layers), 1 << 14))
        for name, maps in layers.items()
    }
    entries = []
    for name, units in packed.items():
        count, there = units.amounts.shape
        if there != len(frames):
            raise ValueError(f"{name} has canvases of {there} frames, and there are {len(frames)} pictures.")
        if name in called and len(called[name]) != count:
            raise ValueError(f"{name} has {count} units and {len(called[name])} names; wanted one name each.")
        if int(units.top.to(torch.int32).max()) >= min(count, MOST_UNITS):
            raise ValueError(f"{name} names unit {int(units.top.to(torch.int32).max())}, and has {count}.")
        entries.append(_entry(name, units, called.get(name)))
    data = {"size": list(frames.shape[-2:]), "frames": shown, "layers": entries}
    said = [Said(name, *told[name]) for name in packed if name in told]
    return write_page(
        path,
        "canvases.html.j2",
        _SCRIPTS,
        title=title,
        facts=facts or {},
        verdicts=said,
        data=data,
        blobs={name: blob(units) for name, units in packed.items()},
        film=len(frames) > 1,
    )


def _framed(picture: Tensor) -> Tensor:
    """(frames, C, H, W), no larger than a page shows."""
    frames = picture[None] if picture.dim() == 3 else picture
    longest = max(frames.shape[-2:])
    if frames.dim() != 4 or longest <= _LONGEST:
        return frames
    return _resized(frames, _LONGEST / longest)


def _resized(frames: Tensor, share: float) -> Tensor:
    size = [max(1, round(side * share)) for side in frames.shape[-2:]]
    return torch.nn.functional.interpolate(frames.float(), size, mode="bilinear", antialias=True)


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
