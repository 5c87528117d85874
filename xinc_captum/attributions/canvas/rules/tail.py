"""Model from a layer on; rays; memory budget."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ....batch import Batch, OutputFn, select_output
from ....hooks import ForwardFunc, LayerError, capture, layer_name, one_tensor, patch, unit_axis
from ....selectors import OneUnit, Selector, list_units


@dataclass(frozen=True)
class Tail:
    """What lies between a layer and the output.

    Attributes:
        forward_func: the whole model, called with inputs and additional arguments.
        layer: where the tail begins.
        at_input: the tail begins at what enters the layer, not at what leaves it.
        output_fn: picks the output tensor out of what the model returns.
        together: the recorded forward pass that this tail shares with others, if any.
        unit_axis: which axis of the activation holds the units; None determines it (:func:`unit_axis` of hooks).
    """

    forward_func: ForwardFunc
    layer: nn.Module
    at_input: bool = False
    output_fn: OutputFn | None = None
    together: Any = field(default=None, repr=False, compare=False)
    unit_axis: int | None = None
    _axes: dict[bool, int] = field(default_factory=dict, repr=False, compare=False)  # found, by at_input

    @property
    def place(self) -> tuple[nn.Module, bool]:
        """Where the tail begins."""
        return self.layer, self.at_input

    @property
    def name(self) -> str:
        """The layer's name, for messages."""
        return layer_name(self.forward_func, self.layer)

    def output(self, batch: Batch) -> Tensor:
        """The selected output, (rows, *left)."""
        return select_output(batch.through(self.forward_func), batch, self.output_fn)

    def run(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Activation (rows, units, ...) and output (rows, *left), the second in the graph of the first."""
        with capture(self.forward_func, self.layer, at_input=self.at_input) as captured:
            output = self.output(batch)
        return self.per_row(self.single(captured[self.layer]), batch), output

    def per_row(self, activation: Tensor, batch: Batch) -> Tensor:
        """The activation with its units on axis 1, (rows, units, ...).

        Raises:
            LayerError: rows are folded together or do not come first, or the unit axis cannot be determined.
        """
        rows = one_tensor(activation, lambda: self.name, batch.rows, at_input=self.at_input)
        return self._units_second(rows, tuple(batch.inputs[0].shape))

    def handed_on(self, activation: Tensor) -> Tensor:
        """From the form in which :meth:`per_row` shows an activation to the layer's own."""
        axis = self._axes.get(self.at_input, 1)
        return activation if axis == 1 else activation.movedim(1, axis).contiguous()  # the model may view it

    def baselines(self, given: Tensor, like: Tensor) -> Tensor:
        """A tensor that broadcasts to the layer's own activation, for an activation as :meth:`per_row` shows it."""
        axis = self._axes.get(self.at_input, 1)
        if axis == 1 or given.dim() > like.dim():
            return given
        return given.reshape(*[1] * (like.dim() - given.dim()), *given.shape).movedim(axis, 1)

    def selector(self, given: Selector, like: Tensor) -> Selector:
        """Captum's selectors of the layer's own activation, for an activation as :meth:`per_row` shows it.

        Args:
            given: ints count units; tuples and functions refer to the layer's own axes.
            like: such an activation.
        """
        axis = self._axes.get(self.at_input, 1)
        if axis == 1 or given is None:
            return given
        own = self.handed_on(like)
        if not isinstance(given, list):
            return _moved(given, axis, own)  # type: ignore[arg-type]
        return [_moved(one, axis, own) for one in given]

    def _units_second(self, activation: Tensor, entered: tuple[int, ...]) -> Tensor:
        if activation.dim() <= 2:
            return activation
        axis = self._axes.get(self.at_input)
        if axis is None:
            axis = self._axes[self.at_input] = unit_axis(
                activation.shape,
                self.layer,
                self.forward_func,
                entered=entered,
                requested=self.unit_axis,
                at_input=self.at_input,
            )
        return activation if axis == 1 else activation.movedim(axis, 1)

    def edited(self, batch: Batch, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """The output when the layer hands on ``edit(activation)``."""
        with self.patched(batch, edit):
            return self.output(batch)

    def patched(self, batch: Batch, edit: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        """The layer hands on ``edit(activation)`` while the block runs the model once."""

        def edited(value: Any) -> Tensor:
            return self.handed_on(edit(self.per_row(self.single(value), batch)))

        return patch(self.forward_func, self.layer, edited, at_input=self.at_input)

    def single(self, value: Tensor | tuple[Tensor, ...]) -> Tensor:
        """The activation as one float tensor, or an error that names the layer."""
        return one_tensor(value, lambda: self.name, at_input=self.at_input)


def _moved(one: OneUnit, axis: int, own: Tensor) -> OneUnit:
    """One selector for an activation whose axis ``axis`` was moved to place 1."""
    if isinstance(one, tuple):
        (checked,) = list_units(own, one)  # errors show the layer's own axes
        index: tuple[int | slice, ...] = checked  # type: ignore[assignment]
        return (index[axis - 1], *index[: axis - 1], *index[axis:])
    if callable(one):
        function = one
        return lambda activation: function(activation.movedim(1, axis))
    return one


DEFAULT_BUDGET = 256 << 20  # bytes of working memory, apart from the answer itself
FEW = 4


@dataclass(frozen=True)
class Footprint:
    """What a few rows showed.

    Attributes:
        activation: of those rows at the layer, (few, units, ...).
        output: of those rows, (few, *left).
        at_most: bytes that the graph of one forward grows by with each row, its share of what all rows have in common
            included.
        another: the bytes without that, which takes another run.
    """

    activation: Tensor
    output: Tensor
    at_most: int
    another: Callable[[], int]

    @cached_property
    def bytes_per_row(self) -> int:
        """That the graph of one forward grows by with each row."""
        return self.another()

    def rows(self, units: int, budget: int | None, enough: int | None = None) -> int:
        """How many rows fit at once, for answers of so many units.

        Args:
            units: how many units each row of the answer has.
            budget: bytes of working memory; None is 256 MiB.
            enough: no need to look closer where at least so many fit.

        Raises:
            ValueError: the budget is not positive.
        """
        if budget is not None and budget <= 0:
            raise ValueError(f"memory_budget is {budget}; expected a positive number of bytes, or None for 256 MiB.")
        answer = 3 * units * self.output[0].numel() * self.output.element_size()  # with its temporaries
        for_sure = max(1, (budget or DEFAULT_BUDGET) // max(2 * self.at_most + answer, 1))
        if enough is not None and for_sure >= enough:
            return for_sure
        # The graph, and the gradients that walk back through it.
        return max(1, (budget or DEFAULT_BUDGET) // max(2 * self.bytes_per_row + answer, 1))

    def stack(self, units: int, rows: int, budget: int | None) -> int:
        """How many units of so many rows are carried at once, the answer apart.

        Args:
            units: how many there are.
            rows: of a chunk.
            budget: as in :meth:`rows`.
        """
        alone = self.rows(1 if self.output[0].numel() > 2 * units else units, budget, enough=units * rows)
        return max(1, min(units, alone // rows))


def measure(tail: Tail, batch: Batch) -> Footprint:
    """Run a few rows once, and twice over where that leaves doubts; what does not grow with rows cancels out."""
    few = batch.cut(0, FEW)
    once, activation, output = _graph_bytes(tail, few)

    def another() -> int:
        return max(_graph_bytes(tail, few.repeat(2))[0] - once, 0) // few.rows

    return Footprint(activation.detach(), output.detach(), -(-once // few.rows), another)


def _forward(tail: Tail, batch: Batch) -> tuple[Tensor, Tensor]:
    """The activation and the output, without a graph where a model under inference mode has none."""
    try:
        return tail.run(batch)
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
    with torch.no_grad():
        return tail.run(batch)


def _graph_bytes(tail: Tail, batch: Batch) -> tuple[int, Tensor, Tensor]:
    """Bytes that autograd keeps for one forward of these rows, and the forward's activation and output."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that saves its own output would hold itself, for ever

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        activation, output = _forward(tail, batch)
    return sum(sizes.values()) + activation.nbytes + output.nbytes, activation, output


Renderer = Callable[..., Tensor]


def rendered(field: ForwardFunc, render: Renderer) -> Callable[..., Tensor]:
    """From samples to pixels: the field at all samples as rows of their own, then ``render`` of what it answered.

    Args:
        field: takes (rays · samples, ...) and answers tensors with as many rows.
        render: takes these as (rays, samples, ...), then the inputs as they came; answers (rays,) or (rays, channels).

    Raises:
        ValueError: inputs without samples, a field that answers other rows, or a renderer that keeps the samples.

    Example:
        >>> mean = rendered(torch.nn.Linear(3, 1), lambda answers, points: answers.mean(1))
        >>> mean(torch.rand(5, 7, 3)).shape
        torch.Size([5, 1])
    """

    def pixels(*values: Any) -> Tensor:
        shape = tuple(values[0].shape)
        if len(shape) < 2:
            raise ValueError(
                f"an input has shape {shape}; with render= expected (rays, samples, ...), a ray's samples in its row."
            )

        def flat(value: Any) -> Any:
            return value.flatten(0, 1) if isinstance(value, Tensor) and tuple(value.shape[:2]) == shape[:2] else value

        def folded(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.dim() == 0 or value.shape[0] != shape[0] * shape[1]:
                raise ValueError(
                    f"the field answered shape {tuple(value.shape)} for {shape[0]} rays of {shape[1]} samples; "
                    "expected "
                    f"{shape[0] * shape[1]} rows, one for each sample."
                )
            return value.unflatten(0, shape[:2])

        answer = render(tree_map(folded, field(*map(flat, values))), *values)
        if isinstance(answer, Tensor) and answer.dim() > 2:
            raise ValueError(
                f"render answered shape {tuple(answer.shape)} for {shape[0]} rays of {shape[1]} samples; expected "
                "(rays,) or (rays, channels): weigh and sum the samples."
            )
        return answer

    return pixels


@dataclass(frozen=True)
class RayTail(Tail):
    """A :class:`Tail` whose rows are rays: (rays · samples, units, ...) is shown as (rays, units, ..., samples).

    A unit's part of a pixel is then the sum over the ray's samples, as over the places of a convolution.
    """

    def per_row(self, activation: Tensor, batch: Batch) -> Tensor:
        """See :meth:`Tail.per_row`.

        Raises:
            LayerError: the layer's rows are no samples of the rays.
        """
        samples = batch.inputs[0].shape[1]
        if activation.dim() < 2 or activation.shape[0] != batch.rows * samples:
            raise LayerError(
                f"layer {self.name} hands over shape {tuple(activation.shape)} for {batch.rows} rays of {samples} "
                "samples; expected (rays · samples, units, ...). Choose a layer of the field, in front of the "
                "renderer."
            )
        second = self._units_second(activation, ())
        by_ray: Tensor = second.unflatten(0, (batch.rows, samples)).movedim(1, -1)
        return by_ray

    def handed_on(self, activation: Tensor) -> Tensor:
        """Samples as rows again, in memory of their own, so that the model may write into it."""
        samples: Tensor = activation.movedim(-1, 1).flatten(0, 1).clone()
        return super().handed_on(samples)

    def baselines(self, given: Tensor, like: Tensor) -> Tensor:
        """See :meth:`Tail.baselines`: given as (rays, units, ..., samples)."""
        return given

    def selector(self, given: Selector, like: Tensor) -> Selector:
        """See :meth:`Tail.selector`: tuples and functions refer to (rays, units, ..., samples)."""
        return given
