"""How many rows fit into a memory budget, measured on a few of them."""

import torch
from torch import Tensor

from .batch import Batch
from .tail import Tail

DEFAULT_BUDGET = 256 << 20  # bytes of working memory, apart from the answer itself
SMALL = 256  # rows that are simply taken at once


def rows_at_once(tail: Tail, batch: Batch, answers_per_row: int, budget: int | None) -> int:
    """The rows of one chunk.

    Args:
        tail: the model seen from the layer.
        batch: all rows.
        answers_per_row: numbers that one row of the answer holds (units x outputs).
        budget: bytes of working memory; None is 256 MiB, and small batches are then not cut.

    Raises:
        ValueError: the budget is not positive.
    """
    if budget is not None and budget <= 0:
        raise ValueError(f"memory_budget is {budget}; wanted a positive number of bytes, or None for 256 MiB.")
    if batch.rows == 1 or (budget is None and batch.rows <= SMALL):
        return batch.rows
    few = min(4, batch.rows // 2)
    grown = _graph_bytes(tail, batch.cut(0, 2 * few)) - _graph_bytes(tail, batch.cut(0, few))
    item = batch.inputs[0].element_size() if batch.inputs[0].is_floating_point() else 4
    # The graph, the gradients that walk back through it, and the answer with one temporary.
    per_row = 2 * max(grown, 0) // few + 3 * answers_per_row * item
    return max(1, min(batch.rows, (budget or DEFAULT_BUDGET) // max(per_row, 1)))


def _graph_bytes(tail: Tail, batch: Batch) -> int:
    """Bytes that autograd keeps for one forward of these rows; what does not grow with rows cancels out above."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        activation, output = tail.run(batch)
    return sum(sizes.values()) + activation.nbytes + output.nbytes
