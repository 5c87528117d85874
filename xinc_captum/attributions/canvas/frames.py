"""Class FrameCanvas, a lazy canvas of several images, and the layout of its unit axis."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ...batch import chunks, python_index
from ...progress import progress
from ..base import plain
from .canvas import Canvas, Query, Regions, Top, TopUnits, check_index, check_masks, smallest_index
from .writer import CanvasBlock, Dtype, Layout, plan_units


@dataclass(frozen=True)
class UnitGrid:
    """The order in which units are computed and the layout of the unit axis."""

    units: int  # without a remainder
    remainders: int  # 1 if a remainder follows (for pairs: one more input), else 0
    pairs: tuple[int, int] | None  # (in, out), or None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the unit axes of a result, a remainder included."""
        if self.pairs is None:
            return (self.units + self.remainders,)
        return (self.pairs[0] + self.remainders, self.pairs[1])

    @property
    def keys(self) -> list[Any]:
        """Units in the order in which they are computed: pairs output by output, remainders last."""
        if self.pairs is None:
            return list(range(self.units + self.remainders))
        ins, outs = self.pairs
        return [(i, o) for o in range(outs) for i in range(ins)] + [(ins, o) for o in range(outs) if self.remainders]

    def key(self, unit: Any) -> Any:
        """Return a unit without negative indices; raise a TypeError or an IndexError if there is none."""
        unit = python_index(unit)
        if self.pairs is None:
            if not isinstance(unit, int):
                raise TypeError(
                    f'unit is {unit!r}; expected a number, because this canvas was made with unit="neuron".'
                )
            count = self.units + self.remainders
            if not -count <= unit < count:
                raise IndexError(f"unit {unit} is out of range: this canvas has {count} units, 0 to {count - 1}.")
            return unit % count
        if not (isinstance(unit, tuple) and len(unit) == 2 and all(isinstance(n, int) for n in unit)):
            raise TypeError(
                f'unit is {unit!r}; expected a tuple (in, out), because this canvas was made with unit="pair".'
            )
        if not all(-n <= u < n for u, n in zip(unit, self.shape, strict=True)):
            raise IndexError(f"unit {unit} is out of range: this canvas has pairs (in, out) of {self.shape}.")
        return tuple(u % n for u, n in zip(unit, self.shape, strict=True))

    def key_at(self, unit: int) -> Any:
        """Return the unit at an index; pairs are numbered in · outs + out."""
        return unit if self.pairs is None else divmod(unit, self.pairs[1])

    def position(self, key: Any) -> int:
        """Return the position of a unit in :attr:`keys`."""
        if self.pairs is None:
            return int(key)
        ins, outs = self.pairs
        return int(key[1] * ins + key[0] if key[0] < ins else ins * outs + key[1])

    def index(self, keys: list[Any]) -> tuple[list[int], ...]:
        """Return the indices of these units in a result."""
        return (keys,) if self.pairs is None else ([i for i, _ in keys], [o for _, o in keys])

    def without_remainder(self, values: Tensor) -> Tensor:
        """Return (frames, *shape, channels) as (frames, units, channels)."""
        return values[:, : self.units] if self.pairs is None else values[:, : self.pairs[0]].flatten(1, 2)

    def join(self, query: Query, results: list[Any]) -> Any:
        """Return the results of all groups as one, with the unit axes of :attr:`shape`."""
        if isinstance(query, Top):
            values, indices = results[0]
            if self.pairs is not None:  # computed output by output, numbered input by input
                indices = indices % self.pairs[0] * self.pairs[1] + indices // self.pairs[0]
            return TopUnits(values, indices.to(smallest_index(self.units)))
        axis = query.unit_axis
        result = torch.cat(results, axis)
        if self.pairs is None:
            return result
        ins, outs = self.pairs
        pairs = result.narrow(axis, 0, self.units).unflatten(axis, (outs, ins)).transpose(axis, axis + 1)
        remainder = result.narrow(axis, self.units, self.remainders * outs).unflatten(axis, (self.remainders, outs))
        return torch.cat([pairs, remainder], axis)


def _no_sums(_first: int, _last: int, _weights: Tensor) -> None:
    """Return None: this canvas computes weighted sums from maps only."""


@dataclass(frozen=True)
class FrameCanvas(Canvas):
    """Contributions c[frame, u, ch, pixel] to frames. Made by ``NeuronCanvas.canvas`` if the rows are frames.

    Every result of a :class:`Canvas` gets a leading axis of frames: ``map`` (frames, channels, H, W), ``totals``
    (frames, units, channels), ``regions`` (frames, regions, units, channels), ``top_units`` (frames, k, H, W),
    ``share`` (frames, regions, units), ``pooled`` (frames, units, *grid), ``to_tensor`` (frames, units, channels, H,
    W). With ``unit="pair"`` a unit is a tuple (in, out) and there are two unit axes, (in, out). A remainder is one more
    input. With ``pairs`` = (ins, outs), the number of a pair is ``in * outs + out`` in ``top_units``, ``share`` and
    ``pooled``; in the file of ``save`` it is ``out * ins + in``, and the remainders come last.

    Attributes:
        frames: number of frames.
        pairs: (in, out) of a canvas of pairs, else None; ``units`` is then their product.
    """

    frames: int = 1
    pairs: tuple[int, int] | None = None
    _sums: Callable[[int, int, Tensor], Tensor | None] = field(default=_no_sums, repr=False)
    _maps_at_once: int = field(default=1, repr=False)

    @property
    def _grid(self) -> UnitGrid:
        return UnitGrid(self.units, self.slots, self.pairs)

    def ask(self, *queries: Query) -> tuple[Any, ...]:
        """Compute several queries (of ``xinc_captum.attributions.canvas.canvas``) in one pass over frames and units."""
        return self._stream(lambda _frame: [copy.copy(query) for query in queries])

    def map(self, unit: int | tuple[int, int], channel: int | None = None, frame: int | None = None) -> Tensor:
        """Return the contributions of one unit: (frames, channels, *size); a selected channel or frame has no axis.

        Args:
            unit: 0 to units − 1, or (in, out); the index after the last unit (or input) is the remainder, if any;
                negative indices count from the end.
            channel: an output channel, or None for all.
            frame: a frame, or None for all.

        Raises:
            IndexError, TypeError: an index that is out of range; a number where a pair is expected, or vice versa.
        """
        key = self._grid.key(unit)
        check_index(channel, self.channels, "channel")
        check_index(frame, self.frames, "frame")
        chosen = range(self.frames) if frame is None else [frame % self.frames]
        with self._surroundings():
            chunks_of_maps = [contributions[:, 0] for *_, contributions in self._iterate_chunks([key], chosen)]
        maps: Tensor = torch.cat(chunks_of_maps).unflatten(-1, self.size)
        maps = maps if channel is None else maps[:, channel].clone()
        return maps if frame is None else maps[0]

    def regions(self, masks: Tensor, *, signed: bool = False) -> Tensor:
        """Return Σ over each region of |c| (or of c): (frames, regions, units, channels), a remainder last.

        Signed sums of tangent and secant canvases need no maps, but one backward pass for each region and channel.

        Args:
            masks: (regions, *size) for all frames, or (frames, regions, *size); bool or weights.
            signed: keep signs, so that contributions can cancel.

        Raises:
            ValueError: the masks have another size, or values outside [0, 1].
        """
        per_frame = masks.dim() == len(self.size) + 2 and masks.shape[0] == self.frames
        if tuple(masks.shape[-len(self.size) :]) != self.size or not (per_frame or masks.dim() == len(self.size) + 1):
            sizes = ", ".join(map(str, self.size))
            raise ValueError(
                f"masks have shape {tuple(masks.shape)}; expected (regions, {sizes}) for all frames, or "
                f"({self.frames}, regions, {sizes}) with masks for each frame."
            )
        frame_masks = check_masks(masks) if per_frame else check_masks(masks).expand(self.frames, *masks.shape)
        result = self._sum_signed(frame_masks.flatten(2)) if signed else None
        if result is None:
            result = self._stream(lambda frame: [Regions(frame_masks[frame], signed=signed)])[0]
        return result

    def top_units(self, k: int, pixel: tuple[int, ...] | None = None) -> TopUnits:
        """Return :meth:`Canvas.top_units` of each frame: (frames, k, *size) each, or (frames, k) for one pixel."""
        self._check_k(k)
        if pixel is None:
            return self._stream(lambda _frame: [Top(k, self.units, self.pixels)])[0]  # type: ignore[no-any-return]
        mask = torch.zeros(self.frames, 1, self.pixels)
        mask[:, :, self._row(pixel)] = 1
        strength = self.regions(mask.unflatten(2, self.size), signed=True)[:, 0]
        values, indices = self._grid.without_remainder(strength).abs().sum(-1).topk(k, dim=1)
        return TopUnits(values, indices.to(smallest_index(self.units)))

    def to_tensor(self) -> Tensor:
        """Return all contributions: (frames, units, channels, *size), a remainder last."""
        result: Tensor | None = None
        with self._surroundings():
            for first, _, keys, contributions in self._iterate_chunks(self._grid.keys, range(self.frames)):
                if result is None:
                    result = contributions.new_empty(self.frames, *self._grid.shape, *contributions.shape[2:])
                at: Any = (slice(first, first + len(contributions)), *self._grid.index(keys))
                result[at] = contributions
        if result is None:
            raise RuntimeError("this canvas has no frames; make it from at least one input row.")
        return result.reshape(*result.shape[:-1], *self.size)

    def _layout(self, dtype: Dtype) -> Layout:
        units = plan_units(self.size, self._maps_at_once, self.channels, math.prod(self._grid.shape), dtype)
        return Layout.of(self, dtype, units)

    def _block(self, block: CanvasBlock) -> Tensor:
        keys = self._grid.keys[block.first_unit : block.last_unit]
        with self._surroundings():
            maps = plain(self._shares(block.frame, block.frame + 1, keys))[0]
        return maps.reshape(*maps.shape[:-1], *self.size)

    def _region_magnitudes(self, masks: Tensor) -> Tensor:
        """Return Σ_region Σ_channel |c|, (frames, regions, units), float64."""
        sums = self.regions(masks).unbind(1)
        return torch.stack([self._grid.without_remainder(region).sum(-1).double() for region in sums], 1)

    def _sum_signed(self, masks: Tensor) -> Tensor | None:
        """Return signed sums over masks (frames, regions, pixels), or None if the rule needs maps for them."""
        results: list[Tensor] = []
        with self._surroundings():
            for first, last in chunks(self.frames, self._rows_at_once):
                frame_masks = masks[first:last].transpose(0, 1)
                region_sums: list[Tensor] = []
                for mask in progress(list(frame_masks), "regions", show=self._show_progress):
                    dtype = torch.promote_types(mask.dtype, torch.float32)
                    channels = torch.eye(self.channels, dtype=dtype, device=mask.device)
                    weights = mask.to(channels)[None, :, None] * channels[:, None, :, None]
                    sums = self._sums(first, last, weights)
                    if sums is None:
                        return None
                    region_sums.append(sums.movedim(0, -1))
                results.append(torch.stack(region_sums, 1))
        return torch.cat(results)

    def _iterate_chunks(self, keys: list[Any], frames: Any) -> Iterator[tuple[int, int, list[Any], Tensor]]:
        """Yield first frame, index of the first key, keys and contributions (frames, k, channels, pixels) of chunks."""
        pieces = chunks(self.frames, self._rows_at_once) if len(frames) == self.frames else [(f, f + 1) for f in frames]
        groups = chunks(len(keys), self._maps_at_once)
        todo = [(*piece, *group) for piece in pieces for group in groups]
        for first, last, start, stop in progress(todo, "canvas", show=self._show_progress):
            yield first, start, keys[start:stop], plain(self._shares(first, last, keys[start:stop]))

    def _add_group(self, query: Query, results: list[Any], contributions: Tensor, start: int) -> None:
        """Add the result of a group of units, from unit ``start`` on, to those of the groups before it."""
        if isinstance(query, Top):  # rankings do not use the remainder
            contributions = contributions[: max(0, self.units - start)]
        if not len(contributions):
            return
        fresh = copy.copy(query)
        fresh.add(0, contributions.movedim(-1, 0))
        result = fresh.result(self.size)
        if isinstance(query, Top):
            ranking = TopUnits(result.values, result.indices.long() + start)
            result = query.merge(results.pop(), ranking) if results else ranking
        results.append(result)

    def _stream(self, make: Callable[[int], list[Query]]) -> tuple[Any, ...]:
        """Return the results of the queries ``make(frame)`` of each frame, stacked over frames."""
        grid = self._grid
        states: dict[int, list[Any]] = {}
        with self._surroundings():
            for first, start, _, contributions in self._iterate_chunks(grid.keys, range(self.frames)):
                with torch.no_grad():
                    for frame, frame_contributions in enumerate(contributions, first):
                        if frame not in states:
                            states[frame] = [(query, []) for query in make(frame)]
                        for query, results in states[frame]:
                            self._add_group(query, results, frame_contributions, start)
        joined = [[grid.join(query, results) for query, results in queries] for queries in states.values()]
        return tuple(tree_map(lambda *frames: torch.stack(frames), *queries) for queries in zip(*joined, strict=True))
