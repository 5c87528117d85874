"""Record the operations after a layer, and Jacobian-vector products of a chain of them, one channel at a time."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from ....batch import Batch
from .secant_tensor import (
    EVALUATION_ONLY,
    METADATA,
    POINTWISE,
    difference,
    has_tensors,
    input_first,
    plain_name,
    secant_slope,
    tangent_slope,
)
from .tail import Tail


def as_pair(value: Any) -> tuple[int, int]:
    """Return an option of a 2-D operation, an int or a sequence, as one int for each axis."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


@dataclass(frozen=True)
class Step:
    """One operation of a chain; ``args`` and ``kwargs`` follow its input tensor, (rows, channels, ...)."""

    name: str
    func: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    input: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return the operation's result for another tensor, which is not modified."""
        return self.func(x.clone(), *self.args, **self.kwargs)

    def arguments(self, names: str) -> dict[str, Any]:
        """Return the recorded arguments by name; ``names`` are the names of those after the tensor, in order."""
        return dict(zip(names.split(), self.args, strict=False)) | self.kwargs

    @property
    def has_tensors(self) -> bool:
        """Whether the operation has other tensor arguments."""
        return has_tensors(self.args, self.kwargs)


@dataclass(frozen=True)
class Trace:
    """A tail that is a chain: each operation depends on the layer only through the result of the one before."""

    activation: Tensor
    steps: tuple[Step, ...]
    output: Tensor


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        self.current: Tensor | None = None
        self.earlier: list[Tensor] = []
        self.steps: list[Step] = []
        self.chain = True
        self.marks: dict[Any, tuple[int, Tensor]] = {}

    def begin(self, position: Any, activation: Tensor) -> Tensor:
        """Start at the first layer's activation; record the position of later layers on the chain."""
        if self.current is None:
            self.marks[position] = (0, activation.detach())
            self.current = activation.detach().clone()
            return self.current
        if activation is self.current:
            with torch._C.DisableTorchFunction():
                self.marks[position] = (len(self.steps), activation.detach().clone())
        return activation

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "_set_grad_enabled" and self.current is not None:
            self.chain = False  # the model stops gradients, which autograd handles
        if self.current is None or not self.chain:
            return func(*args, **kwargs)
        args, kwargs = input_first(args, kwargs)
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        touched = [t for t in tensors if any(t is known for known in (self.current, *self.earlier))]
        name, in_place = plain_name(func)
        if not touched or name in METADATA:
            return func(*args, **kwargs)
        is_only_input = len(touched) == 1 and touched[0] is self.current and args[0] is self.current
        self.chain = is_only_input and torch.is_grad_enabled()  # off in custom autograd Functions
        in_place = in_place or bool(kwargs.get("inplace")) or any(a is True for a in args[1:2])
        step_input = self.current.clone() if in_place else self.current
        with torch.no_grad():
            result = func(*args, **kwargs)
        self.chain = self.chain and isinstance(result, Tensor)
        if self.chain:
            self.earlier.append(args[0])
            self.steps.append(Step(name, func, tuple(args[1:]), kwargs, step_input))
            self.current = result
        return result


def trace(tail: Tail, batch: Batch) -> Trace | None:
    """Run these rows and record the operations after the layer; return None if the tail is not a chain.

    A tail with skips, branches, in-place writes into views, gradients turned off inside or custom autograd Functions
    is not a chain.
    """
    if tail.shared_pass is not None:
        shared: Trace | None = tail.shared_pass.trace(tail, batch)
        if shared is not None:
            return shared
    return trace_layers([tail], batch).get(tail.position)


def trace_layers(tails: Sequence[Tail], batch: Batch) -> dict[Any, Trace]:
    """Record several layers of one chain in one pass; layers that are not on it are omitted."""
    recorder = _Recorder()
    try:
        with torch.enable_grad(), recorder, ExitStack() as stack:
            for tail in tails:
                stack.enter_context(tail.patch_layer(batch, partial(recorder.begin, tail.position)))
            output = tails[0].output(batch)
    except RuntimeError:  # for example a model that takes gradients inside; a later pass raises the error
        return {}
    if not recorder.chain or output is not recorder.current:
        return {}
    steps, end = tuple(recorder.steps), output.detach()
    return {position: Trace(activation, steps[at:], end) for position, (at, activation) in recorder.marks.items()}


@dataclass(frozen=True)
class OneChannel:
    """Maps (rows, k, *space) of one ``channel``; the other ones of ``channels`` channels are zero.

    With ``factor`` > 1 they are the pixels at offset ``phase`` of each factor x factor cell of the full grid; the other
    pixels are zero.
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
LinearStep = Callable[[Maps], Maps]


def scale(slope: Tensor, maps: Maps) -> Maps:
    """Multiply elementwise by ``slope``, which broadcasts to (rows, channels, *space)."""
    if isinstance(maps, Tensor):
        if slope.shape[0] == 1:
            return maps * slope
        return (maps.reshape(len(slope), -1, *maps.shape[1:]) * slope[:, None]).flatten(0, 1)
    slope = slope[:, maps.channel if slope.shape[1] > 1 else 0]
    if maps.factor > 1:
        s, (y, x) = maps.factor, maps.phase
        slope = slope[..., y::s, :] if slope.shape[-2] > 1 else slope
        slope = slope[..., x::s] if slope.shape[-1] > 1 else slope
    return replace(maps, maps=maps.maps * slope[:, None])


def shuffle(factor: int, maps: Maps) -> Maps:
    """Shuffle pixels to a finer grid: one input channel fills one phase of one output channel."""
    if isinstance(maps, Tensor):
        return F.pixel_shuffle(maps, factor)
    grid = maps.on_grid()
    channel, phase = divmod(grid.channel, factor**2)
    return OneChannel(grid.maps, channel, grid.channels // factor**2, factor, divmod(phase, factor))


def _each_channel(step: Step, maps: Maps) -> Maps:
    """Apply pooling, interpolation or padding: the same linear operation on each channel."""
    if isinstance(maps, Tensor):
        return step.apply(maps)
    grid = maps.on_grid()
    return replace(grid, maps=step.apply(grid.stack_maps())[:, 0].unflatten(0, grid.maps.shape[:2]))


def _index(step: Step, maps: Maps) -> Maps:
    """Index the dimensions after the rows, as a target does."""
    return step.apply(maps if isinstance(maps, Tensor) else maps.all_channels())


def _convolve(step: Step, weight: Tensor, options: dict[str, Any], maps: Maps) -> Tensor:
    """Apply a convolution of any kind without its bias; one input channel uses its slice of the weight only."""
    if isinstance(maps, Tensor):
        x = maps
    elif options.get("groups", 1) != 1:
        x = maps.all_channels()
    elif step.name.startswith("conv_transpose"):
        x, weight = maps.stack_maps(), weight[maps.channel : maps.channel + 1]
    else:
        weight = weight[:, maps.channel : maps.channel + 1]
        padding = options.get("padding", 0)
        plain = all(as_pair(options.get(name, 1)) == (1, 1) for name in ("stride", "dilation"))
        if maps.factor > 1 and step.name == "conv2d" and plain and not isinstance(padding, str):
            return _convolve_phase(maps, weight, as_pair(padding))
        x = maps.stack_maps()
    return step.func(x, weight, None, **options)


def _convolve_phase(maps: OneChannel, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return the convolution of the full grid without its zeros, by a transposed one: factor² times cheaper."""
    low = maps.maps.flatten(0, 1)[:, None]
    full = F.conv_transpose2d(low, weight.flip(-1, -2).transpose(0, 1), stride=maps.factor)
    margins: list[int] = []
    sizes = zip(low.shape[-2:], full.shape[-2:], weight.shape[-2:], padding, maps.phase, strict=True)
    for coarse, have, kernel, pad, phase in sizes:
        before = phase + pad - kernel + 1
        margins = [before, coarse * maps.factor + 2 * pad - kernel + 1 - have - before, *margins]
    return F.pad(full, margins)


Slope = Literal["tangent", "secant"]

CONV_ARGUMENTS = "weight bias stride padding dilation groups"
_TRANSPOSED_ARGUMENTS = "weight bias stride padding output_padding groups dilation"
_DROPOUTS = EVALUATION_ONLY - {"batch_norm"}
_ELEMENTWISE = {"add", "sub", "rsub", "neg", "mul", "multiply", "div", "true_divide", "divide", "batch_norm"}
_EACH = set(
    """
    interpolate upsample avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    """.split()
)


@dataclass(frozen=True)
class Chain:
    """The part of a network after a layer, linearized at some rows."""

    activation: Tensor  # at the layer, (rows, channels, *space)
    output: Tensor  # (rows, *output)
    remainder: Tensor | None  # the part of the output that belongs to no unit; None under the tangent
    steps: tuple[LinearStep, ...]

    def jvp(self, maps: Tensor, channel: int) -> Tensor:
        """Return the JVP of maps in one channel of the layer: (rows, k, *space) → (rows, k, *output)."""
        result = self._run_steps(OneChannel(maps, channel, self.activation.shape[1]))
        result = result if isinstance(result, Tensor) else result.all_channels()
        return result.reshape(*maps.shape[:2], *self.output.shape[1:])

    def jvp_all(self, maps: Tensor) -> Tensor:
        """Return the JVP of maps in every channel of the layer: (rows, channels, *space) → (rows, *output)."""
        result = self._run_steps(maps)
        assert isinstance(result, Tensor)  # noqa: S101 - dense maps stay dense
        return result

    @torch.no_grad()
    def _run_steps(self, maps: Maps) -> Maps:
        for step in self.steps:
            maps = step(maps)
        return maps


@torch.no_grad()
def _linearize(steps: Sequence[Step], slope: Slope, remainder: Tensor) -> tuple[list[LinearStep], Tensor] | None:
    """Return the linear operations and the remainder after them; None if an operation acts on several rows."""
    linear_steps: list[LinearStep] = []
    for step in steps:
        is_dropout = step.name in _DROPOUTS and not step.arguments("p training").get("training", True)
        if is_dropout or step.name in {"contiguous", "clone"}:
            continue
        if step.name not in POINTWISE or step.name == "pow":
            linear = _affine(step)
            if linear is None:
                return None
            remainder = step.apply(remainder) if slope == "secant" else remainder
        elif slope == "tangent":
            linear = partial(scale, tangent_slope(step.apply, step.input))
        else:
            rise = difference(step.name, step.args, step.kwargs)
            _, steep, at_zero = secant_slope(step.apply, step.input, step.has_tensors, rise)
            linear, remainder = partial(scale, steep), steep * remainder + at_zero
        linear_steps.append(linear)
    return linear_steps, remainder


def chain(tail: Tail, batch: Batch, slope: Slope, remainder: Tensor | None = None) -> Chain | None:
    """Linearize a tail; return None if it is not a chain of operations that act on each row alone.

    ``slope`` is "tangent" for σ'(z) or "secant" for (σ(z) − σ(0))/z; ``remainder`` is the part of the layer's
    activation that belongs to no unit (None is zero).
    """
    recording = trace(tail, batch)
    if recording is None or recording.activation.dim() < 3:
        return None
    start = torch.zeros_like(recording.activation) if remainder is None else remainder.expand_as(recording.activation)
    linearized = _linearize(recording.steps, slope, start)
    if linearized is None:
        return None
    steps, end = linearized
    return Chain(recording.activation, recording.output, end if slope == "secant" else None, tuple(steps))


def _affine(step: Step) -> LinearStep | None:
    name = step.name
    if name.startswith("conv"):
        arguments = step.arguments(_TRANSPOSED_ARGUMENTS if name.startswith("conv_transpose") else CONV_ARGUMENTS)
        weight = arguments.pop("weight").detach()
        arguments.pop("bias", None)
        return partial(_convolve, step, weight, arguments)
    if name == "pixel_shuffle":
        return partial(shuffle, step.arguments("upscale_factor")["upscale_factor"])
    if name in _EACH or (name == "pad" and not step.arguments("pad mode value").get("value")):
        return partial(_each_channel, step)
    if name in _ELEMENTWISE:
        return _elementwise_scale(step)
    if name == "getitem" and isinstance(index := step.args[0], tuple):
        keeps_rows = index[:1] == (slice(None),) and all(isinstance(i, int | slice) for i in index)
        return partial(_index, step) if keeps_rows else None
    return None


def _elementwise_scale(step: Step) -> LinearStep | None:
    is_norm, like = step.name == "batch_norm", step.input
    is_training = step.arguments("running_mean running_var weight bias training").get("training", False)
    if step.arguments("other").get("rounding_mode") or (is_norm and is_training):
        return None
    if is_norm or not step.has_tensors:  # one number for each channel is enough
        like = like[:1].flatten(2)[..., :1].reshape(1, -1, *[1] * (like.dim() - 2))
    slope = step.apply(torch.ones_like(like)) - step.apply(torch.zeros_like(like))
    return partial(scale, slope) if slope.shape == like.shape else None
