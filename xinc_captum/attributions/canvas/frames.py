"""Class FrameCanvas; unit/pair axis."""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ...batch import chunks
from ...progress import progress
from ...selectors import python_index
from ..base import plain
from .canvas import Canvas, Query, Regions, Top, TopUnits, smallest_index, weights
from .storage import Block, Dtype, by_units, checked, write


@dataclass(frozen=True)
class UnitGrid:
    """How units are numbered, visited and laid out.

    Attributes:
        units: how many, the slot not counted.
        slots: 1 where a slot follows (for pairs: one more input), else 0.
        pairs: (in, out), or None.
    """

    units: int
    slots: int
    pairs: tuple[int, int] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the unit axes of an answer, a slot included."""
        return (self.units + self.slots,) if self.pairs is None else (self.pairs[0] + self.slots, self.pairs[1])

    @property
    def keys(self) -> list[Any]:
        """Units in the order in which they are visited: pairs output by output, whatever is a slot last."""
        if self.pairs is None:
            return list(range(self.units + self.slots))
        ins, outs = self.pairs
        return [(i, o) for o in range(outs) for i in range(ins)] + [(ins, o) for o in range(outs) if self.slots]

    def key(self, unit: Any) -> Any:
        """A checked unit, negative numbers resolved.

        Raises:
            TypeError: a number where a pair is expected, or the other way round.
            IndexError: out of range.
        """
        unit = python_index(unit)
        if self.pairs is None:
            if not isinstance(unit, int):
                raise TypeError(
                    f'unit is {unit!r}; expected a number, because this canvas was made with unit="neuron".'
                )
            count = self.units + self.slots
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

    def named(self, unit: int) -> Any:
        """The key of a unit, pairs numbered in · outs + out."""
        return unit if self.pairs is None else divmod(unit, self.pairs[1])

    def number(self, key: Any) -> int:
        """The place of a unit among :attr:`keys`."""
        if self.pairs is None:
            return int(key)
        ins, outs = self.pairs
        return int(key[1] * ins + key[0] if key[0] < ins else ins * outs + key[1])

    def index(self, keys: list[Any]) -> tuple[list[int], ...]:
        """Where these units lie in an answer."""
        return (keys,) if self.pairs is None else ([i for i, _ in keys], [o for _, o in keys])

    def shown(self, part: Tensor, start: int, query: Query) -> Tensor:
        """What a query sees of a piece (k, ...): rankings do not see the slot."""
        return part[: max(0, self.units - start)] if isinstance(query, Top) else part

    def without_slot(self, answer: Tensor) -> Tensor:
        """(frames, *shape, channels) as (frames, units, channels)."""
        return answer[:, : self.units] if self.pairs is None else answer[:, : self.pairs[0]].flatten(1, 2)

    def gather(self, answers: list[Any], query: Query, answer: Any, start: int) -> None:
        """Add one group's answer to those before it."""
        if not isinstance(query, Top):
            answers.append(answer)
        else:
            here = TopUnits(answer.values, answer.indices.long() + start)
            answers[:] = [query.stronger(answers[0], here) if answers else here]

    def joined(self, query: Query, answers: list[Any]) -> Any:
        """The groups' answers as one, laid out as :attr:`shape` says."""
        if isinstance(query, Top):
            values, indices = answers[0]
            if self.pairs is not None:  # visited output by output, numbered input by input
                indices = indices % self.pairs[0] * self.pairs[1] + indices // self.pairs[0]
            return TopUnits(values, indices.to(smallest_index(self.units)))
        axis = query.unit_axis
        whole = torch.cat(answers, axis)
        if self.pairs is None:
            return whole
        ins, outs = self.pairs
        pairs = whole.narrow(axis, 0, self.units).unflatten(axis, (outs, ins)).transpose(axis, axis + 1)
        slot = whole.narrow(axis, self.units, self.slots * outs).unflatten(axis, (self.slots, outs))
        return torch.cat([pairs, slot], axis)


def _no_short_cut(_first: int, _last: int, _weights: Tensor) -> None:
    """No sums without maps."""


@dataclass(frozen=True)
class FrameCanvas(Canvas):
    """Frames seen as contributions c[frame, u, ch, pixel]. Made by ``NeuronCanvas.canvas`` where rows are frames.

    Every answer of a :class:`Canvas` gains a leading axis of frames: ``map`` (frames, channels, H, W), ``totals``
    (frames, units, channels), ``regions`` (frames, regions, units, channels), ``top_units`` (frames, k, H, W),
    ``share`` (frames, regions, units), ``pooled`` (frames, units, *grid), ``to_tensor`` (frames, units, channels, H,
    W). With ``unit="pair"`` a unit is a tuple (in, out) and the unit axis is two, (in, out), a slot being one more
    input; ``top_units``, ``share`` and ``pooled`` number pairs as in · outs + out.

    Attributes:
        frames: how many.
        pairs: (in, out) of a canvas of pairs, else None; ``units`` is then their product.
    """

    frames: int = 1
    pairs: tuple[int, int] | None = None
    _sums: Callable[[int, int, Tensor], Tensor | None] = field(default=_no_short_cut, repr=False)
    _maps_at_once: int = field(default=1, repr=False)

    @property
    def _grid(self) -> UnitGrid:
        return UnitGrid(self.units, self.slots, self.pairs)

    def ask(self, *queries: Query) -> tuple[Any, ...]:
        """Answer several queries (of ``xinc_captum.attributions.canvas.canvas``) in one pass over frames and units."""
        return self._stream(lambda _frame: [copy.copy(query) for query in queries])

    def map(self, unit: int | tuple[int, int], channel: int | None = None, frame: int | None = None) -> Tensor:
        """One unit's canvas: (frames, channels, *size), without the axes for which one was chosen.

        Args:
            unit: 0 to units − 1, or (in, out); the number behind the last unit (or input) is the slot where there is
                one; negative from the end.
            channel: an output channel, or None for all.
            frame: a frame, or None for all.

        Raises:
            IndexError: no such unit, channel or frame.
            TypeError: a number where a pair is expected, or the other way round.
        """
        key = self._grid.key(unit)
        self._check(channel, self.channels, "channel")
        self._check(frame, self.frames, "frame")
        chosen = range(self.frames) if frame is None else [frame % self.frames]
        with self._surroundings():
            pieces = [part[:, 0] for _, _, part in self._parts([key], chosen)]
        whole = self._pictures(torch.cat(pieces))
        whole = whole if channel is None else whole[:, channel].clone()
        return whole if frame is None else whole[0]

    def regions(self, masks: Tensor, *, signed: bool = False) -> Tensor:
        """Σ over each region of |c| (or of c): (frames, regions, units, channels), the slot last where there is one.

        Signed sums of tangent and secant canvases come from one backward pass for each region and channel; no map is
        drawn for them.

        Args:
            masks: (regions, *size) for all frames, or (frames, regions, *size); bool or weights.
            signed: keep signs, so that parts can cancel.

        Raises:
            ValueError: masks of another size, or that leave [0, 1].
        """
        per_frame = masks.dim() == len(self.size) + 2 and masks.shape[0] == self.frames
        if tuple(masks.shape[-len(self.size) :]) != self.size or not (per_frame or masks.dim() == len(self.size) + 1):
            sizes = ", ".join(map(str, self.size))
            raise ValueError(
                f"masks have shape {tuple(masks.shape)}; expected (regions, {sizes}) for all frames, or "
                f"({self.frames}, regions, {sizes}) with masks of their own for each."
            )
        each = weights(masks) if per_frame else weights(masks).expand(self.frames, *masks.shape)
        by_adjoint = self._adjoint(each.flatten(2)) if signed else None
        if by_adjoint is not None:
            return by_adjoint
        answer: Tensor = self._stream(lambda frame: [Regions(each[frame], signed=signed)])[0]
        return answer

    def top_units(self, k: int, pixel: tuple[int, ...] | None = None) -> TopUnits:
        """The strongest units by Σ_channel |c|, the slot left out: see :meth:`Canvas.top_units`.

        Returns:
            values and indices, (frames, k, *size) each, or (frames, k) for one pixel.
        """
        if not 1 <= k <= self.units:
            raise ValueError(f"k is {k}; expected between 1 and the {self.units} units of this canvas.")
        if pixel is None:
            whole: TopUnits = self._stream(lambda _frame: [Top(k, self.units, self.pixels)])[0]
            return whole
        here = torch.zeros(self.frames, 1, self.pixels)
        here[:, :, self._row(pixel)] = 1
        strength = self.regions(here.unflatten(2, self.size), signed=True)[:, 0]
        values, indices = self._grid.without_slot(strength).abs().sum(-1).topk(k, dim=1)
        return TopUnits(values, indices.to(smallest_index(self.units)))

    def to_tensor(self) -> Tensor:
        """Everything at once: (frames, units, channels, *size), the slot last where there is one."""
        answer: Tensor | None = None
        with self._surroundings():
            for first, keys, part in self._parts(self._grid.keys, range(self.frames)):
                if answer is None:
                    answer = part.new_empty(self.frames, *self._grid.shape, *part.shape[2:])
                at: Any = (slice(first, first + len(part)), *self._grid.index(keys))
                answer[at] = part
        if answer is None:
            raise RuntimeError("a canvas without frames")
        return self._pictures(answer)

    def _pictures(self, flat: Tensor) -> Tensor:
        return flat.reshape(*flat.shape[:-1], *self.size)

    def save(self, path: str | Path, *, dtype: Dtype = "float32") -> Path:
        """Write all of it to disk, some units of a frame at a time: see :meth:`Canvas.save`.

        Pairs lie along the axis of units output by output, out · ins + in, and their slots after them.
        """
        kind, count = checked(dtype), math.prod(self._grid.shape)
        plan = by_units(self.size, self._maps_at_once, self.channels, count, kind)
        return write(path, self._layout(kind, plan, self.frames, self.pairs), self._block, self._show_progress)

    def _block(self, block: Block) -> Tensor:
        keys = self._grid.keys[block.first_unit : block.last_unit]
        with self._surroundings():
            maps: Tensor = plain(self._shares(block.frame, block.frame + 1, keys))[0]
        whole: Tensor = maps.unflatten(-1, self.size)
        return whole

    def _painted(self, masks: Tensor) -> Tensor:
        """Σ_region Σ_channel |c|, (frames, regions, units), float64."""
        found = self.regions(masks).unbind(1)
        return torch.stack([self._grid.without_slot(one).sum(-1).double() for one in found], 1)

    def _adjoint(self, masks: Tensor) -> Tensor | None:
        """Signed sums over masks (frames, regions, pixels), or None where the rule has no short cut."""
        answers: list[Tensor] = []
        with self._surroundings():
            for first, last in chunks(self.frames, self._rows_at_once):
                each = masks[first:last].transpose(0, 1)
                regions: list[Tensor] = []
                for mask in progress(list(each), "regions", show=self._show_progress):
                    channels = torch.eye(self.channels, device=mask.device)
                    weights = mask.to(channels)[None, :, None] * channels[:, None, :, None]
                    sums = self._sums(first, last, weights)
                    if sums is None:
                        return None
                    regions.append(sums.movedim(0, -1))
                answers.append(torch.stack(regions, 1))
        return torch.cat(answers)

    def _parts(self, keys: list[Any], frames: Any) -> Iterator[tuple[int, list[Any], Tensor]]:
        """(first frame, units, their parts (frames, k, channels, pixels)) in chunks."""
        pieces = chunks(self.frames, self._rows_at_once) if len(frames) == self.frames else [(f, f + 1) for f in frames]
        groups = [keys[a:b] for a, b in chunks(len(keys), self._maps_at_once)]
        todo = [(piece, group) for piece in pieces for group in groups]
        for (first, last), group in progress(todo, "canvas", show=self._show_progress):
            yield first, group, plain(self._shares(first, last, group))

    def _stream(self, make: Callable[[int], list[Query]]) -> tuple[Any, ...]:
        grid = self._grid
        gathered: OrderedDict[int, list[Any]] = OrderedDict()
        seen = dict.fromkeys(range(self.frames), 0)
        with self._surroundings():
            for first, keys, part in self._parts(grid.keys, range(self.frames)):
                with torch.no_grad():
                    for frame, one in enumerate(part, first):
                        start, seen[frame] = seen[frame], seen[frame] + len(keys)
                        if frame not in gathered:
                            gathered[frame] = [(query, []) for query in make(frame)]
                        for query, answers in gathered[frame]:
                            fresh = copy.copy(query)
                            shown = grid.shown(one, start, query)
                            if len(shown):
                                fresh.add(0, shown.movedim(-1, 0))
                                grid.gather(answers, fresh, fresh.answer(self.size), start)
        answered = [[grid.joined(query, answers) for query, answers in each] for each in gathered.values()]
        return tuple(tree_map(lambda *frames: torch.stack(frames), *each) for each in zip(*answered, strict=True))

    def _check(self, index: int | None, count: int, what: str) -> None:
        if index is not None and not -count <= index < count:
            raise IndexError(f"{what} {index} is out of range: this canvas has {count} {what}s.")
