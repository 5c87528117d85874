"""The unit axis of a frame canvas: units and a slot, or pairs (in, out) that are visited output by output."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...indices import python_index
from .queries import Query, Top, TopUnits, smallest_index


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
            TypeError: a number where a pair is wanted, or the other way round.
            IndexError: out of range.
        """
        unit = python_index(unit)
        if self.pairs is None:
            if not isinstance(unit, int):
                raise TypeError(f'unit is {unit!r}; wanted a number, because this canvas was made with unit="neuron".')
            count = self.units + self.slots
            if not -count <= unit < count:
                raise IndexError(f"unit {unit} is out of range: this canvas has {count} units, 0 to {count - 1}.")
            return unit % count
        if not (isinstance(unit, tuple) and len(unit) == 2 and all(isinstance(n, int) for n in unit)):
            raise TypeError(
                f'unit is {unit!r}; wanted a tuple (in, out), because this canvas was made with unit="pair".'
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
