"""Models of several processes: keep DistributedDataParallel silent, and refuse what sharded weights cannot give."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .models import ForwardFunc, LayerError, modules_behind


@contextmanager
def unsynchronised(model: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Let ``DistributedDataParallel`` run its module without a word to the other processes while the block runs.

    Otherwise each forward pass sends buffers to all ranks, which waits for ever where only one rank explains, and
    prepares a reduction of gradients that never comes, which makes the next training step fail.

    Example:
        >>> with unsynchronised(torch.nn.Linear(2, 1)):
        ...     pass
    """
    roots = (*modules_behind(model, wrapped=True), *also)
    parallel = {m for root in roots for m in root.modules() if isinstance(m, DistributedDataParallel)}
    found = [(m, m.require_backward_grad_sync, m.require_forward_param_sync) for m in parallel]
    try:
        for m, _, _ in found:
            m.require_backward_grad_sync = m.require_forward_param_sync = False
        yield
    finally:
        for m, backward, forward in found:
            m.require_backward_grad_sync, m.require_forward_param_sync = backward, forward


def is_sharded(roots: Iterable[nn.Module]) -> bool:
    """Whether FSDP holds a part of each weight in each process (``fully_shard`` or ``FullyShardedDataParallel``)."""
    if "torch.distributed.fsdp" not in sys.modules:  # nothing was sharded; the import would take its time
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(m, FSDPModule | FullyShardedDataParallel) for root in roots for m in root.modules())


def refuse_sharded(roots: Iterable[nn.Module], what: str) -> None:
    """Raise before anything runs, so that all ranks raise and none waits for another.

    Raises:
        LayerError: the weights are sharded.
    """
    if is_sharded(roots):
        raise LayerError(
            f"the model is sharded (torch.distributed.fsdp), and {what} needs whole weights in each process. Load "
            "the full state dict into a model that is not sharded, and explain that one "
            "(torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True)."
        )
