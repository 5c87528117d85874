"""Some rows, run once for the tails of several layers."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from ....batch import Batch
from .carried import Carried
from .derivative import Along, Run, independent
from .grad_modes import GradModes
from .tail import Tail
from .trace import Trace, traced


class Together:
    """The last recorded forward pass; every tail that was given reads its own part off it.

    Args:
        tails: of one model, whose rows are cut alike.
    """

    def __init__(self, tails: Sequence[Tail]) -> None:
        self._tails = list(tails)
        self._runs: tuple[Any, dict[Any, Run]] = (None, {})
        self._traces: tuple[Any, dict[Any, Trace]] = (None, {})

    def run(self, tail: Tail, batch: Batch, along: Along) -> Run:
        """A tail's part of a run with its gradients; what no unit holds is left to who knows the units."""
        key = (batch.start, batch.rows, along)
        if self._runs[0] != key:
            self._runs = (None, {})  # make room before the next graph grows
            self._runs = (key, self._recorded(batch, along))
        ran = self._runs[1][tail.place]
        if not ran.output.requires_grad:
            raise independent(tail)
        return ran

    def trace(self, tail: Tail, batch: Batch) -> Trace | None:
        """A tail's part of a chain, or None where it is not in the common one."""
        key = (batch.start, batch.rows)
        if self._traces[0] != key:
            self._traces = (None, {})
            self._traces = (key, traced(self._tails, batch))
        return self._traces[1].get(tail.place)

    def _recorded(self, batch: Batch, along: Along) -> dict[Any, Run]:
        nodes: dict[Any, Tensor] = {}

        def beginning(tail: Tail) -> Any:
            def begin(activation: Tensor) -> Tensor:
                if isinstance(activation, Carried):
                    nodes[tail.place] = activation.value
                    return activation.copied()
                node = activation if activation.requires_grad else activation.detach().requires_grad_()
                nodes[tail.place] = node
                return along.start(node.clone(), None)

            return begin

        with GradModes(), ExitStack() as stack:
            for tail in self._tails:
                stack.enter_context(tail.patched(batch, beginning(tail)))
            output, _ = along.finish(self._tails[0].output(batch))
        return {place: Run(node, output, None, True) for place, node in nodes.items()}
