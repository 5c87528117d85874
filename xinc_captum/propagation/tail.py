"""A model seen from one layer: the activation there, and the output that follows from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._compat import select_targets
from ..hooks import ForwardFunc, LayerError, capture, layer_name, patch
from .batch import Batch

OutputFn = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Tail:
    """What lies between a layer and the output.

    Attributes:
        forward_func: the whole model, called with inputs and additional arguments.
        layer: where the tail begins.
        at_input: the tail begins at what enters the layer, not at what leaves it.
        output_fn: picks the output tensor out of what the model returns.
    """

    forward_func: ForwardFunc
    layer: nn.Module
    at_input: bool = False
    output_fn: OutputFn | None = None

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

    def edited(self, batch: Batch, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """The output when the layer hands on ``edit(activation)``."""

        def edited(value: Any) -> Any:
            new = edit(self.per_row(self.single(value), batch))
            return (new,) if isinstance(value, tuple) else new

        with patch(self.forward_func, self.layer, edited, at_input=self.at_input):
            return self.output(batch)

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


def selected(output: Any, batch: Batch, output_fn: OutputFn | None) -> Tensor:
    """Pick the tensor out of a model's output, then the target out of the tensor.

    Raises:
        TypeError: the model returns no tensor and ``output_fn`` was not given.
        ValueError: the output has other rows than the inputs, or the target does not fit it.
    """
    if output_fn is not None:
        output = output_fn(output)
    if not isinstance(output, Tensor):
        keys = f" with keys {sorted(map(str, output))}" if isinstance(output, Mapping) else ""
        raise TypeError(
            f"the model returned a {type(output).__name__}{keys}, wanted a tensor; say which tensor to explain with "
            "output_fn=, for example output_fn=lambda output: output['logits']."
        )
    if output.dim() == 0 or output.shape[0] != batch.rows:
        raise ValueError(
            f"the model returned shape {tuple(output.shape)} for {batch.rows} input rows; wanted one output row per "
            "input row, rows first."
        )
    if batch.target is None:
        return output
    try:
        picked: Tensor = select_targets(output, batch.target)
        return picked
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"target {_short(batch.target)} does not fit the output's shape {tuple(output.shape)}: {error} Valid "
            "targets index the dims after the rows: an int, a tuple, or a list or 1-D tensor with one entry a row."
        ) from error


def _short(target: Any) -> str:
    return f"of shape {tuple(target.shape)}" if isinstance(target, Tensor) and target.dim() else repr(target)[:80]


def one_score_a_row(output: Tensor) -> Tensor:
    """Check that target selection left one number a row.

    Raises:
        ValueError: more is left.
    """
    if output.dim() == 2 and output.shape[1] == 1:
        output = output[:, 0]
    if output.dim() != 1:
        raise ValueError(
            f"target is missing or incomplete: the output still has shape {tuple(output.shape)}, wanted one number a "
            f"row. Give target= an index into {tuple(output.shape[1:])}, or reduce the output with output_fn=."
        )
    return output
