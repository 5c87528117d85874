"""Class Canvas, a lazy image of contributions, and its streaming queries."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ...batch import chunks
from ...hooks import exclusive
from ...metrics import as_masks, grid_cells
from ...metrics.trust import CanvasTrust
from ...progress import progress
from .writer import DTYPES, CanvasBlock, Dtype, Layout, plan_bands, write


class Query(Protocol):
    """A reduction of a canvas that is computed chunk by chunk, from (rows, units, channels).

    If the rows are frames, each group of units has its own copy of the query, which receives all pixels of these units.
    The results of the groups are concatenated along ``unit_axis``; rankings are merged instead.
    """

    unit_axis: int

    def add(self, first: int, contributions: Tensor) -> None:
        """Add the rows that begin at pixel ``first``."""

    def result(self, size: tuple[int, ...]) -> Any:
        """Return the result for an image of ``size``."""


class TopUnits(NamedTuple):
    """Strengths Σ_channel |c| of the strongest units and the units' indices, strongest first."""

    values: Tensor
    indices: Tensor


class _Sum:
    """Sum over chunks, in float64 because there may be millions of pixels; in float32 on Apple's GPUs (no float64)."""

    _sum: Tensor | None = None
    _dtype = torch.float32

    def _accumulate(self, sums: Tensor) -> None:
        self._dtype = sums.dtype
        sums = sums.to(torch.float32 if sums.device.type == "mps" else torch.float64)
        self._sum = sums if self._sum is None else self._sum + sums

    def result(self, size: tuple[int, ...]) -> Tensor:
        """Return the sum."""
        return require_state(self._sum).to(self._dtype)


class Totals(_Sum):
    """Σ_pixels |c|: (units, channels)."""

    unit_axis = 0

    def add(self, first: int, contributions: Tensor) -> None:
        """Add one chunk."""
        dtype = torch.promote_types(contributions.dtype, torch.float32)
        self._accumulate(contributions.abs().sum(0, dtype=dtype))


def check_masks(masks: Tensor) -> Tensor:
    """Return the masks, or raise a ValueError if a weight is not between 0 and 1 (as in 8-bit masks)."""
    if masks.dtype != torch.bool and masks.numel() and not bool(((masks >= 0) & (masks <= 1)).all()):
        raise ValueError(
            f"masks go from {float(masks.min()):.3g} to {float(masks.max()):.3g}; expected bool, or weights in [0, 1]: "
            "divide 8-bit masks by 255."
        )
    return masks


class Regions(_Sum):
    """Σ over each mask of |c|, or of c when signed: (regions, units, channels)."""

    unit_axis = 1

    def __init__(self, masks: Tensor, *, signed: bool = False) -> None:
        self._masks, self._signed = check_masks(masks).flatten(1), signed
        self._converted_masks: dict[tuple[torch.dtype, torch.device], Tensor] = {}  # shared by copies of this query

    def add(self, first: int, values: Tensor) -> None:
        """Add one chunk."""
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        kind = (values.dtype, values.device)
        if len(values) < self._masks.shape[1]:
            mask = self._masks[:, first : first + len(values)].to(values)
        else:
            if kind not in self._converted_masks:
                self._converted_masks[kind] = self._masks.to(values)
            mask = self._converted_masks[kind]
        sums = mask @ (values if self._signed else values.abs()).flatten(1)
        self._accumulate(sums.reshape(-1, *values.shape[1:]))


class Top:
    """The k strongest units of every pixel."""

    unit_axis = 0

    def __init__(self, k: int, units: int, pixels: int) -> None:
        self._k, self._units, self._pixels = k, units, pixels
        self._values: Tensor | None = None
        self._indices: Tensor | None = None

    def add(self, first: int, contributions: Tensor) -> None:
        """Rank one chunk, without a remainder after the units."""
        strength = contributions[:, : self._units].abs().sum(2)
        values, indices = strength.topk(min(self._k, strength.shape[1]), dim=1)
        if self._values is None:
            self._values = values.new_empty(values.shape[1], self._pixels)
            self._indices = torch.empty_like(self._values, dtype=smallest_index(self._units))
        self._values[:, first : first + len(values)] = values.T
        require_state(self._indices)[:, first : first + len(values)] = indices.T

    def result(self, size: tuple[int, ...]) -> TopUnits:
        """Return values and indices, (k, *size) each."""
        return TopUnits(require_state(self._values).reshape(-1, *size), require_state(self._indices).reshape(-1, *size))

    def merge(self, one: TopUnits, other: TopUnits) -> TopUnits:
        """Return the k strongest units of two rankings, (≤ k, ...) each."""
        values, indices = torch.cat([one.values, other.values]), torch.cat([one.indices, other.indices])
        best, at = values.topk(min(self._k, len(values)), dim=0)
        return TopUnits(best, indices.gather(0, at))


class Maps:
    """All contributions: (units, channels, *size)."""

    unit_axis = 0

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._maps: Tensor | None = None

    def add(self, first: int, contributions: Tensor) -> None:
        """Store one chunk."""
        if self._maps is None:
            self._maps = contributions.new_empty((*contributions.shape[1:], self._pixels))
        self._maps[..., first : first + contributions.shape[0]] = contributions.movedim(0, -1)

    def result(self, size: tuple[int, ...]) -> Tensor:
        """Return (units, channels, *size)."""
        maps = require_state(self._maps)
        return maps.reshape(*maps.shape[:-1], *size)


def require_state(state: Tensor | None) -> Tensor:
    """Return the state of a query, or raise a RuntimeError if it has none."""
    if state is None:
        raise RuntimeError("this query has no data; pass it to Canvas.ask().")
    return state


def smallest_index(units: int) -> torch.dtype:
    """Return the narrowest signed dtype for indices of units (torch would index with uint8 as a mask)."""
    return getattr(torch, np.min_scalar_type(-units).name)  # type: ignore[no-any-return]


def check_index(index: int | None, count: int, what: str) -> None:
    """Raise an IndexError if a channel or frame is out of range."""
    if index is not None and not -count <= index < count:
        raise IndexError(f"{what} {index} is out of range: this canvas has {count} {what}s.")


def _alone(_canvas: "Canvas") -> CanvasTrust:
    return CanvasTrust("weak", "no network is at hand to compare it with")


@dataclass(frozen=True)
class Canvas:
    """Contributions c[u, ch, pixel] of units u to the channels ch of an image. Made by ``NeuronCanvas.canvas``.

    Frozen and lazy: queries run chunk by chunk within the memory budget, and only :meth:`to_tensor` returns everything.
    Each query equals its stated reduction of :meth:`to_tensor`, except for rounding. Copies share the model. Only a
    canvas that :func:`open_canvas` returned can be pickled; the pickle contains the path.

    Attributes:
        size: (H, W), or (L,), or (D, H, W).
        units: number of neurons, without the remainder.
        channels: outputs of a pixel (1 if ``target`` selects a single number).
        slots: number of remainders: 1 under the secant (biases, stored after the last unit), else 0.
        rule: the rule as text.
        layer: the layer's name.
    """

    size: tuple[int, ...]
    units: int
    channels: int
    slots: int
    _shares: Callable[[int, int, Any], Tensor] = field(repr=False)
    _rows_at_once: int = field(repr=False)
    _surroundings: Callable[[], AbstractContextManager[None]] = field(repr=False)
    _show_progress: bool = field(default=False, repr=False)
    rule: str = ""
    layer: str = ""
    _assess: Callable[["Canvas"], CanvasTrust] = field(default=_alone, repr=False)

    @property
    def trust(self) -> CanvasTrust:
        """Whether the canvas holds, is weak or fails, and why, by comparison with ablation of a sample of units.

        The sample is the same each time: 16 units, set to zero one by one, at eight runs of eight neighbouring pixels
        or at 1024 pixels of one frame. Under the secant the sum of contributions is checked too. A canvas from disk is
        weak, because it has no network to compare with.
        """
        state = vars(self)
        with exclusive(), self._surroundings():
            if "_trust" not in state:
                state["_trust"] = self._assess(self)
            return state["_trust"]  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        if self._surroundings is not nullcontext:
            raise TypeError(
                f"a {type(self).__name__} holds no maps, but the model that computes them, and cannot be pickled. "
                "Write it with canvas.save(path) and read it with xinc_captum.attributions.open_canvas(path), or keep "
                "what its queries return, such as canvas.totals() or canvas.to_tensor()."
            )
        return dict(vars(self))

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()  # it is immutable, and a copy of the model would be another model

    @property
    def pixels(self) -> int:
        """Number of pixels of the image (of one frame)."""
        return math.prod(self.size)

    def ask(self, *queries: Query) -> tuple[Any, ...]:
        """Compute several queries (of ``xinc_captum.attributions.canvas.canvas``) in one pass over the pixels."""
        self._pass(queries)
        return tuple(query.result(self.size) for query in queries)

    def map(self, unit: int, channel: int | None = None) -> Tensor:
        """Return the contributions of one unit: (channels, *size), or ``size`` for one channel.

        Args:
            unit: 0 to units - 1; index ``units`` is the remainder, if any; negative indices count from the end.
            channel: an output channel, or None for all.

        Raises:
            IndexError: the unit or channel is out of range.
        """
        count = self.units + self.slots
        if not -count <= unit < count:
            raise IndexError(f"unit {unit} is out of range: this canvas has {count} units, 0 to {count - 1}.")
        check_index(channel, self.channels, "channel")
        unit %= count
        query = Maps(self.pixels)
        if unit < self.units:
            self._pass([query], [unit])
        else:  # the remainder is computed with all units only
            self._pass([query], used=slice(-1, None))
        result = query.result(self.size)[0]
        return result if channel is None else result[channel].clone()

    def totals(self) -> Tensor:
        """Return Σ_pixels |c|: (units, channels), a remainder last."""
        return self.ask(Totals())[0]  # type: ignore[no-any-return]

    def top_units(self, k: int, pixel: tuple[int, ...] | None = None) -> TopUnits:
        """Return the strongest units by Σ_channel |c|, without a remainder: values and indices, (k, *size) each.

        Indices have the narrowest signed dtype; call ``.long()`` before indexing with them.

        Args:
            k: number of units.
            pixel: (y, x) for one pixel, whose results are (k,); None for every pixel.

        Raises:
            ValueError, IndexError: k is not between 1 and the number of units, or the pixel is outside the image.
        """
        self._check_k(k)
        if pixel is None:
            return self.ask(Top(k, self.units, self.pixels))[0]  # type: ignore[no-any-return]
        row = self._row(pixel)
        query = Top(k, self.units, 1)
        self._pass([query], rows=(row, row + 1))
        values, indices = query.result((1,))
        return TopUnits(values[:, 0], indices[:, 0])

    def _check_k(self, k: int) -> None:
        if not 1 <= k <= self.units:
            raise ValueError(f"k is {k}; expected between 1 and the {self.units} units of this canvas.")

    def regions(self, masks: Tensor, *, signed: bool = False) -> Tensor:
        """Return Σ over each region of |c| (or of c): (regions, units, channels), a remainder last.

        Args:
            masks: (regions, *size), bool or weights in [0, 1].
            signed: keep signs, so that contributions can cancel.

        Raises:
            ValueError: the masks have another size, or values outside [0, 1].
        """
        if tuple(masks.shape[1:]) != self.size:
            raise ValueError(
                f"masks have shape {tuple(masks.shape)}; expected (regions, {', '.join(map(str, self.size))}), "
                "one mask of the image's size for each region."
            )
        return self.ask(Regions(masks, signed=signed))[0]  # type: ignore[no-any-return]

    def share(self, masks: Tensor | None = None) -> Tensor:
        """Return each unit's share of Σ |c| in a region, without a remainder: (regions, units), float64.

        Equals :func:`~xinc_captum.metrics.share` of Σ_channel |c|, without storing the canvas. Without masks: (units,).
        Masks of another size raise a ValueError.
        """
        sums = self._region_magnitudes(torch.ones(1, *self.size) if masks is None else masks)
        shares = sums / sums.sum(-1, keepdim=True)
        return shares.squeeze(-2) if masks is None else shares

    def pooled(self, grid: tuple[int, int] = (8, 16)) -> Tensor:
        """Return the mean of Σ_channel |c| over the cells of a grid: (units, *grid), float64, without a remainder.

        ``grid`` is (rows, columns) of cells. Canvases of any size give vectors of the same length, for example for
        clustering. Equals :func:`~xinc_captum.metrics.pool_cells` of Σ_channel |c|.

        Raises:
            ValueError: the image is not 2-D, or has fewer pixels than cells.
        """
        if len(self.size) != 2:
            raise ValueError(f"the image has size {self.size}; expected (H, W) for a grid of cells.")
        masks = as_masks(grid_cells((self.size[0], self.size[1]), grid))
        means = self._region_magnitudes(masks) / masks.flatten(1).sum(1).double()[:, None]
        return means.transpose(-1, -2).unflatten(-1, grid)  # type: ignore[no-any-return]

    def _region_magnitudes(self, masks: Tensor) -> Tensor:
        """Return Σ_region Σ_channel |c|, (regions, units), float64."""
        return self.regions(masks)[:, : self.units].sum(-1).double()

    def to_tensor(self) -> Tensor:
        """Return all contributions: (units, channels, *size), a remainder last."""
        return self.ask(Maps(self.pixels))[0]  # type: ignore[no-any-return]

    def save(self, path: str | Path, *, dtype: Dtype = "float32") -> Path:
        """Write the canvas to the new folder ``path``, block by block; :func:`open_canvas` reads it.

        The folder is a zarr store with an array ``contribution`` of axes (layer, unit, channel, y, x, frame), which
        xarray opens too; ``dtype="float16"`` halves its size. A killed run leaves ``<path>.part``, and saving the same
        canvas again resumes from it. On the same machine with the same number of threads the files are byte-identical.
        Values in the file and those of queries differ by rounding (about 1e-7 of the largest): block sizes differ.

        Raises:
            CanvasStoreError: ``path`` exists, or the unfinished canvas there is a different one.
            OverflowError: contributions do not fit into float16, or are not finite.
            OSError: the disk is full.
            ValueError: ``dtype`` is another string.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float16'.")
        return write(path, self._layout(dtype), self._block, self._show_progress)

    def _layout(self, dtype: Dtype) -> Layout:
        bands = plan_bands(self.size, self._rows_at_once, self.channels, self.units + self.slots, dtype)
        return Layout.of(self, dtype, bands)

    def _block(self, block: CanvasBlock) -> Tensor:
        """Return all units of some rows, (units, channels, rows, …)."""
        row_length = math.prod(self.size[1:])
        query = Maps((block.last - block.first) * row_length)
        self._pass([query], rows=(block.first * row_length, block.last * row_length))
        return query.result((block.last - block.first, *self.size[1:]))

    def _row(self, pixel: tuple[int, ...]) -> int:
        inside = len(pixel) == len(self.size) and all(-s <= p < s for p, s in zip(pixel, self.size, strict=True))
        if not inside:
            raise IndexError(f"pixel {pixel} is outside the image of size {self.size}.")
        return int(np.ravel_multi_index(pixel, self.size, mode="wrap"))

    def _pass(
        self,
        queries: Iterable[Query],
        selector: Any = None,
        used: slice = slice(None),
        rows: tuple[int, int] | None = None,
    ) -> None:
        """Add the contributions to rows [first, last) to the queries, chunk by chunk; None is all rows, with progress.

        ``selector`` selects the units that are computed, and ``used`` those of them that the queries receive.
        """
        start, stop = rows or (0, self.pixels)
        pieces = chunks(stop - start, self._rows_at_once)
        with self._surroundings(), torch.no_grad():
            for first, last in progress(pieces, "canvas", show=self._show_progress and rows is None):
                contributions = self._shares(start + first, start + last, selector)
                for query in queries:
                    query.add(first, contributions[:, used])
