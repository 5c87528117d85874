"""Run the parts of a model that use gradient checkpointing as if they did not."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """A block in which ``torch.utils.checkpoint`` keeps activations instead of computing them again.

    A checkpointed part runs twice, once without gradients or with hooks that are gone by then, so that its layers would
    seem to run more than once or not to lead to the output. Values and gradients are the same; only memory differs.

    The caller is inside :func:`exclusive`. Training steps of other threads keep their activations meanwhile.

    Example:
        >>> from torch.utils.checkpoint import checkpoint
        >>> layer, x = torch.nn.Linear(2, 1), torch.ones(1, 2)
        >>> with without_checkpoints():
        ...     y = checkpoint(layer, x, use_reentrant=True)
        >>> y.requires_grad
        True
    """
    module: Any = sys.modules.get("torch.utils.checkpoint")
    places: list[tuple[Any, str, Any]] = []
    if module is not None:  # versions of torch use one or the other of the generators
        places = [(module, name, _nothing_around) for name in _GENERATORS if hasattr(module, name)]
        places.append((module.CheckpointFunction, "apply", _called))
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in places]
    try:
        for owner, name, new in places:
            setattr(owner, name, new)
        yield
    finally:
        for owner, name, old in before:
            if old is not None:
                setattr(owner, name, old)
            elif name in vars(owner):  # a method of a base class
                delattr(owner, name)


def _called(function: Callable[..., Any], _preserve: bool, *args: Any) -> Any:
    return function(*args)


def _nothing_around(*_args: Any, **_options: Any) -> Iterator[None]:
    """What torch runs around the function: one step before it and one after it."""
    yield
