"""Layout of a stored canvas (zarr) and its resumable writer."""

import errno
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ... import store
from ..._optional import require
from ...batch import chunks
from ...progress import progress
from ...store import sha256_of_bytes

FORMAT = "xinc-captum-canvas"
VERSION = 1
ARRAY = "contribution"
JOURNAL = "journal.json"  # of an unfinished canvas: hashes of the blocks so far
PART = ".part"  # suffix of an unfinished canvas
CHUNK_BYTES = 4 << 20
CANVAS_FIELDS = ("size", "units", "slots", "channels", "rule", "layer")  # which a layout has in common with its canvas
Dtype = Literal["float32", "float16"]
DTYPES: dict[Dtype, int] = {"float32": 4, "float16": 2}  # bytes each


class CanvasStoreError(ValueError):
    """A folder that is not a canvas of xinc_captum, belongs to another canvas, or is damaged."""


def damaged(path: Path, why: str) -> CanvasStoreError:
    """Return the error for a store of which a file is missing or cannot be read."""
    return CanvasStoreError(f"{path} is damaged: {why}; save the canvas again.")


class CanvasBlock(NamedTuple):
    """A part of a canvas: one frame, some units, some rows of the first spatial axis."""

    frame: int
    first_unit: int
    last_unit: int
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Sizes, precision and chunks of a stored canvas; saving resumes an unfinished canvas only if they are equal."""

    size: tuple[int, ...]
    units: int
    slots: int  # 1 if a remainder follows the units (for pairs: one more input), else 0
    channels: int
    frames: int  # number of images, or 0 for one image whose pixels are rows
    pairs: tuple[int, int] | None  # (in, out) if units are pairs, else None
    dtype: Dtype
    band: int  # rows of the first spatial axis that are written together
    units_a_block: int  # units that are written together
    units_a_chunk: int  # units in one chunk
    rule: str
    layer: str

    @property
    def unit_axis(self) -> int:
        """Length of the unit axis: units, then remainders."""
        return self.units + self.slots * (1 if self.pairs is None else self.pairs[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, (layer, unit, channel, *size, frame)."""
        return (1, self.unit_axis, self.channels, *self.size, max(1, self.frames))

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of the chunk in one file: some units, all channels, one band, one frame."""
        return (1, self.units_a_chunk, self.channels, self.band, *self.size[1:], 1)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes."""
        return ("layer", "unit", "channel", *("z", "y", "x")[-len(self.size) :], "frame")

    @property
    def blocks(self) -> list[CanvasBlock]:
        """Blocks in the order in which they are written."""
        rows, units = chunks(self.size[0], self.band), chunks(self.unit_axis, self.units_a_block)
        return [CanvasBlock(frame, *u, *r) for frame in range(max(1, self.frames)) for u in units for r in rows]

    @classmethod
    def of(cls, canvas: Any, dtype: Dtype, chunking: dict[str, int]) -> "Layout":
        """Return the layout of a canvas; ``chunking`` has ``band``, ``units_a_block`` and ``units_a_chunk``."""
        fields: dict[str, Any] = {name: getattr(canvas, name) for name in CANVAS_FIELDS} | chunking
        return cls(**fields, frames=getattr(canvas, "frames", 0), pairs=getattr(canvas, "pairs", None), dtype=dtype)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the store, as JSON types."""
        return json.loads(json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}))  # type: ignore[no-any-return]

    @classmethod
    def from_attributes(cls, attributes: Any, path: Path) -> "Layout":
        """Return the layout from the attributes of a store, or raise a CanvasStoreError."""
        if attributes.get("format") != FORMAT:
            raise CanvasStoreError(
                f"{path} is a zarr store, but not a canvas (its format is {attributes.get('format')!r}); open it "
                "with zarr, or use a folder that Canvas.save wrote."
            )
        if attributes.get("version") != VERSION:
            raise CanvasStoreError(
                f"{path} is a canvas of version {attributes.get('version')}, and this xinc_captum reads version "
                f"{VERSION}; install the release that wrote it, or save the canvas again."
            )
        try:
            known: dict[str, Any] = {name: attributes[name] for name in cls.__dataclass_fields__}
        except KeyError as missing:
            raise damaged(path, f"its attributes lack {missing}") from None
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return cls(**values)


def plan_bands(size: tuple[int, ...], pixels: int, channels: int, unit_axis: int, dtype: Dtype) -> dict[str, int]:
    """Return block sizes if rows are pixels, ``pixels`` of which are computed in one pass: bands with all units."""
    row_length = math.prod(size[1:])
    band = min(size[0], max(1, pixels // row_length))
    units = max(1, CHUNK_BYTES // (channels * band * row_length * DTYPES[dtype]))
    return {"band": band, "units_a_block": unit_axis, "units_a_chunk": min(unit_axis, units)}


def plan_units(size: tuple[int, ...], maps: int, channels: int, unit_axis: int, dtype: Dtype) -> dict[str, int]:
    """Return block sizes if rows are frames: complete maps of some units, ``maps`` of which fit one pass."""
    max_maps = max(1, min(unit_axis, maps))
    units = max(1, min(max_maps, CHUNK_BYTES // (channels * math.prod(size) * DTYPES[dtype])))
    return {"band": size[0], "units_a_block": max_maps // units * units, "units_a_chunk": units}


Compute = Callable[[CanvasBlock], Tensor]


def write(path: str | Path, layout: Layout, compute: Compute, show_progress: bool = False) -> Path:
    """Write a canvas or resume an interrupted one; ``compute`` returns a block's (units, channels, rows, …).

    The canvas is written to ``<name>.part`` beside ``path`` and renamed at the end. An interruption changes neither
    bytes nor the attribute ``checksum``, on the same machine with the same number of threads. Errors are those of
    :meth:`Canvas.save`.
    """
    path = Path(path).resolve()
    part = path.with_name(path.name + PART)
    if path.exists():
        raise CanvasStoreError(f"{path} exists already; use another path, or delete it first.")
    zarr = require("zarr", purpose="saving a canvas", extra="store")
    path.parent.mkdir(parents=True, exist_ok=True)
    digests: list[str] = []
    blocks = layout.blocks
    try:
        if part.exists():
            array, digests = _resume_store(zarr, part, layout, compute)
        else:
            array = _create_store(zarr, part, layout)
        for block in progress(blocks[len(digests) :], "canvas to disk", show=show_progress):
            digests.append(_write_block(array, layout, compute(block), block))
            _write_journal(part, digests)
        root = zarr.open_group(part, mode="r+")
        root.attrs["checksum"] = sha256_of_bytes("".join(digests).encode())
        (part / JOURNAL).unlink()
        part.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        gigabytes = math.prod(layout.shape) * DTYPES[layout.dtype] / 1e9
        raise OSError(
            error.errno,
            f"the disk is full after {len(digests)} of {len(blocks)} blocks of {path.name} ({gigabytes:.3g} GB before "
            f"compression). The unfinished canvas is {part}: free disk space and save again to resume it, or delete it "
            "and save as float16.",
        ) from error
    return path


def _create_store(zarr: Any, part: Path, layout: Layout) -> Any:
    """Create an empty store; it is renamed to ``part`` when it is complete."""
    fresh = part.with_name(part.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    root = zarr.open_group(fresh, mode="w", zarr_format=3)
    root.attrs.update({**layout.attributes(), "versions": store.versions()})
    root.create_array(
        ARRAY,
        shape=layout.shape,
        chunks=layout.chunk,
        dtype=layout.dtype,
        fill_value=float("nan"),  # contributions are finite: nan means that a file is missing
        compressors=[zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), zarr.codecs.Crc32cCodec()],
        dimension_names=layout.axis_names,
        attributes={"units": "parts of the output", "rule": layout.rule, "layer": layout.layer},
    )
    for name, length in zip(layout.axis_names, layout.shape, strict=True):
        values = np.arange(length, dtype=np.int64)
        root.create_array(name, data=values, chunks=(length,), dimension_names=(name,))
    _write_journal(fresh, [])
    fresh.rename(part)
    return zarr.open_group(part, mode="r+")[ARRAY]


def _resume_store(zarr: Any, part: Path, layout: Layout, compute: Compute) -> tuple[Any, list[str]]:
    """Return the unfinished array and the digests of its blocks; raise a CanvasStoreError if the canvas differs."""
    try:
        root = zarr.open_group(part, mode="r+")
        digests: list[str] = json.loads((part / JOURNAL).read_text())["blocks"]
    except (OSError, ValueError, KeyError) as error:
        raise CanvasStoreError(
            f"the unfinished canvas {part} cannot be resumed ({error}); delete it and save again."
        ) from error
    existing = Layout.from_attributes(dict(root.attrs), part)
    if existing != layout:
        name = next(n for n in Layout.__dataclass_fields__ if getattr(existing, n) != getattr(layout, n))
        there, here = getattr(existing, name), getattr(layout, name)
        raise CanvasStoreError(
            f"{part} is an unfinished canvas of another kind ({name.replace('_', ' ')}: {there!r} there, {here!r} "
            "here). Save to another path, or delete it."
        )
    if digests and sha256_of_bytes(_to_array(layout, compute(layout.blocks[0])).data) != digests[0]:
        raise CanvasStoreError(
            f"{part} is an unfinished canvas of other weights or inputs, or of another machine or number of threads: "
            "its first block differs. Save to another path, or delete it."
        )
    return root[ARRAY], digests


def _write_block(array: Any, layout: Layout, values: Tensor, block: CanvasBlock) -> str:
    block_values = _to_array(layout, values)
    units, rows = slice(block.first_unit, block.last_unit), slice(block.first, block.last)
    array[(0, units, slice(None), rows, ..., block.frame)] = block_values
    return sha256_of_bytes(block_values.data)


def _to_array(layout: Layout, values: Tensor) -> Any:
    """Return the values in the layout's dtype; raise an OverflowError if they do not fit or are not finite."""
    converted = values.detach().to(getattr(torch, layout.dtype)).cpu()
    if not bool(torch.isfinite(converted).all()):
        largest = float(values.abs().max())
        raise OverflowError(
            f"a contribution of {largest:.4g} does not fit into {layout.dtype}; save with dtype='float32'."
            if layout.dtype == "float16"
            else f"contributions must be finite to be saved; the largest is {largest:.4g}."
        )
    return np.ascontiguousarray(converted.numpy())


def _write_journal(part: Path, digests: list[str]) -> None:
    """Replace the journal atomically."""
    fresh = part / (JOURNAL + ".new")
    fresh.write_text(json.dumps({"blocks": digests}))
    fresh.replace(part / JOURNAL)
