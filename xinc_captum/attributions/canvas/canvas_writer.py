"""Write a canvas to disk block by block, so that a killed run goes on where it was."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import store
from ..._extra import needed
from ...progress import progress
from .canvas_layout import ARRAY, JOURNAL, PART, Block, CanvasStoreError, Layout

Compute = Callable[[Block], Tensor]


def write(path: str | Path, layout: Layout, compute: Compute, show_progress: bool = False) -> Path:
    """Write a canvas, or go on with one that was interrupted.

    It grows in ``<name>.part`` beside ``path`` and is renamed when whole. On one machine with as many threads,
    interruptions change nothing: same bytes, same ``checksum`` among its attributes.

    Args:
        path: the folder to make.
        layout: sizes and chunks.
        compute: a block to (units, channels, rows, …).
        show_progress: a bar over the blocks.

    Returns:
        the path.

    Raises:
        CanvasStoreError: something else is at ``path``, or the unfinished canvas beside it is another one.
        OverflowError: values that float16 cannot hold.
        OSError: the disk is full, or cannot be written to; what was written stays, to go on with.
    """
    path = Path(path).resolve()
    part = path.with_name(path.name + PART)
    if path.exists():
        raise CanvasStoreError(f"{path} exists already; give another place, or delete it first.")
    zarr = needed("zarr", purpose="saving a canvas", extra="store")
    path.parent.mkdir(parents=True, exist_ok=True)
    digests: list[str] = []
    blocks = layout.blocks
    try:
        if part.exists():
            array, digests = _resumed(zarr, part, layout, compute)
        else:
            array = _begun(zarr, part, layout)
        for block in progress(blocks[len(digests) :], "canvas to disk", show=show_progress):
            digests.append(_put(array, layout, compute(block), block))
            _note(part, digests)
        root = zarr.open_group(part, mode="r+")
        root.attrs["checksum"] = hashlib.sha256("".join(digests).encode()).hexdigest()
        (part / JOURNAL).unlink()
        part.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"the disk is full after {len(digests)} of {len(blocks)} blocks of {path.name} ({layout.nbytes / 1e9:.3g} "
            f"GB before compression). What was written stays in {part}: make room and save again, and it goes on "
            "there, or delete it and save as float16.",
        ) from error
    return path


def _begun(zarr: Any, part: Path, layout: Layout) -> Any:
    """An empty store; its first appearance under ``part`` is whole."""
    fresh = part.with_name(part.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    root = zarr.open_group(fresh, mode="w", zarr_format=3)
    root.attrs.update({**layout.attributes(), "versions": store.versions()})
    root.create_array(
        ARRAY,
        shape=layout.shape,
        chunks=layout.chunk,
        dtype=layout.dtype,
        fill_value=float("nan"),  # a contribution is finite: what reads as nan is a file that is missing
        compressors=[zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), zarr.codecs.Crc32cCodec()],
        dimension_names=layout.names,
        attributes={"units": "parts of the output", "rule": layout.rule, "layer": layout.layer},
    )
    for name, length in zip(layout.names, layout.shape, strict=True):
        values = np.arange(length, dtype=np.int64)
        root.create_array(name, data=values, chunks=(length,), dimension_names=(name,))
    _note(fresh, [])
    fresh.rename(part)
    return zarr.open_group(part, mode="r+")[ARRAY]


def _resumed(zarr: Any, part: Path, layout: Layout, compute: Compute) -> tuple[Any, list[str]]:
    """The array so far and its digests, after making sure that it is this canvas's.

    Raises:
        CanvasStoreError: it is another canvas's.
    """
    try:
        root = zarr.open_group(part, mode="r+")
        digests: list[str] = json.loads((part / JOURNAL).read_text())["blocks"]
    except (OSError, ValueError, KeyError) as error:
        raise CanvasStoreError(
            f"{part} is no unfinished canvas that can be gone on with ({error}); delete it and save again."
        ) from error
    found = Layout.of(dict(root.attrs), part)
    if found != layout:
        name = next(n for n in Layout.__dataclass_fields__ if getattr(found, n) != getattr(layout, n))
        there, here = getattr(found, name), getattr(layout, name)
        raise CanvasStoreError(
            f"{part} is an unfinished canvas of another kind ({name.replace('_', ' ')}: {there!r} there, {here!r} "
            "here). Save to another place, or delete it."
        )
    if digests and _digest(_values(layout, compute(layout.blocks[0]))) != digests[0]:
        raise CanvasStoreError(
            f"{part} is an unfinished canvas of other weights or inputs, or of another machine or number of threads: "
            "its first block differs. Save to another place, or delete it."
        )
    return root[ARRAY], digests


def _put(array: Any, layout: Layout, values: Tensor, block: Block) -> str:
    held = _values(layout, values)
    units, rows = slice(block.first_unit, block.last_unit), slice(block.first, block.last)
    array[(0, units, slice(None), rows, ..., block.frame)] = held
    return _digest(held)


def _values(layout: Layout, values: Tensor) -> Any:
    """As an array of the layout's precision.

    Raises:
        OverflowError: values that float16 cannot hold.
    """
    held = values.detach().to(getattr(torch, layout.dtype)).cpu()
    if not bool(torch.isfinite(held).all()):
        largest = float(values.abs().max())
        raise OverflowError(
            f"a contribution of {largest:.4g} does not fit into {layout.dtype}; save with dtype='float32'."
            if layout.dtype == "float16"
            else f"contributions must be finite to be saved; the largest is {largest:.4g}."
        )
    return np.ascontiguousarray(held.numpy())


def _digest(values: Any) -> str:
    return hashlib.sha256(values.data).hexdigest()


def _note(part: Path, digests: list[str]) -> None:
    """Replace the journal in one step."""
    fresh = part / (JOURNAL + ".new")
    fresh.write_text(json.dumps({"blocks": digests}))
    fresh.replace(part / JOURNAL)
