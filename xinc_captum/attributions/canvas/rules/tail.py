"""A model seen from one layer: the activation there, and the output that follows from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ....batch import Batch
from ....hooks import (
    ForwardFunc,
    capture,
    layer_name,
    one_tensor,
    patch,
    unit_axis,
)
from ....targets import OutputFn, selected
from ....units import OneUnit, Selector, listed


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
        return selected(batch.through(self.forward_func), batch, self.output_fn)

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
                asked=self.unit_axis,
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
        (checked,) = listed(own, one)  # errors show the layer's own axes
        index: tuple[int | slice, ...] = checked  # type: ignore[assignment]
        return (index[axis - 1], *index[: axis - 1], *index[axis:])
    if callable(one):
        function = one
        return lambda activation: function(activation.movedim(1, axis))
    return one
