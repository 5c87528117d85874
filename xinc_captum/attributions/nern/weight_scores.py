"""Scores of a rebuilt network as functions of its generated weights, and their gradients, a row at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...batch import Batch, chunks
from ...hooks import LayerError, exchange
from ...targets import OutputFn, one_score_a_row, selected
from .convolutions import Convolution, parameter_name
from .nern import NeRN

Weights = dict[str, Tensor]


class WeightScores:
    """y(x; W): the selected outputs of a NeRN's target with given weights in place of its own.

    Args:
        nern: whose target is called.
        layers: those whose weights gradients are wanted of; the other represented layers hold their generated ones.
        output_fn: picks the tensor out of the target's output.
    """

    def __init__(self, nern: NeRN, layers: Sequence[Convolution], output_fn: OutputFn | None) -> None:
        self.layers, self.output_fn = layers, output_fn
        self._using = exchange(nern.target)
        with torch.no_grad():
            self.generated = nern.weights()

    def moved(self, change: Callable[[Tensor, Convolution], Tensor]) -> Weights:
        """The generated weights, those of the explained layers changed."""
        return self.generated | {one.name: change(self.generated[one.name], one) for one in self.layers}

    def network(self, weights: Weights) -> Callable[..., Any]:
        """The target with these weights."""
        return self._using({parameter_name(name): weight for name, weight in weights.items()})

    def score(self, weights: Weights, batch: Batch) -> Tensor:
        """(rows,)."""
        call = self.network(weights)
        return one_score_a_row(selected(batch.through(call), batch, self.output_fn))

    def scores(self, weights: Weights, batch: Batch, rows_at_once: int) -> Tensor:
        """(rows,), a chunk at a time and without gradients."""
        with torch.no_grad():
            return torch.cat([self.score(weights, batch.cut(*piece)) for piece in chunks(batch.rows, rows_at_once)])

    def gradients(self, weights: Weights, row: Batch) -> list[Tensor]:
        """∂y/∂W of each explained layer, for a batch of one row."""
        leaves = {one.name: weights[one.name].detach().requires_grad_() for one in self.layers}
        score = self.score(weights | leaves, row)
        found: Sequence[Tensor | None] = [None] * len(leaves)
        if score.requires_grad:
            found = torch.autograd.grad(score.sum(), list(leaves.values()), allow_unused=True)
        idle = [one.name for one, gradient in zip(self.layers, found, strict=True) if gradient is None]
        if idle:
            raise LayerError(
                f"the selected output does not depend on the weights of {', '.join(map(repr, idle))}: the layer never "
                "ran, or nothing differentiable leads from it to the target. Choose a layer that this model calls."
            )
        return [gradient.detach() for gradient in found if gradient is not None]

    def averaged(self, path: Callable[[float], Weights], row: Batch, n_steps: int) -> list[Tensor]:
        """∫₀¹ ∂y/∂W along a path of weights, by the midpoint rule."""
        sums: list[Tensor] | None = None
        for step in range(n_steps):
            found = self.gradients(path((step + 0.5) / n_steps), row)
            sums = found if sums is None else [a.add_(b) for a, b in zip(sums, found, strict=True)]
        assert sums is not None  # noqa: S101 - n_steps is at least 1
        return [total / n_steps for total in sums]
