"""What every method that runs a model does first: wait for its turn, and protect the model."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .checkpoints import without_checkpoints
from .distributed import unsynchronised
from .lock import exclusive
from .models import ForwardFunc
from .untouched import untouched


@contextmanager
def guarded(model: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """:func:`untouched` inside :func:`exclusive`: no other thread meets the model while it is changed.

    ``DistributedDataParallel`` does not talk to other processes meanwhile, and parts with gradient checkpointing keep
    their activations.

    Not for blocks that hold code of the user, who may wait in it for a thread that wants its turn too.

    Example:
        >>> model = torch.nn.Dropout()
        >>> with guarded(model):
        ...     y = model.eval()(torch.ones(2))
        >>> model.training
        True
    """
    with exclusive(), untouched(model, *also), unsynchronised(model, *also), without_checkpoints():
        yield
