"""The rows of one call: inputs, row-aligned arguments and targets, sliced or repeated together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .indices import python_index

Target = int | tuple[int | slice, ...] | Tensor | list[Any] | None


class Args(tuple[Any, ...]):
    """Additional arguments, and which of them hold one entry for each sample.

    Attributes:
        aligned: positions of the tensors that are cut and repeated along with the inputs; the others are passed whole.
        known: the model was run to find that out.
        stuck: why no batch but the whole one can be run; empty where samples can be cut.
    """

    aligned: frozenset[int]
    known: bool
    stuck: str

    def __new__(
        cls, values: Iterable[Any], aligned: Iterable[int] = (), known: bool = False, stuck: str = ""
    ) -> "Args":
        """Mark the arguments of a call."""
        self = super().__new__(cls, values)
        self.aligned, self.known, self.stuck = frozenset(aligned), known, stuck
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.aligned, self.known, self.stuck

    def replaced(self, values: Iterable[Any]) -> "Args":
        """Other values of the same meaning."""
        return Args(values, self.aligned, self.known, self.stuck)


@dataclass(frozen=True)
class Batch:
    """Inputs (each (rows, ...)), additional arguments and target of a forward call.

    Attributes:
        inputs: tensors that share their first dim, the rows.
        args: additional forward arguments; :class:`Args` names those that are sliced along. Of a plain tuple they are
            the tensors with as many rows as the whole batch, as in Captum, until :func:`xinc_captum.alignment.settled`
            has run the model.
        target: a Captum target; lists and 1-D tensors hold one entry a row.
        rows: number of rows.
        start: where these rows begin in the batch they were cut from.
    """

    inputs: tuple[Tensor, ...]
    args: tuple[Any, ...] = ()
    target: Target = None
    rows: int = -1
    start: int = 0

    @classmethod
    def of(cls, inputs: Tensor | tuple[Tensor, ...], args: Any = None, target: Target = None) -> "Batch":
        """Check and normalise what the user gave.

        Raises:
            TypeError: an input is no tensor.
            ValueError: no rows, or inputs whose rows differ.
        """
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        if not tensors or not all(isinstance(t, Tensor) for t in tensors):
            kinds = ", ".join(type(t).__name__ for t in tensors)
            raise TypeError(f"inputs are ({kinds}); wanted a tensor or a tuple of tensors with rows first.")
        rows = {t.shape[0] if t.dim() else 0 for t in tensors}
        if len(rows) > 1:
            raise ValueError(f"inputs have {sorted(rows)} rows; every input tensor needs the same number of rows.")
        if rows == {0}:
            raise ValueError(f"inputs have shape {tuple(tensors[0].shape)}: no rows to explain; give at least one.")
        own = tuple(t.clone() if t.is_inference() else t for t in tensors)
        given = () if args is None else args if isinstance(args, tuple) else (args,)
        given = _marked(given, len(own[0]))
        plain = (a.clone() if isinstance(a, Tensor) and a.is_inference() else a for a in given)
        return cls(own, given.replaced(plain), python_index(target), rows.pop())

    def through(self, forward_func: Callable[..., Any]) -> Any:
        """Return what a model makes of these samples. It gets copies of the inputs, since it may write into them."""
        return forward_func(*(t.clone() for t in self.inputs), *self.args)

    def cut(self, start: int, stop: int) -> "Batch":
        """Rows ``start`` to ``stop``."""
        if start == 0 and stop >= self.rows:
            return self
        taken = self._each(lambda t: t[start:stop], lambda xs: xs[start:stop])
        return replace(taken, rows=min(stop, self.rows) - start, start=self.start + start)

    def take(self, index: Tensor) -> "Batch":
        """The rows named by ``index``, in its order."""
        return replace(
            self._each(lambda t: t.index_select(0, index.to(t.device)), lambda xs: [xs[i] for i in index.tolist()]),
            rows=len(index),
        )

    def repeat(self, times: int) -> "Batch":
        """All rows, ``times`` over: row r of copy k is row k * rows + r."""
        if times == 1:
            return self
        repeated = self._each(lambda t: t.repeat(times, *[1] * (t.dim() - 1)), lambda xs: xs * times)
        return replace(repeated, rows=self.rows * times)

    def _each(self, tensor_op: Any, list_op: Any) -> "Batch":
        args = _marked(self.args, self.rows)
        if args.stuck:
            raise ValueError(args.stuck)
        target = self.target
        if isinstance(target, list) and len(target) == self.rows:
            target = list_op(target)
        elif isinstance(target, Tensor) and target.dim() == 1 and target.numel() == self.rows:
            target = tensor_op(target)
        return replace(
            self,
            inputs=tuple(tensor_op(t) for t in self.inputs),
            args=args.replaced(tensor_op(a) if at in args.aligned else a for at, a in enumerate(args)),
            target=target,
        )


def _marked(args: tuple[Any, ...], rows: int) -> Args:
    """Tensors with as many rows as the batch hold one entry for each, unless it is known already."""
    if isinstance(args, Args):
        return args
    return Args(args, (at for at, a in enumerate(args) if isinstance(a, Tensor) and a.dim() and a.shape[0] == rows))


def chunks(rows: int, size: int) -> list[tuple[int, int]]:
    """Start and stop of consecutive pieces of at most ``size`` rows."""
    size = max(1, size)
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]
