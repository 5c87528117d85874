"""Stop at a level: watch the clean score after each step, and find the very point where it is crossed."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .parameterizations import Params


@dataclass
class Dosing:
    """Follows an ascent until each row's clean score reaches its level.

    Between the last step below a level and the first beyond it, the parameters are halved towards the crossing, so
    the answer lies on the level, and higher levels lie further along the same path.

    Args:
        params: moved by the ascent; rows first.
        clean: the score of the parameters' images as they are, (N,).
        start: the seed's score, (N,).
        level: where to stop, (N,).
    """

    params: Params
    clean: Callable[[], Tensor]
    start: Tensor
    level: Tensor
    halvings: int = 12
    reached: Tensor = field(init=False)
    _best: Tensor = field(init=False)
    _kept: list[Tensor] = field(init=False)
    _low: list[Tensor] = field(init=False)
    _last: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.sign = torch.where(self.level < self.start, -1.0, 1.0).to(self.start)
        self.reached = self.level == self.start
        self._best = self.start * self.sign
        self._kept, self._low, self._last = ([p.detach().clone() for p in self.params] for _ in range(3))

    def live(self) -> Tensor:
        """Which rows are still on their way: (N,), as numbers."""
        return (~self.reached).to(self.start)

    def after(self, _step: int) -> bool:
        """Look where the rows are now; True when all have arrived."""
        with torch.no_grad():
            score = self.clean() * self.sign
            arrived = ~self.reached & (score >= self.level * self.sign)
            better = ~self.reached & (score > self._best)
            self._best = torch.where(better, score, self._best)
            for kept, low, last, p in zip(self._kept, self._low, self._last, self.params, strict=True):
                low.copy_(torch.where(_rows(arrived, p), last, low))
                kept.copy_(torch.where(_rows(better, p), p, kept))
                last.copy_(p)
            self.reached = self.reached | arrived
        return bool(self.reached.all())

    def finish(self) -> Tensor:
        """Put every row on its level, or at the nearest it came to it; the scores there, (N,)."""
        with torch.no_grad():
            moved = self._best > self.start * self.sign
            below, above = torch.zeros_like(self.start), torch.ones_like(self.start)
            for _ in range(self.halvings):
                middle = (below + above) / 2
                self._place(middle)
                beyond = self.clean() * self.sign >= self.level * self.sign
                above = torch.where(beyond, middle, above)
                below = torch.where(beyond, below, middle)
            self._place(torch.where(moved & self.reached, above, torch.ones_like(above)))
            return self.clean()

    def _place(self, along: Tensor) -> None:
        for p, low, kept in zip(self.params, self._low, self._kept, strict=True):
            share = torch.where(
                _rows(self.reached, p),
                along.reshape(-1, *[1] * (p.dim() - 1)).to(p),
                torch.ones((), dtype=p.dtype, device=p.device),
            )
            p.copy_(low + (kept - low) * share)


def _rows(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *[1] * (like.dim() - 1))
