"""From what a model returns to one score a row."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ._compat import select_targets
from .batch import Batch

OutputFn = Callable[[Any], Tensor]


def called(forward_func: Callable[..., Any], output_fn: OutputFn | None, batch: Batch) -> Any:
    """Return what a model makes of a batch, after ``output_fn``."""
    output = batch.through(forward_func)
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
        what, access = tensor_named(output)
        raise TypeError(
            f"the model returned a {what}, wanted a tensor; say which tensor to explain with "
            f"output_fn=, for example output_fn=lambda output: output{access}."
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


def tensor_named(output: Any) -> tuple[str, str]:
    """Describe an output that is no tensor, and how to pick its most likely scores, for error messages.

    Example:
        >>> from torch import zeros
        >>> tensor_named({"aux": zeros(2, 3), "logits": zeros(2, 3)})
        ("dict with keys ['aux', 'logits']", "['logits']")
        >>> tensor_named((zeros(2, 3), None))
        ('tuple of (Tensor, NoneType)', '[0]')
    """
    name = type(output).__name__
    if isinstance(output, Mapping):
        return f"{name} with keys {sorted(map(str, output))}", f"[{_likeliest(dict(output), 'logits')!r}]"
    fields = getattr(output, "_fields", None)
    if dataclasses.is_dataclass(output):
        fields = [field.name for field in dataclasses.fields(output)]
    if fields is None and isinstance(output, tuple | list):
        inside = ", ".join(type(part).__name__ for part in output[:8])
        return f"{name} of ({inside})", f"[{_likeliest(dict(enumerate(output)), 0)}]"
    if fields is None:
        fields = [key for key, value in getattr(output, "__dict__", {}).items() if isinstance(value, Tensor)]
    if not fields:
        return name, "[...]"
    likeliest = _likeliest({key: getattr(output, key, None) for key in fields}, "logits")
    return f"{name} with fields {[*map(str, fields)]}", f".{likeliest}"


def _likeliest(parts: Mapping[Any, Any], otherwise: Any) -> Any:
    """The key of the scores among the parts of an output: by a usual name, else the first floating-point tensor."""
    floats = [key for key, part in parts.items() if isinstance(part, Tensor) and part.is_floating_point()]
    usual = [key for key in ("logits", "scores", "out", "output") if key in floats]
    return [*usual, *floats, otherwise][0]


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
