"""Linearised conv chains, one channel at a time."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ....batch import Batch
from .secant_tensor import difference, secant_slope, tangent_slope
from .tail import Tail
from .trace import POINTWISE, Step, trace


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


Slope = Literal["tangent", "secant"]

_CONV = "weight bias stride padding dilation groups"
_TRANSPOSED = "weight bias stride padding output_padding groups dilation"
_DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"}
_ELEMENTWISE = {"add", "sub", "rsub", "neg", "mul", "multiply", "div", "true_divide", "divide", "batch_norm"}
_EACH = {"interpolate", "upsample", "avg_pool1d", "avg_pool2d", "avg_pool3d"} | {
    f"adaptive_avg_pool{d}d" for d in (1, 2, 3)
}


@dataclass(frozen=True)
class Chain:
    """c ↦ its part of the output, as the network is at these rows.

    Attributes:
        activation: at the layer, (rows, channels, *space).
        output: (rows, *left).
        slot: what the units do not hold, (rows, *left); None under the tangent.
        steps: one linear operation after the other.
    """

    activation: Tensor
    output: Tensor
    slot: Tensor | None
    steps: tuple[Linear, ...]

    def carry(self, maps: Tensor, channel: int) -> Tensor:
        """(rows, k, *space) in one channel of the layer → (rows, k, *left)."""
        rows, k = maps.shape[:2]
        state: Maps = OneChannel(maps, channel, self.activation.shape[1])
        with torch.no_grad():
            for step in self.steps:
                state = step(state, rows)
            whole = state if isinstance(state, Tensor) else state.filled()
        return whole.reshape(rows, k, *self.output.shape[1:])

    def carry_all(self, parts: Tensor) -> Tensor:
        """Parts in every channel of the layer, (rows, channels, *space) → (rows, *left)."""
        state: Maps = parts
        with torch.no_grad():
            for step in self.steps:
                state = step(state, len(parts))
        assert isinstance(state, Tensor)  # noqa: S101 - dense maps stay dense
        return state


def chain(tail: Tail, batch: Batch, slope: Slope, slot: Tensor | None = None) -> Chain | None:
    """Linearise a tail, or None where it is no chain of operations that keep rows and channels apart.

    Args:
        tail: from the layer's output (or input) on.
        batch: some rows.
        slope: σ'(z), or (σ(z) − σ(0))/z.
        slot: what the units do not hold at the layer itself; zero when not given.
    """
    recorded = trace(tail, batch)
    if recorded is None or recorded.activation.dim() < 3:
        return None
    steps: list[Linear] = []
    carried = torch.zeros_like(recorded.activation) if slot is None else slot.expand_as(recorded.activation)
    for step in recorded.steps:
        made = _step(step, slope, carried)
        if made is None:
            return None
        linear, carried = made
        steps += [] if linear is None else [linear]
    return Chain(recorded.activation, recorded.output, carried if slope == "secant" else None, tuple(steps))


def _step(step: Step, slope: Slope, slot: Tensor) -> tuple[Linear | None, Tensor] | None:
    """The linear operation (None: nothing happens) and the slot behind it."""
    with torch.no_grad():
        if step.name in POINTWISE and step.name != "pow":
            return _pointwise(step, slope, slot)
        linear = _affine(step)
        if linear is None:
            return None
        return (None if linear == "same" else linear), step.again(slot)


def _pointwise(step: Step, slope: Slope, slot: Tensor) -> tuple[Linear, Tensor]:
    if slope == "tangent":
        return Scale(tangent_slope(step.again, step.entered)), slot
    rise = difference(step.name, step.args, step.kwargs)
    _, steep, at_zero = secant_slope(step.again, step.entered, step.has_tensors, rise)
    return Scale(steep), steep * slot + at_zero


def _affine(step: Step) -> Any:
    name = step.name
    if name.startswith("conv"):
        given = step.given(_TRANSPOSED if name.startswith("conv_transpose") else _CONV)
        weight = given.pop("weight").detach()
        given.pop("bias", None)
        return Conv(step, weight, given)
    if name == "pixel_shuffle":
        return Shuffle(step.given("upscale_factor")["upscale_factor"])
    if name in _EACH or (name == "pad" and not step.given("pad mode value").get("value")):
        return Each(step)
    if name in {"contiguous", "clone"} or (name in _DROPOUTS and not step.given("p training").get("training", True)):
        return "same"
    if name in _ELEMENTWISE:
        return _scaled(step)
    return Pick(step) if name == "getitem" and _behind_rows(step.args[0]) else None


def _scaled(step: Step) -> Scale | None:
    if step.given("other").get("rounding_mode") or (step.name == "batch_norm" and _training(step)):
        return None
    like = step.entered
    if step.name == "batch_norm" or not step.has_tensors:  # one number a channel says it all
        like = like[:1].flatten(2)[..., :1].reshape(1, -1, *[1] * (like.dim() - 2))
    moved = step.again(torch.ones_like(like)) - step.again(torch.zeros_like(like))
    return Scale(moved) if moved.shape == like.shape else None


def _training(step: Step) -> bool:
    return bool(step.given("running_mean running_var weight bias training").get("training", False))


def _behind_rows(index: Any) -> bool:
    whole = isinstance(index, tuple) and len(index) > 0 and index[0] == slice(None)
    return whole and all(isinstance(i, int | slice) for i in index)
