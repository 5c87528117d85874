"""Linear operations on maps that fill one channel only, as a unit's part does until the first convolution mixes it."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from .trace import Step


@dataclass(frozen=True)
class OneChannel:
    """Maps in channel ``channel``, zero in all others.

    Attributes:
        maps: (rows, k, *space), k maps for every row.
        channel: the channel they fill.
        channels: how many there are.
        factor: the grid is so many times finer than the maps ...
        phase: ... and they lie at this place of every factor x factor cell, zero elsewhere.
    """

    maps: Tensor
    channel: int
    channels: int
    factor: int = 1
    phase: tuple[int, int] = (0, 0)

    def on_grid(self) -> "OneChannel":
        """The same with its zeros written out."""
        if self.factor == 1:
            return self
        s, (y, x) = self.factor, self.phase
        fine = self.maps.new_zeros(*self.maps.shape[:-2], self.maps.shape[-2] * s, self.maps.shape[-1] * s)
        fine[..., y::s, x::s] = self.maps
        return replace(self, maps=fine, factor=1, phase=(0, 0))

    def stacked(self) -> Tensor:
        """(rows * k, 1, *space)."""
        return self.on_grid().maps.flatten(0, 1)[:, None]

    def filled(self) -> Tensor:
        """All channels, (rows * k, channels, *space)."""
        alone = self.stacked()
        whole = alone.new_zeros(alone.shape[0], self.channels, *alone.shape[2:])
        whole[:, self.channel] = alone[:, 0]
        return whole


Maps = OneChannel | Tensor


class Linear(Protocol):
    """One linear step; ``rows`` tells how many rows the stacked maps belong to."""

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """The next maps."""


@dataclass(frozen=True)
class Scale:
    """Multiply each element: ``slope`` broadcasts to (rows, channels, *space)."""

    slope: Tensor

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Maps times slope."""
        if isinstance(maps, Tensor):
            if self.slope.shape[0] == 1:
                return maps * self.slope
            return (maps.reshape(rows, -1, *maps.shape[1:]) * self.slope[:, None]).flatten(0, 1)
        at = maps.channel if self.slope.shape[1] > 1 else 0
        slope = self.slope[:, at]
        if maps.factor > 1:
            slope = _at_phase(slope, maps)
        return replace(maps, maps=maps.maps * slope[:, None])


def _at_phase(slope: Tensor, maps: OneChannel) -> Tensor:
    s, (y, x) = maps.factor, maps.phase
    rows = slope[..., y::s, :] if slope.shape[-2] > 1 else slope
    return rows[..., x::s] if slope.shape[-1] > 1 else rows


@dataclass(frozen=True)
class Shuffle:
    """PixelShuffle: one channel goes to one phase of one channel."""

    factor: int

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """A finer grid."""
        if isinstance(maps, Tensor):
            return F.pixel_shuffle(maps, self.factor)
        s, grid = self.factor, maps.on_grid()
        phase = (grid.channel % s**2 // s, grid.channel % s)
        return OneChannel(grid.maps, grid.channel // s**2, grid.channels // s**2, s, phase)


@dataclass(frozen=True)
class Each:
    """Pooling, interpolation, padding: the same linear operation on each channel."""

    step: Step

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Resampled."""
        if isinstance(maps, Tensor):
            return self.step.again(maps)
        grid = maps.on_grid()
        new = self.step.again(grid.stacked())[:, 0].unflatten(0, grid.maps.shape[:2])
        return replace(grid, maps=new)


@dataclass(frozen=True)
class Pick:
    """Indexing behind the rows, as a target does."""

    step: Step

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """What was picked."""
        return self.step.again(maps if isinstance(maps, Tensor) else maps.filled())


@dataclass(frozen=True)
class Conv:
    """A convolution without its bias, of whichever kind ``step`` recorded."""

    step: Step
    weight: Tensor
    options: dict[str, object]

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """All output channels; of one input channel only that slice of the weight is used."""
        if isinstance(maps, Tensor):
            return self._conv(maps, self.weight)
        if self.options.get("groups", 1) != 1:
            return self._conv(maps.filled(), self.weight)
        if self.step.name.startswith("conv_transpose"):
            return self._conv(maps.stacked(), self.weight[maps.channel : maps.channel + 1])
        weight = self.weight[:, maps.channel : maps.channel + 1]
        sparse = self._from_phase(maps, weight) if maps.factor > 1 else None
        return self._conv(maps.stacked(), weight) if sparse is None else sparse

    def _conv(self, x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = self.step.func(x, weight, None, **self.options)
        return y

    def _from_phase(self, maps: OneChannel, weight: Tensor) -> Tensor | None:
        """The same without touching the zeros between: a transposed convolution, factor² times cheaper."""
        plain = all(_both(self.options.get(name, 1)) == (1, 1) for name in ("stride", "dilation"))
        padding = self.options.get("padding", 0)
        if self.step.name != "conv2d" or not plain or isinstance(padding, str):
            return None
        low = maps.maps.flatten(0, 1)[:, None]
        full = F.conv_transpose2d(low, weight.flip(-1, -2).transpose(0, 1), stride=maps.factor)
        margins: list[int] = []
        sizes = zip(low.shape[-2:], full.shape[-2:], weight.shape[-2:], _both(padding), maps.phase, strict=True)
        for coarse, have, kernel, pad, phase in sizes:
            before = phase + pad - kernel + 1
            margins = [before, coarse * maps.factor + 2 * pad - kernel + 1 - have - before, *margins]
        return F.pad(full, margins)


def _both(value: object) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (*value, *value)[:2]  # type: ignore[misc]
