"""A model seen from one layer: the activation there, and the output that follows from it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..batch import Batch
from ..hooks import ForwardFunc, LayerError, capture, layer_name, patch
from ..targets import OutputFn, selected


@dataclass(frozen=True)
class Tail:
    """What lies between a layer and the output.

    Attributes:
        forward_func: the whole model, called with inputs and additional arguments.
        layer: where the tail begins.
        at_input: the tail begins at what enters the layer, not at what leaves it.
        output_fn: picks the output tensor out of what the model returns.
        together: the recorded forward pass that this tail shares with others, if any.
    """

    forward_func: ForwardFunc
    layer: nn.Module
    at_input: bool = False
    output_fn: OutputFn | None = None
    together: Any = field(default=None, repr=False, compare=False)

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
        return selected(self.forward_func(*batch.inputs, *batch.args), batch, self.output_fn)

    def run(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Activation (rows, units, ...) and output (rows, *left), the second in the graph of the first."""
        with capture(self.forward_func, self.layer, at_input=self.at_input) as captured:
            output = self.output(batch)
        return self.per_row(self.single(captured[self.layer]), batch), output

    def per_row(self, activation: Tensor, batch: Batch) -> Tensor:
        """Check that the layer's rows are the input's.

        Raises:
            LayerError: rows are folded together or do not come first.
        """
        if activation.dim() == 0 or activation.shape[0] != batch.rows:
            raise LayerError(
                f"layer {self.name} hands over shape {tuple(activation.shape)} for {batch.rows} input rows; wanted "
                "rows first, one per input row. Choose a layer before rows are folded or moved, or after they are back."
            )
        return activation

    def handed_on(self, activation: Tensor) -> Tensor:
        """From the form in which :meth:`per_row` shows an activation to the layer's own."""
        return activation

    def edited(self, batch: Batch, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """The output when the layer hands on ``edit(activation)``."""
        with self.patched(batch, edit):
            return self.output(batch)

    def patched(self, batch: Batch, edit: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        """The layer hands on ``edit(activation)`` while the block runs the model once."""

        def edited(value: Any) -> Any:
            new = self.handed_on(edit(self.per_row(self.single(value), batch)))
            return (new,) if isinstance(value, tuple) else new

        return patch(self.forward_func, self.layer, edited, at_input=self.at_input)

    def single(self, value: Any) -> Tensor:
        """The activation as one float tensor, or an error that names the layer."""
        if isinstance(value, tuple) and len(value) == 1:
            value = value[0]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            seen = f"a tuple of {len(value)} tensors" if isinstance(value, tuple) else type(value).__name__
            seen = str(value.dtype) if isinstance(value, Tensor) else seen
            raise LayerError(
                f"layer {self.name} hands over {seen}; wanted one floating-point tensor (rows, units, ...). "
                "Choose a module inside or next to it that handles a single tensor."
            )
        return value
