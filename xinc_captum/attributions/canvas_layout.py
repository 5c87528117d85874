"""How a canvas lies on disk: one zarr array with named axes, its coordinates, and what is said about it."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

FORMAT = "xinc-captum-canvas"
VERSION = 1
ARRAY = "contribution"
CHUNK_BYTES = 4 << 20
Dtype = Literal["float32", "float16"]
DTYPES: dict[Dtype, int] = {"float32": 4, "float16": 2}  # bytes each


class CanvasStoreError(ValueError):
    """A place on disk that is no canvas of ours, not this canvas, or damaged."""


@dataclass(frozen=True)
class Layout:
    """Sizes, precision and chunks of a stored canvas; what two canvases must share for one to go on with the other.

    Attributes:
        size: (H, W), (L,) or (D, H, W).
        units: how many, the slot not counted.
        slots: 1 where a slot follows the units (for pairs: one more input), else 0.
        channels: outputs of a pixel.
        frames: pictures; 1 where pixels are rows.
        has_frames: whether frames are an axis of the answers.
        pairs: (in, out) where units are pairs, else None.
        dtype: "float32" or "float16".
        band: rows of the first spatial axis that are written together.
        units_a_chunk: units in one chunk.
        rule: the rule in words.
        layer: the layer's name.
    """

    size: tuple[int, ...]
    units: int
    slots: int
    channels: int
    frames: int
    has_frames: bool
    pairs: tuple[int, int] | None
    dtype: Dtype
    band: int
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
        return (1, self.unit_axis, self.channels, *self.size, self.frames)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Of one file: some units, all channels, one band, one frame."""
        return (1, self.units_a_chunk, self.channels, self.band, *self.size[1:], 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the axes."""
        return ("layer", "unit", "channel", *("z", "y", "x")[-len(self.size) :], "frame")

    @property
    def bands(self) -> list[tuple[int, int, int]]:
        """(frame, first row, last row) in the order in which they are written."""
        rows = self.size[0]
        return [
            (frame, first, min(rows, first + self.band))
            for frame in range(self.frames)
            for first in range(0, rows, self.band)
        ]

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


def planned(size: tuple[int, ...], rows_at_once: int, channels: int, unit_axis: int, itemsize: int) -> tuple[int, int]:
    """Rows of a band and units of a chunk: bands as the memory budget allows, files of a few MiB.

    Example:
        >>> planned((100, 50), rows_at_once=1000, channels=3, unit_axis=64, itemsize=4)
        (20, 64)
    """
    a_row = math.prod(size[1:])
    band = min(size[0], max(1, rows_at_once // a_row))
    units = max(1, CHUNK_BYTES // (channels * band * a_row * itemsize))
    return band, min(unit_axis, units)
