"""Some rows at a layer, run once: maps are pushed to the output, weights are pulled back from it."""

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from ....batch import Batch, chunks
from .chain import Chain, chain
from .derivative import Along, Run, run
from .push import Push
from .tail import Tail


class Linearised:
    """The derivative of a tail at some rows, kept for many questions.

    Args:
        tail: from the layer's output (or input) on.
        batch: the rows.
        along: which derivative.
        slot: at the layer, what no unit holds.
        per_eval: maps that are pushed at once.

    Attributes:
        activation: at the layer, (rows, units, ...).
        output: (rows, *left).
        slot: what arrives and belongs to no unit, (rows, *left); None under the tangent.
    """

    def __init__(
        self, tail: Tail, batch: Batch, along: Along, slot: Tensor | None = None, per_eval: int | None = None
    ) -> None:
        self._tail, self._batch, self._along, self._start = tail, batch, along, slot
        self._per_eval = max(1, per_eval or 1)
        self._chain: Chain | None = chain(tail, batch, along.slope, slot)
        seen = self._graph if self._chain is None else self._chain
        self.activation, self.output, self.slot = seen.activation.detach(), seen.output.detach(), seen.slot

    @cached_property
    def _graph(self) -> Run:
        alone = replace(self._tail, together=None)  # frames that are no chain are run for each layer
        return run(alone, self._batch, self._along, self._start)

    @cached_property
    def _push(self) -> Push:
        return Push(self._tail, self._batch, self._along, self._graph)

    @property
    def left(self) -> tuple[int, ...]:
        """Dims of one row of the output."""
        return tuple(self.output.shape[1:])

    def push(self, maps: Tensor, channel: int) -> Tensor:
        """(rows, k, *space) in one channel of the layer → (rows, k, *left)."""
        answer = maps.new_empty((*maps.shape[:2], *self.left), dtype=self.output.dtype)
        for first, last in chunks(maps.shape[1], self._per_eval):
            some = maps[:, first:last]
            if self._chain is not None:
                answer[:, first:last] = self._chain.carry(some, channel)
                continue
            parts = self.activation.new_zeros((last - first, *self.activation.shape))
            parts[:, :, channel] = some.movedim(1, 0)
            answer[:, first:last] = self._push(parts).movedim(0, 1)
        return answer

    def push_all(self, parts: Tensor) -> Tensor:
        """(rows, *activation) of parts in every channel → (rows, *left)."""
        if self._chain is not None:
            return self._chain.carry_all(parts)
        return self._push(parts[None])[0]

    def pull(self, weights: Tensor) -> Tensor:
        """Gradient of Σ weights · output at the layer: (n, rows, *left) → (n, rows, *activation)."""
        graph = self._graph
        return torch.stack(
            [
                torch.autograd.grad(graph.output, graph.activation, w, retain_graph=True, materialize_grads=True)[0]
                for w in weights
            ]
        )
