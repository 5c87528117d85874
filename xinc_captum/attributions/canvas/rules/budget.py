"""How many rows fit into a memory budget, measured on a few of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ....batch import Batch
from .tail import Tail

DEFAULT_BUDGET = 256 << 20  # bytes of working memory, apart from the answer itself
FEW = 4


@dataclass(frozen=True)
class Footprint:
    """What a few rows showed.

    Attributes:
        activation: of those rows at the layer, (few, units, ...).
        output: of those rows, (few, *left).
        at_most: bytes that the graph of one forward grows by with each row, its share of what all rows have in common
            included.
        another: the bytes without that, which takes another run.
    """

    activation: Tensor
    output: Tensor
    at_most: int
    another: Callable[[], int]

    @cached_property
    def bytes_per_row(self) -> int:
        """That the graph of one forward grows by with each row."""
        return self.another()

    def rows(self, units: int, budget: int | None, enough: int | None = None) -> int:
        """How many rows fit at once, for answers of so many units.

        Args:
            units: how many units each row of the answer has.
            budget: bytes of working memory; None is 256 MiB.
            enough: no need to look closer where at least so many fit.

        Raises:
            ValueError: the budget is not positive.
        """
        if budget is not None and budget <= 0:
            raise ValueError(f"memory_budget is {budget}; wanted a positive number of bytes, or None for 256 MiB.")
        answer = 3 * units * self.output[0].numel() * self.output.element_size()  # with its temporaries
        for_sure = max(1, (budget or DEFAULT_BUDGET) // max(2 * self.at_most + answer, 1))
        if enough is not None and for_sure >= enough:
            return for_sure
        # The graph, and the gradients that walk back through it.
        return max(1, (budget or DEFAULT_BUDGET) // max(2 * self.bytes_per_row + answer, 1))

    def stack(self, units: int, rows: int, budget: int | None) -> int:
        """How many units of so many rows are carried at once, the answer apart.

        Args:
            units: how many there are.
            rows: of a chunk.
            budget: as in :meth:`rows`.
        """
        alone = self.rows(1 if self.output[0].numel() > 2 * units else units, budget, enough=units * rows)
        return max(1, min(units, alone // rows))


def measure(tail: Tail, batch: Batch) -> Footprint:
    """Run a few rows once, and twice over where that leaves doubts; what does not grow with rows cancels out."""
    few = batch.cut(0, FEW)
    once, activation, output = _graph_bytes(tail, few)

    def another() -> int:
        return max(_graph_bytes(tail, few.repeat(2))[0] - once, 0) // few.rows

    return Footprint(activation.detach(), output.detach(), -(-once // few.rows), another)


def _forward(tail: Tail, batch: Batch) -> tuple[Tensor, Tensor]:
    """The activation and the output, without a graph where a model under inference mode has none."""
    try:
        return tail.run(batch)
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
    with torch.no_grad():
        return tail.run(batch)


def _graph_bytes(tail: Tail, batch: Batch) -> tuple[int, Tensor, Tensor]:
    """Bytes that autograd keeps for one forward of these rows, and the forward's activation and output."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an operation that saves its own output would hold itself, for ever

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        activation, output = _forward(tail, batch)
    return sum(sizes.values()) + activation.nbytes + output.nbytes, activation, output
