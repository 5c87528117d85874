"""How many rows fit into a memory budget, measured on a few of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Batch
from .tail import Tail

DEFAULT_BUDGET = 256 << 20  # bytes of working memory, apart from the answer itself
FEW = 4


@dataclass(frozen=True)
class Footprint:
    """What a few rows showed.

    Attributes:
        activation: of those rows at the layer, (few, units, ...).
        output: of those rows, (few, *left).
        bytes_per_row: that the graph of one forward grows by with each row.
    """

    activation: Tensor
    output: Tensor
    bytes_per_row: int

    def rows(self, units: int, budget: int | None) -> int:
        """How many rows fit at once, for answers of so many units.

        Args:
            units: how many units each row of the answer has.
            budget: bytes of working memory; None is 256 MiB.

        Raises:
            ValueError: the budget is not positive.
        """
        if budget is not None and budget <= 0:
            raise ValueError(f"memory_budget is {budget}; wanted a positive number of bytes, or None for 256 MiB.")
        answer = units * self.output[0].numel() * self.output.element_size()
        # The graph, the gradients that walk back through it, and the answer with its temporaries.
        return max(1, (budget or DEFAULT_BUDGET) // max(2 * self.bytes_per_row + 3 * answer, 1))

    def stack(self, units: int, rows: int, budget: int | None) -> int:
        """How many units of so many rows are carried at once, the answer apart.

        Args:
            units: how many there are.
            rows: of a chunk.
            budget: as in :meth:`rows`.
        """
        alone = self.rows(1 if self.output[0].numel() > 2 * units else units, budget)
        return max(1, min(units, alone // rows))


def measure(tail: Tail, batch: Batch) -> Footprint:
    """Run a few rows once and twice over; what does not grow with rows cancels out."""
    few = batch.cut(0, FEW)
    once, activation, output = _graph_bytes(tail, few)
    twice, _, _ = _graph_bytes(tail, few.repeat(2))
    return Footprint(activation.detach(), output.detach(), max(twice - once, 0) // few.rows)


def _graph_bytes(tail: Tail, batch: Batch) -> tuple[int, Tensor, Tensor]:
    """Bytes that autograd keeps for one forward of these rows, and the forward's activation and output."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        activation, output = tail.run(batch)
    return sum(sizes.values()) + activation.nbytes + output.nbytes, activation, output
