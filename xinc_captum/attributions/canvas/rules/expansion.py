"""From the small core of kernel maps to the full maps of the released code, by two small matrices a stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .stages import Box, Near, Place, Pointwise, Resample, Stage


@dataclass(frozen=True)
class Expansion:
    """A list of stages, ready to be applied to maps of one phase of the kernel's own PixelShuffle.

    Boxes, nearest upsampling and placing on a phase act on each axis alone, so that all of them between two
    activations are one matrix for the rows and one for the columns; an activation goes in front of what only copies.

    Attributes:
        stages: what happens to each map.
    """

    stages: tuple[Stage, ...]

    @property
    def phases(self) -> int:
        """How many output channels make one channel of the next layer."""
        return next((s.factor**2 for s in self.stages if isinstance(s, Place)), 1)

    def at(self, phase: int) -> "Expansion":
        """The same for the output channels of one phase."""
        placed = [replace(s, phase=divmod(phase, s.factor)) if isinstance(s, Place) else s for s in self.stages]
        return Expansion(tuple(placed))

    def size(self, low: tuple[int, int]) -> tuple[int, int]:
        """Height and width of full maps."""
        empty = torch.zeros(1, *low)
        height, width = self(empty, None)[0].shape
        return int(height), int(width)

    def __call__(self, low: Tensor, into: Sequence[Tensor] | None) -> Tensor:
        """Expand (n, h, w); ``into`` are n tensors (H, W) that take the answer, or None for a new (n, H, W)."""
        maps, pending = low, list[Box | Near | Place]()
        for stage in self.stages:
            if isinstance(stage, Pointwise):
                copies = all(isinstance(p, Near) or (isinstance(p, Place) and stage.zero_stays) for p in pending)
                maps, pending = (maps, pending) if copies else (_applied(maps, pending, None), [])
                maps = stage.sigma(maps)
            elif isinstance(stage, Resample):
                maps, pending = stage.step.again(_applied(maps, pending, None)[:, None])[:, 0], []
            else:
                pending.append(stage)
        return _applied(maps, pending, into)


def _applied(maps: Tensor, pending: Sequence[Box | Near | Place], into: Sequence[Tensor] | None) -> Tensor:
    if not pending:
        if into is not None:
            for target, one in zip(into, maps, strict=True):
                target.copy_(one)
        return maps
    with torch.autocast(maps.device.type, enabled=False):  # the maps have their dtype already
        across = maps @ _matrix(pending, 1, maps).T
        down = _matrix(pending, 0, maps)
        answer = maps
        if into is None:
            answer = maps.new_empty(len(maps), down.shape[0], across.shape[2])
            into = list(answer.unbind())
        for target, one in zip(into, across, strict=True):
            torch.mm(down, one, out=target)
        return answer


def _matrix(pending: Sequence[Box | Near | Place], axis: int, maps: Tensor) -> Tensor:
    return _product(tuple(pending), axis, maps.shape[1 + axis]).to(maps)


@lru_cache(maxsize=128)
def _product(pending: tuple[Box | Near | Place, ...], axis: int, size: int) -> Tensor:
    whole = torch.eye(size, dtype=torch.float64)
    for stage in pending:
        whole = stage.matrix(axis, whole.shape[0]) @ whole
    return whole
