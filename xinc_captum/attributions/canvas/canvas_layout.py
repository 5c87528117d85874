"""How a canvas lies on disk: one zarr array with named axes, its coordinates, and what is said about it."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...batch import chunks

FORMAT = "xinc-captum-canvas"
VERSION = 1
ARRAY = "contribution"
JOURNAL = "journal.json"  # beside an unfinished array: how the blocks so far hash
PART = ".part"  # how the name of an unfinished canvas ends
CHUNK_BYTES = 4 << 20
Dtype = Literal["float32", "float16"]
DTYPES: dict[Dtype, int] = {"float32": 4, "float16": 2}  # bytes each


class CanvasStoreError(ValueError):
    """A place on disk that is no canvas of ours, not this canvas, or damaged."""


class Block(NamedTuple):
    """Part of a canvas: one frame, some units, some rows of the first spatial axis."""

    frame: int
    first_unit: int
    last_unit: int
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Sizes, precision and chunks of a stored canvas; what two canvases must share for one to go on with the other.

    Attributes:
        size: (H, W), (L,) or (D, H, W).
        units: how many, the slot not counted.
        slots: 1 where a slot follows the units (for pairs: one more input), else 0.
        channels: outputs of a pixel.
        frames: pictures, or 0 where there is one, whose pixels are rows.
        pairs: (in, out) where units are pairs, else None.
        dtype: "float32" or "float16".
        band: rows of the first spatial axis that are written together.
        units_a_block: units that are written together.
        units_a_chunk: units in one chunk.
        rule: the rule in words.
        layer: the layer's name.
    """

    size: tuple[int, ...]
    units: int
    slots: int
    channels: int
    frames: int
    pairs: tuple[int, int] | None
    dtype: Dtype
    band: int
    units_a_block: int
    units_a_chunk: int
    rule: str
    layer: str

    @property
    def unit_axis(self) -> int:
        """Length of the unit axis: units, then what belongs to none of them."""
        return self.units + self.slots * (1 if self.pairs is None else self.pairs[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """(layer, unit, channel, *size, frame)."""
        return (1, self.unit_axis, self.channels, *self.size, max(1, self.frames))

    @property
    def chunk(self) -> tuple[int, ...]:
        """Of one file: some units, all channels, one band, one frame."""
        return (1, self.units_a_chunk, self.channels, self.band, *self.size[1:], 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the axes."""
        return ("layer", "unit", "channel", *("z", "y", "x")[-len(self.size) :], "frame")

    @property
    def blocks(self) -> list[Block]:
        """What is written together, in the order in which it is written."""
        rows, units = chunks(self.size[0], self.band), chunks(self.unit_axis, self.units_a_block)
        return [Block(frame, *u, *r) for frame in range(max(1, self.frames)) for u in units for r in rows]

    @property
    def nbytes(self) -> int:
        """Logical size."""
        return math.prod(self.shape) * DTYPES[self.dtype]

    def attributes(self) -> dict[str, Any]:
        """As JSON takes them."""
        return json.loads(json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}))  # type: ignore[no-any-return]

    @classmethod
    def of(cls, attributes: Any, place: Path) -> "Layout":
        """From the attributes of a store.

        Raises:
            CanvasStoreError: the store is not ours, or of another version.
        """
        if attributes.get("format") != FORMAT:
            raise CanvasStoreError(
                f"{place} is a zarr store, but no canvas of ours (its format is {attributes.get('format')!r}); open it "
                "with zarr, or give a folder that Canvas.save wrote."
            )
        if attributes.get("version") != VERSION:
            raise CanvasStoreError(
                f"{place} is a canvas of version {attributes.get('version')}, and this xinc_captum reads version "
                f"{VERSION}; install the release that wrote it, or save the canvas anew."
            )
        try:
            known: dict[str, Any] = {name: attributes[name] for name in cls.__dataclass_fields__}
        except KeyError as missing:
            raise CanvasStoreError(
                f"{place} is damaged: its attributes lack {missing}; save the canvas anew."
            ) from None
        whole: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
        return cls(**whole)


def by_bands(size: tuple[int, ...], pixels: int, channels: int, unit_axis: int, dtype: Dtype) -> dict[str, int]:
    """The plan where rows are pixels, of which so many are computed at once: bands with all units.

    Example:
        >>> by_bands((100, 50), 1000, channels=3, unit_axis=64, dtype="float32")
        {'band': 20, 'units_a_block': 64, 'units_a_chunk': 64}
    """
    a_row = math.prod(size[1:])
    band = min(size[0], max(1, pixels // a_row))
    units = max(1, CHUNK_BYTES // (channels * band * a_row * DTYPES[dtype]))
    return {"band": band, "units_a_block": unit_axis, "units_a_chunk": min(unit_axis, units)}


def by_units(size: tuple[int, ...], maps: int, channels: int, unit_axis: int, dtype: Dtype) -> dict[str, int]:
    """The plan where rows are frames, of which so many maps are computed at once: whole maps of some units.

    Example:
        >>> by_units((128, 256), 32, channels=3, unit_axis=64, dtype="float32")
        {'band': 128, 'units_a_block': 30, 'units_a_chunk': 10}
    """
    at_once = max(1, min(unit_axis, maps))
    units = max(1, min(at_once, CHUNK_BYTES // (channels * math.prod(size) * DTYPES[dtype])))
    return {"band": size[0], "units_a_block": at_once // units * units, "units_a_chunk": units}


def checked(dtype: str) -> Dtype:
    """The precision, if it is one.

    Raises:
        ValueError: it is none.
    """
    for known in DTYPES:
        if dtype == known:
            return known
    raise ValueError(f"dtype is {dtype!r}; wanted 'float32' or 'float16'.")
