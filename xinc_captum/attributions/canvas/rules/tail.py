"""The model after a layer (tail), rendered rays, and how many rows fit a memory budget."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ....batch import Batch, OneUnit, OutputFn, Selector, list_units, select_output
from ....hooks import ForwardFunc, LayerError, capture, layer_name, one_tensor, patch, unit_axis
from ...token_grid import TokenLayout, token_layout


@dataclass(frozen=True)
class Tail:
    """The part of a model between a layer and the output.

    A complex activation (rows, units, ...) is explained as the real one (rows, units, ..., 2) of its real and imaginary
    parts, which are summed like positions.
    """

    forward_func: ForwardFunc  # the whole model, called with inputs and additional arguments
    layer: nn.Module
    at_input: bool = False  # the tail begins at the layer's input, not at its output
    output_fn: OutputFn | None = None  # selects the output tensor of what the model returns
    shared_pass: Any = field(default=None, repr=False, compare=False)  # a SharedPass of several layers
    unit_axis: int | None = None  # the activation's axis of units; None determines it (hooks.unit_axis)
    call: int | None = None  # which call of the layer, from 0; None is its only one
    _axes: dict[bool, int] = field(default_factory=dict, repr=False, compare=False)  # unit axes by at_input
    _complex: dict[bool, bool] = field(default_factory=dict, repr=False, compare=False)  # complex layers by at_input

    @property
    def is_complex(self) -> bool:
        """Whether the layer's activation is complex; known after the first run."""
        return self._complex.get(self.at_input, False)

    @property
    def position(self) -> tuple[nn.Module, bool]:
        """The layer and ``at_input``: the point at which the tail begins."""
        return self.layer, self.at_input

    @property
    def name(self) -> str:
        """The layer's name, for error messages."""
        return layer_name(self.forward_func, self.layer)

    def after_layer(self) -> "Tail":
        """Return the tail from the layer's output on."""
        return replace(self, at_input=False)

    def output(self, batch: Batch) -> Tensor:
        """Return the selected output, (rows, *output)."""
        return select_output(batch.through(self.forward_func), batch, self.output_fn)

    def run(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the activation (rows, units, ...) and the output (rows, *output) computed from it."""
        options: dict[str, Any] = {"at_input": self.at_input, "call": self.call, "complex_values": True}
        with capture(self.forward_func, self.layer, **options) as captured:
            output = self.output(batch)
        return self.per_row(captured[self.layer], batch), output

    def per_row(self, value: Tensor | tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the layer's activation as one tensor (rows, units, ...), or raise a LayerError."""
        return self._units_second(self.tensor_of_layer(value, batch), tuple(batch.inputs[0].shape))

    def tensor_of_layer(self, value: Tensor | tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the tensor to explain of what the layer returned, or raise a LayerError."""
        return one_tensor(value, lambda: self.name, batch.rows, at_input=self.at_input)

    def to_layer_axes(self, activation: Tensor) -> Tensor:
        """Return an activation of :meth:`per_row` with the axes of the layer's own activation."""
        axis = self._axes.get(self.at_input, 1)
        if self.is_complex:
            activation = torch.view_as_complex(activation.contiguous())
        return activation if axis == 1 else activation.movedim(1, axis).contiguous()  # the model may view it

    def move_baselines(self, baselines: float | Tensor, like: Tensor) -> float | Tensor:
        """Move the axes of baselines that broadcast to the layer's activation to those of :meth:`per_row`."""
        if self.is_complex:
            baselines = torch.view_as_real(torch.as_tensor(baselines, device=like.device).to(like.dtype.to_complex()))
        axis = self._axes.get(self.at_input, 1)
        if axis == 1 or not isinstance(baselines, Tensor) or baselines.dim() > like.dim():
            return baselines
        return baselines.reshape(*[1] * (like.dim() - baselines.dim()), *baselines.shape).movedim(axis, 1)

    def move_selector(self, selector: Selector, like: Tensor) -> Selector:
        """Return a Captum selector of the layer's activation as one of ``like``, a result of :meth:`per_row`."""
        axis = self._axes.get(self.at_input, 1)
        if selector is None or (axis == 1 and not self.is_complex):
            return selector
        layer_activation = self.to_layer_axes(like)
        if not isinstance(selector, list):
            return _move_axis(selector, axis, layer_activation)  # type: ignore[arg-type]
        return [_move_axis(one, axis, layer_activation) for one in selector]

    def _units_second(self, activation: Tensor, input_shape: tuple[int, ...]) -> Tensor:
        moved = self._move_units(activation, input_shape)
        if self._complex.setdefault(self.at_input, activation.is_complex()):
            return torch.view_as_real(moved.resolve_conj())
        return moved

    def _move_units(self, activation: Tensor, input_shape: tuple[int, ...]) -> Tensor:
        if activation.dim() <= 2:
            return activation
        axis = self._axes.get(self.at_input)
        if axis is None:
            shape, layer, requested = activation.shape, self.layer, self.unit_axis
            if requested is None and not self.at_input:
                layout = token_layout(shape, layer, self.forward_func, input_shape)
                requested = -1 if isinstance(layout, TokenLayout) else None  # all tokens of a vision transformer
            axis = self._axes[self.at_input] = unit_axis(
                shape, layer, self.forward_func, entered=input_shape, requested=requested, at_input=self.at_input
            )
        return activation if axis == 1 else activation.movedim(axis, 1)

    def output_with(self, batch: Batch, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the output when the layer returns ``edit(activation)``."""
        with self.patch_layer(batch, edit):
            return self.output(batch)

    def patch_layer(self, batch: Batch, edit: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        """Make the layer return ``edit(activation)`` while the block runs the model once."""

        def edit_value(value: Any) -> Any:
            new = self.to_layer_axes(edit(self.per_row(value, batch)))
            if not isinstance(value, tuple):
                return new
            explained = self.tensor_of_layer(value, batch)
            return tuple(new if tensor is explained else tensor for tensor in value)

        options: dict[str, Any] = {"at_input": self.at_input, "call": self.call, "complex_values": True}
        return patch(self.forward_func, self.layer, edit_value, **options)


def _move_axis(one: OneUnit, axis: int, layer_activation: Tensor) -> OneUnit:
    """Return a selector for the activation whose axis ``axis`` was moved to axis 1."""
    if isinstance(one, tuple):
        (checked,) = list_units(layer_activation, one)  # errors show the layer's own axes
        index: tuple[int | slice, ...] = checked  # type: ignore[assignment]
        both = (slice(None),) * layer_activation.is_complex()  # the real and the imaginary part
        return (index[axis - 1], *index[: axis - 1], *index[axis:], *both)
    if callable(one):
        function = one
        if layer_activation.is_complex():
            return lambda parts: _sum_parts(function(torch.view_as_complex(parts.contiguous()).movedim(1, axis)))
        return lambda activation: function(activation.movedim(1, axis))
    return one


def _sum_parts(value: Tensor) -> Tensor:
    """Return the sum of the real and the imaginary part, which are contributions."""
    return value.real + value.imag if value.is_complex() else value


_OFF: ContextVar[bool] = ContextVar("gradients are off in a no_grad block of the model", default=False)


def in_no_grad_block() -> bool:
    """Return whether the model is in a ``no_grad`` block of its own; valid only inside :class:`GradModes`.

    The forward pass of a custom autograd Function is not such a block, because its result has a derivative.
    """
    return _OFF.get()


class GradModes(TorchFunctionMode):
    """Tracks whether a model turns gradients off or on (``toggled``); forward mode ignores such blocks."""

    _before: Token[bool]

    def __init__(self) -> None:
        super().__init__()
        self.toggled = False

    def __enter__(self) -> "GradModes":
        self._before = _OFF.set(False)
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        _OFF.reset(self._before)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            self.toggled = True
            # Gradients that are off already, outside of a block, were switched off by a custom autograd Function.
            _OFF.set(not args[0] and (torch.is_grad_enabled() or _OFF.get()))
        return func(*args, **(kwargs or {}))


DEFAULT_BUDGET = 256 << 20  # bytes of working memory, apart from the result
PROBE_ROWS = 4


@dataclass(frozen=True)
class Footprint:
    """Memory that a forward pass needs, measured with a few rows."""

    activation: Tensor  # of those rows at the layer, (few, units, ...)
    output: Tensor  # of those rows, (few, *output)
    upper_bound: int  # bytes of the graph for each row, and a share of the bytes that do not grow with the rows
    measure_again: Callable[[], int]  # runs another forward pass, and returns the bytes for each row without that share

    def max_rows(self, units: int, budget: int | None, enough: int | None = None) -> int:
        """Return the number of rows with this many units each that fit the budget in bytes (None is 256 MiB).

        Nothing is measured again if at least ``enough`` rows fit. A budget that is not positive raises a ValueError.
        """
        if budget is not None and budget <= 0:
            raise ValueError(f"memory_budget is {budget}; expected a positive number of bytes, or None for 256 MiB.")
        result_bytes = 3 * units * self.output[0].numel() * self.output.element_size()  # with its temporaries
        safe_rows = max(1, (budget or DEFAULT_BUDGET) // max(2 * self.upper_bound + result_bytes, 1))
        if enough is not None and safe_rows >= enough:
            return safe_rows
        # The graph and the gradients of its tensors.
        return max(1, (budget or DEFAULT_BUDGET) // max(2 * self.measure_again() + result_bytes, 1))

    def max_units(self, units: int, rows: int, budget: int | None) -> int:
        """Return how many of ``units`` units are computed in one pass over a chunk of ``rows`` rows."""
        max_rows = self.max_rows(1 if self.output[0].numel() > 2 * units else units, budget, enough=units * rows)
        return max(1, min(units, max_rows // rows))


def measure(tail: Tail, batch: Batch) -> Footprint:
    """Measure a few rows; a second, larger pass runs only if it is needed to subtract what does not grow with rows."""
    few = batch.cut(0, PROBE_ROWS)
    nbytes, activation, output = _graph_bytes(tail, few)

    @cache
    def measure_again() -> int:
        return max(_graph_bytes(tail, few.repeat(2))[0] - nbytes, 0) // few.rows

    return Footprint(activation.detach(), output.detach(), -(-nbytes // few.rows), measure_again)


def _graph_bytes(tail: Tail, batch: Batch) -> tuple[int, Tensor, Tensor]:
    """Return the bytes that autograd saves for one forward pass, and the pass's activation and output."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that saves its own output would never be freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        try:
            activation, output = tail.run(batch)
        except RuntimeError as error:
            if "nference tensor" not in str(error):
                raise
            with torch.no_grad():  # the model was made under inference mode and cannot have a graph
                activation, output = tail.run(batch)
    return sum(sizes.values()) + activation.nbytes + output.nbytes, activation, output


Renderer = Callable[..., Tensor]


def compose_renderer(field: ForwardFunc, render: Renderer) -> Callable[..., Tensor]:
    """Return a function from samples to pixels: ``field`` at all samples, then ``render`` of its outputs.

    The field maps (rays · samples, ...) to tensors with as many rows. The renderer maps these outputs as (rays,
    samples, ...), followed by the inputs, to (rays,) or (rays, channels). Other shapes raise a ValueError.
    """

    def pixels(*values: Any) -> Tensor:
        shape = tuple(values[0].shape)
        if len(shape) < 2:
            raise ValueError(
                f"an input has shape {shape}; with render= expected (rays, samples, ...): one row for each ray."
            )

        def flatten(value: Any) -> Any:
            return value.flatten(0, 1) if isinstance(value, Tensor) and tuple(value.shape[:2]) == shape[:2] else value

        def unfold(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.dim() == 0 or value.shape[0] != shape[0] * shape[1]:
                raise ValueError(
                    f"the field returned shape {tuple(value.shape)} for {shape[0]} rays of {shape[1]} samples; "
                    f"expected {shape[0] * shape[1]} rows, one for each sample."
                )
            return value.unflatten(0, shape[:2])

        result = render(tree_map(unfold, field(*map(flatten, values))), *values)
        if isinstance(result, Tensor) and result.dim() > 2:
            raise ValueError(
                f"render returned shape {tuple(result.shape)} for {shape[0]} rays of {shape[1]} samples; expected "
                "(rays,) or (rays, channels): reduce the samples, for example by a weighted sum."
            )
        return result

    return pixels


@dataclass(frozen=True)
class RayTail(Tail):
    """A :class:`Tail` whose rows are rays: (rays · samples, units, ...) becomes (rays, units, ..., samples).

    The contribution of a unit to a pixel is the sum over the ray's samples, as over the positions of a convolution.
    """

    def per_row(self, value: Tensor | tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the activation with its units on axis 1 and the samples last, or raise a LayerError."""
        activation, samples = self.tensor_of_layer(value, batch), batch.inputs[0].shape[1]
        if activation.dim() < 2 or activation.shape[0] != batch.rows * samples:
            raise LayerError(
                f"layer {self.name} returns shape {tuple(activation.shape)} for {batch.rows} rays of {samples} "
                "samples; expected (rays · samples, units, ...). Choose a layer of the field, in front of the "
                "renderer."
            )
        second = self._units_second(activation, ())
        by_ray: Tensor = second.unflatten(0, (batch.rows, samples)).movedim(1, -1)
        return by_ray

    def tensor_of_layer(self, value: Tensor | tuple[Tensor, ...], batch: Batch) -> Tensor:
        """Return the tensor of the field's layer, whose first axis holds the samples of all rays."""
        rows = batch.rows * batch.inputs[0].shape[1] if isinstance(value, tuple) else None
        return one_tensor(value, lambda: self.name, rows, at_input=self.at_input)

    def to_layer_axes(self, activation: Tensor) -> Tensor:
        """Return samples as rows, in new memory because the model may write into it."""
        samples: Tensor = activation.movedim(-1, 1).flatten(0, 1).clone()
        return super().to_layer_axes(samples)

    def move_baselines(self, baselines: float | Tensor, like: Tensor) -> float | Tensor:
        """Return baselines unchanged: they have the axes (rays, units, ..., samples)."""
        if self.is_complex and not isinstance(baselines, Tensor):
            return torch.tensor([[float(baselines)], [0.0]], device=like.device)  # the real and the imaginary part
        return baselines

    def move_selector(self, selector: Selector, like: Tensor) -> Selector:
        """Return the selector unchanged: tuples and functions refer to (rays, units, ..., samples)."""
        return selector


def are_frames(output_shape: tuple[int, ...], size: tuple[int, ...], rows: int) -> bool:
    """Return whether each row of the output is an image of ``size`` rather than a pixel of one."""
    ends = len(output_shape) >= len(size) and output_shape[len(output_shape) - len(size) :] == size
    return ends and not (len(output_shape) == 1 and rows == math.prod(size))
