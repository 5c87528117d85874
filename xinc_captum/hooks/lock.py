"""One lock for the process: calls of this package in several threads run one after the other."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Turns:
    """The lock, a queue that makes it fair, and how deep the current thread is inside it."""

    def __init__(self) -> None:
        self.lock, self.queue, self.own = threading.Lock(), threading.Lock(), threading.local()


_turns = _Turns()


@contextmanager
def exclusive() -> Iterator[None]:
    """Wait until no other thread is inside such a block, and keep the others out while this one runs.

    Every method of this package that runs a model is inside one. One lock serves all models, because the state that
    such a call changes is not that of one model alone: PyTorch has one default random generator, one stance of
    ``torch.compile`` and one level of forward-mode differentiation (``torch.func.jvp``) for the whole process, models
    can share submodules, and a forward function can hide the modules that it runs. The lock is re-entrant, and threads
    get it in the order of their arrival.

    Use it around code of your own that must not meet a call in another thread, such as a training step.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with exclusive():  # no other thread explains the model meanwhile
        ...     model(torch.ones(1, 2)).sum().backward()
        ...     optimizer.step()
    """
    turns = _turns
    depth = getattr(turns.own, "depth", 0)
    if not depth:
        with turns.queue:  # a thread that gives the lock back and wants it again queues behind those that wait
            turns.lock.acquire()
    turns.own.depth = depth + 1
    try:
        yield
    finally:
        turns.own.depth = depth
        if not depth:
            turns.lock.release()


def _after_fork() -> None:
    """A child process has only the thread that forked: a lock that another thread held would stay locked."""
    global _turns
    if not getattr(_turns.own, "depth", 0):
        _turns = _Turns()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
