"""From what a model returns to one score a row."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ._compat import select_targets
from .batch import Batch

OutputFn = Callable[[Any], Tensor]


def called(forward_func: Callable[..., Any], output_fn: OutputFn | None, batch: Batch) -> Any:
    """Return what a model makes of a batch, after ``output_fn``."""
    output = forward_func(*batch.inputs, *batch.args)
    return output if output_fn is None else output_fn(output)


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
