"""Jacobian-vector products of linearized convolution chains, one channel at a time."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ....batch import Batch
from .secant_tensor import difference, secant_slope, tangent_slope
from .tail import Tail
from .trace import POINTWISE, Step, as_pair, trace


@dataclass(frozen=True)
class OneChannel:
    """Maps that are nonzero in one channel only.

    Attributes:
        maps: (rows, k, *space), k maps for every row.
        channel: index of the nonzero channel.
        channels: number of channels.
        factor: the full grid is this many times finer than the maps.
        phase: position of the maps inside every factor x factor cell of the full grid; the rest is zero.
    """

    maps: Tensor
    channel: int
    channels: int
    factor: int = 1
    phase: tuple[int, int] = (0, 0)

    def on_grid(self) -> "OneChannel":
        """Return the same maps on the full grid, zeros included."""
        if self.factor == 1:
            return self
        s, (y, x) = self.factor, self.phase
        fine = self.maps.new_zeros(*self.maps.shape[:-2], self.maps.shape[-2] * s, self.maps.shape[-1] * s)
        fine[..., y::s, x::s] = self.maps
        return replace(self, maps=fine, factor=1, phase=(0, 0))

    def stack_maps(self) -> Tensor:
        """Return the maps of all rows as one batch, (rows * k, 1, *space)."""
        return self.on_grid().maps.flatten(0, 1)[:, None]

    def all_channels(self) -> Tensor:
        """Return all channels, zeros included, (rows * k, channels, *space)."""
        single = self.stack_maps()
        result = single.new_zeros(single.shape[0], self.channels, *single.shape[2:])
        result[:, self.channel] = single[:, 0]
        return result


Maps = OneChannel | Tensor


class LinearStep(Protocol):
    """One linear operation of a chain; ``rows`` is the number of rows that the stacked maps belong to."""

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Return the maps after this operation."""


@dataclass(frozen=True)
class Scale:
    """Elementwise multiplication by ``slope``, which broadcasts to (rows, channels, *space)."""

    slope: Tensor

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Return maps times slope."""
        if isinstance(maps, Tensor):
            if self.slope.shape[0] == 1:
                return maps * self.slope
            return (maps.reshape(rows, -1, *maps.shape[1:]) * self.slope[:, None]).flatten(0, 1)
        at = maps.channel if self.slope.shape[1] > 1 else 0
        slope = self.slope[:, at]
        if maps.factor > 1:
            slope = _slope_at_phase(slope, maps)
        return replace(maps, maps=maps.maps * slope[:, None])


def _slope_at_phase(slope: Tensor, maps: OneChannel) -> Tensor:
    s, (y, x) = maps.factor, maps.phase
    rows = slope[..., y::s, :] if slope.shape[-2] > 1 else slope
    return rows[..., x::s] if slope.shape[-1] > 1 else rows


@dataclass(frozen=True)
class Shuffle:
    """PixelShuffle: one input channel fills one phase of one output channel."""

    factor: int

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Return the maps on the finer grid."""
        if isinstance(maps, Tensor):
            return F.pixel_shuffle(maps, self.factor)
        s, grid = self.factor, maps.on_grid()
        phase = (grid.channel % s**2 // s, grid.channel % s)
        return OneChannel(grid.maps, grid.channel // s**2, grid.channels // s**2, s, phase)


@dataclass(frozen=True)
class PerChannel:
    """Pooling, interpolation or padding: the same linear operation on each channel."""

    step: Step

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Return the resampled maps."""
        if isinstance(maps, Tensor):
            return self.step.apply(maps)
        grid = maps.on_grid()
        new = self.step.apply(grid.stack_maps())[:, 0].unflatten(0, grid.maps.shape[:2])
        return replace(grid, maps=new)


@dataclass(frozen=True)
class Index:
    """Indexing of the dimensions after the rows, as by a target."""

    step: Step

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Return the indexed elements."""
        return self.step.apply(maps if isinstance(maps, Tensor) else maps.all_channels())


@dataclass(frozen=True)
class Conv:
    """A convolution of any kind, without its bias."""

    step: Step
    weight: Tensor
    options: dict[str, object]

    def __call__(self, maps: Maps, rows: int) -> Maps:
        """Return all output channels; one input channel uses its slice of the weight only."""
        if isinstance(maps, Tensor):
            return self._conv(maps, self.weight)
        if self.options.get("groups", 1) != 1:
            return self._conv(maps.all_channels(), self.weight)
        if self.step.name.startswith("conv_transpose"):
            return self._conv(maps.stack_maps(), self.weight[maps.channel : maps.channel + 1])
        weight = self.weight[:, maps.channel : maps.channel + 1]
        sparse = self._from_phase(maps, weight) if maps.factor > 1 else None
        return self._conv(maps.stack_maps(), weight) if sparse is None else sparse

    def _conv(self, x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = self.step.func(x, weight, None, **self.options)
        return y

    def _from_phase(self, maps: OneChannel, weight: Tensor) -> Tensor | None:
        """Return the result without computing the zeros in between: a transposed convolution, factor² times cheaper."""
        plain = all(as_pair(self.options.get(name, 1)) == (1, 1) for name in ("stride", "dilation"))
        padding = self.options.get("padding", 0)
        if self.step.name != "conv2d" or not plain or isinstance(padding, str):
            return None
        low = maps.maps.flatten(0, 1)[:, None]
        full = F.conv_transpose2d(low, weight.flip(-1, -2).transpose(0, 1), stride=maps.factor)
        margins: list[int] = []
        sizes = zip(low.shape[-2:], full.shape[-2:], weight.shape[-2:], as_pair(padding), maps.phase, strict=True)
        for coarse, have, kernel, pad, phase in sizes:
            before = phase + pad - kernel + 1
            margins = [before, coarse * maps.factor + 2 * pad - kernel + 1 - have - before, *margins]
        return F.pad(full, margins)


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
    """The part of a network after a layer, linearized at some rows.

    Attributes:
        activation: at the layer, (rows, channels, *space).
        output: (rows, *output).
        remainder: the part of the output that belongs to no unit, (rows, *output); None under the tangent.
        steps: linear operations in order.
    """

    activation: Tensor
    output: Tensor
    remainder: Tensor | None
    steps: tuple[LinearStep, ...]

    def jvp(self, maps: Tensor, channel: int) -> Tensor:
        """Return the JVP of maps in one channel of the layer: (rows, k, *space) → (rows, k, *output)."""
        rows, k = maps.shape[:2]
        state: Maps = OneChannel(maps, channel, self.activation.shape[1])
        with torch.no_grad():
            for step in self.steps:
                state = step(state, rows)
            result = state if isinstance(state, Tensor) else state.all_channels()
        return result.reshape(rows, k, *self.output.shape[1:])

    def jvp_all(self, maps: Tensor) -> Tensor:
        """Return the JVP of maps in every channel of the layer: (rows, channels, *space) → (rows, *output)."""
        state: Maps = maps
        with torch.no_grad():
            for step in self.steps:
                state = step(state, len(maps))
        assert isinstance(state, Tensor)  # noqa: S101 - dense maps stay dense
        return state


def chain(tail: Tail, batch: Batch, slope: Slope, remainder: Tensor | None = None) -> Chain | None:
    """Linearize a tail; return None if it is not a chain of operations that act on each row alone.

    Args:
        tail: the model after the layer's output (or from its input on).
        batch: some rows.
        slope: "tangent" for σ'(z), "secant" for (σ(z) − σ(0))/z.
        remainder: the part of the layer's activation that belongs to no unit; None is zero.
    """
    recording = trace(tail, batch)
    if recording is None or recording.activation.dim() < 3:
        return None
    steps: list[LinearStep] = []
    current = torch.zeros_like(recording.activation) if remainder is None else remainder.expand_as(recording.activation)
    for step in recording.steps:
        converted = _step(step, slope, current)
        if converted is None:
            return None
        linear, current = converted
        steps += [] if linear is None else [linear]
    return Chain(recording.activation, recording.output, current if slope == "secant" else None, tuple(steps))


def _step(step: Step, slope: Slope, remainder: Tensor) -> tuple[LinearStep | None, Tensor] | None:
    """Return the linear operation (None for the identity) and the remainder after it."""
    with torch.no_grad():
        if step.name in POINTWISE and step.name != "pow":
            return _pointwise(step, slope, remainder)
        linear = _affine(step)
        if linear is None:
            return None
        return (None if linear == "same" else linear), step.apply(remainder)


def _pointwise(step: Step, slope: Slope, remainder: Tensor) -> tuple[LinearStep, Tensor]:
    if slope == "tangent":
        return Scale(tangent_slope(step.apply, step.input)), remainder
    rise = difference(step.name, step.args, step.kwargs)
    _, steep, at_zero = secant_slope(step.apply, step.input, step.has_tensors, rise)
    return Scale(steep), steep * remainder + at_zero


def _affine(step: Step) -> Any:
    name = step.name
    if name.startswith("conv"):
        arguments = step.arguments(_TRANSPOSED if name.startswith("conv_transpose") else _CONV)
        weight = arguments.pop("weight").detach()
        arguments.pop("bias", None)
        return Conv(step, weight, arguments)
    if name == "pixel_shuffle":
        return Shuffle(step.arguments("upscale_factor")["upscale_factor"])
    if name in _EACH or (name == "pad" and not step.arguments("pad mode value").get("value")):
        return PerChannel(step)
    if name in {"contiguous", "clone"} or (
        name in _DROPOUTS and not step.arguments("p training").get("training", True)
    ):
        return "same"
    if name in _ELEMENTWISE:
        return _elementwise_scale(step)
    return Index(step) if name == "getitem" and _keeps_rows(step.args[0]) else None


def _elementwise_scale(step: Step) -> Scale | None:
    if step.arguments("other").get("rounding_mode") or (step.name == "batch_norm" and _is_training(step)):
        return None
    like = step.input
    if step.name == "batch_norm" or not step.has_tensors:  # one number for each channel is enough
        like = like[:1].flatten(2)[..., :1].reshape(1, -1, *[1] * (like.dim() - 2))
    scale = step.apply(torch.ones_like(like)) - step.apply(torch.zeros_like(like))
    return Scale(scale) if scale.shape == like.shape else None


def _is_training(step: Step) -> bool:
    return bool(step.arguments("running_mean running_var weight bias training").get("training", False))


def _keeps_rows(index: Any) -> bool:
    keeps_rows = isinstance(index, tuple) and len(index) > 0 and index[0] == slice(None)
    return keeps_rows and all(isinstance(i, int | slice) for i in index)
