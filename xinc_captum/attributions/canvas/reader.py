"""Open a saved canvas; its queries read from disk."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._optional import require
from .canvas import Canvas
from .frames import FrameCanvas, UnitGrid
from .writer import ARRAY, CANVAS_FIELDS, JOURNAL, PART, CanvasStoreError, Layout, damaged


def open_canvas(path: str | Path, *, show_progress: bool = False) -> Canvas:
    """Open a canvas that :meth:`Canvas.save` wrote, as float32 on the CPU; queries read only the chunks they need.

    Raises:
        FileNotFoundError: the folder does not exist, or the canvas is unfinished.
        CanvasStoreError: the folder is not a canvas, has another version, or is damaged (queries may raise it later).

    Example:
        >>> import tempfile
        >>> from xinc_captum import NeuronCanvas
        >>> from xinc_captum.inr import FourierMLP, coordinates
        >>> canvas = NeuronCanvas(FourierMLP(), "activation2").canvas(coordinates((8, 12)), size=(8, 12))
        >>> open_canvas(canvas.save(tempfile.mkdtemp() + "/canvas")).map(3).shape
        torch.Size([3, 8, 12])
    """
    reader = _open_reader(Path(path))
    layout = reader.layout
    fields: dict[str, Any] = {name: getattr(layout, name) for name in CANVAS_FIELDS}
    arguments: dict[str, Any] = {**fields, "_surroundings": nullcontext, "_show_progress": show_progress}
    if not layout.frames:
        return Canvas(**arguments, _shares=reader.pixels, _rows_at_once=layout.band * math.prod(layout.size[1:]))
    return FrameCanvas(
        **arguments,
        frames=layout.frames,
        pairs=layout.pairs,
        _shares=reader.maps,
        _rows_at_once=1,
        _maps_at_once=layout.units_a_block,
    )


def _open_reader(path: Path) -> "_Reader":
    if not path.exists():
        part = path.with_name(path.name + PART)
        hint = f"; {part} is unfinished: save the same canvas again to resume it" if part.exists() else ""
        raise FileNotFoundError(f"there is no canvas at {path}{hint}.")
    if (path / JOURNAL).is_file():
        finished = path.with_name(path.name.removesuffix(PART))
        raise FileNotFoundError(
            f"{path} is an unfinished canvas: save the same canvas to {finished} again to resume {finished.name}{PART}."
        )
    zarr = require("zarr", purpose="opening a saved canvas", extra="store")
    try:
        root = zarr.open_group(path, mode="r")
        attributes = dict(root.attrs)
    except (OSError, ValueError, KeyError) as error:
        if path.is_dir() and (path / "zarr.json").is_file():
            raise damaged(path, "its zarr.json is not a canvas's") from error
        what = "a file" if path.is_file() else "not a zarr store: it has no zarr.json"
        raise CanvasStoreError(f"{path} is {what}; expected a folder that Canvas.save wrote.") from error
    layout = Layout.from_attributes(attributes, path)
    try:
        array = root[ARRAY]
    except (KeyError, ValueError) as error:
        raise damaged(path, f"its array cannot be read ({error})") from error
    if tuple(array.shape) != layout.shape:
        raise damaged(path, f"its array has shape {tuple(array.shape)}, but its attributes have {layout.shape}")
    return _Reader(path, array, layout)


class _Reader:
    """Reads blocks of a stored canvas, with errors that name the damaged part."""

    def __init__(self, path: Path, array: Any, layout: Layout) -> None:
        self._path, self._array, self.layout = path, array, layout

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_reader, (self._path.resolve(),)

    def block(self, units: Sequence[int] | None, rows: slice, frames: slice) -> Tensor:
        """Return the contributions of some units (None: all) in a block, (units, channels, rows, …, frames)."""
        order = np.unique(np.arange(self.layout.unit_axis) if units is None else np.asarray(units))
        full_axes = [slice(None)] * (len(self.layout.size) - 1)
        unit_index = slice(order[0], order[-1] + 1) if len(order) == order[-1] + 1 - order[0] else order
        block_name = f"rows {rows.start} to {rows.stop} of frame {frames.start}"
        try:
            block = self._array.oindex[(slice(0, 1), unit_index, slice(None), rows, *full_axes, frames)][0]
        except Exception as error:  # zarr's codecs raise errors of any type
            why = f"{block_name} cannot be read ({type(error).__name__}: {error})"
            raise damaged(self._path, why) from error
        values = torch.from_numpy(np.asarray(block, dtype=np.float32))
        if not bool(torch.isfinite(values).all()):
            raise damaged(self._path, f"a file of {block_name} is missing")
        return values if units is None else values[np.searchsorted(order, units)]

    def pixels(self, first: int, last: int, selector: Any) -> Tensor:
        """Return contributions to pixels [first, last) for a Canvas, (pixels, units, channels)."""
        row_length = math.prod(self.layout.size[1:])
        top, bottom = first // row_length, -(-last // row_length)
        block = self.block(selector, slice(top, bottom), slice(0, 1))[..., 0]
        flat = block.flatten(2)[..., first - top * row_length : last - top * row_length]
        return flat.permute(2, 0, 1)

    def maps(self, first: int, last: int, keys: list[Any]) -> Tensor:
        """Return contributions to frames [first, last) for a FrameCanvas, (frames, units, channels, pixels)."""
        grid = UnitGrid(self.layout.units, self.layout.slots, self.layout.pairs)
        block = self.block([grid.position(key) for key in keys], slice(0, self.layout.size[0]), slice(first, last))
        return block.movedim(-1, 0).flatten(3)
