"""Page of canvases: the neurons that contribute to a pixel, and the canvas of each neuron."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .images import album
from .pack import MAX_UNITS, PackedUnits, pack_units
from .page import DATA_LIMIT, VerdictNote, blob, write_page

_MAX_IMAGE_BYTES = 1_500_000
_MIN_IMAGE_BYTES = 300_000  # so that a page without space for images is reported as too large as a whole
_MAX_SIDE = 640  # pixels of the longer side of an image
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
    """Write a self-contained HTML page: hover over a pixel to see its neurons, click a neuron to see its canvas.

    The file stays below 5 MB: shares are quantised to 1/65,535, maps to 255 levels of their own maximum; maps of layers
    with many units and large images are reduced in size. Packed layers are written as they are.

    Args:
        path: file to write or to replace.
        picture: (C, H, W), or (frames, C, H, W), in [0, 1], 1 or 3 channels.
        layers: by name, canvases (units, C, H, W) or (frames, units, C, H, W), or the output of :func:`pack_units`.
        title: title of the page.
        facts: short values by name.
        verdicts: by layer, "holds", "weak" or "fails", and the reason.
        names: by layer, names of its units; None uses "neuron 0" and so on.

    Returns:
        the path.

    Raises:
        ValueError: no layers, another number of frames or names, packed layers that exceed the size of a page, or the
            errors of :func:`pack_units`.

    Example:
        >>> maps = torch.randn(5, 3, 8, 12)
        >>> explore_canvases("cat.html", torch.rand(3, 8, 12), {"h1": maps}, title="A cat")  # doctest: +SKIP
    """
    frames = picture[None] if picture.dim() == 3 else picture
    if not layers:
        raise ValueError("layers is empty; expected the canvases of at least one layer.")
    verdicts, names = verdicts or {}, names or {}
    blobs = {name: blob(units) for name, units in layers.items() if isinstance(units, PackedUnits)}
    space = DATA_LIMIT - sum(map(len, blobs.values())) - sum(len("".join(labels)) for labels in names.values())
    images = album(list(frames), min(_MAX_IMAGE_BYTES, max(_MIN_IMAGE_BYTES, space)), longest=_MAX_SIDE)
    room = (space - sum(map(len, images.addresses))) * 3 // 4 // max(1, len(layers) - len(blobs))
    packed = {
        name: maps if isinstance(maps, PackedUnits) else pack_units(maps, room=max(room, 1 << 14))
        for name, maps in layers.items()
    }
    entries = []
    for name, units in packed.items():
        count, steps = units.amounts.shape
        if steps != len(frames):
            raise ValueError(f"{name} has canvases of {steps} frames for {len(frames)} images; expected equal numbers.")
        if name in names and len(names[name]) != count:
            raise ValueError(f"{name} has {count} units and {len(names[name])} names; expected one name per unit.")
        if (last := int(units.top.to(torch.int32).max())) >= min(count, MAX_UNITS):
            raise ValueError(f"{name} refers to unit {last} and has {count} units; expected numbers below {count}.")
        entries.append(_entry(name, units, names.get(name)))
    data = {"size": list(images.size), "frames": images.addresses, "layers": entries}
    return write_page(
        path,
        "canvases.html.j2",
        _SCRIPTS,
        title=title,
        facts=facts or {},
        verdicts=[VerdictNote(name, *verdicts[name]) for name in packed if name in verdicts],
        reduced=images.caption,
        data=data,
        blobs={name: blobs.get(name) or blob(units) for name, units in packed.items()},
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
