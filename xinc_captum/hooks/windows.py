"""Restore state in the right order where blocks of several threads overlap."""

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from .lock import exclusive

Restore = Callable[[], None]


@dataclass(eq=False)
class Window:
    """State that a block restores at its end.

    Attributes:
        places: what the state belongs to.
        restores: functions that restore it.
        thread: the thread of the block.
    """

    places: frozenset[int | str]
    restores: list[Restore]
    thread: int = field(default_factory=threading.get_ident)


_open: list[Window] = []  # in the order of their beginnings; read and changed inside exclusive()


def opened(places: Iterable[int | str], restores: Iterable[Restore]) -> Window:
    """Register a block that begins. The caller is inside :func:`exclusive` and has just read the state."""
    window = Window(frozenset(places), list(restores))
    _open.append(window)
    return window


def closed(window: Window) -> None:
    """End a block: restore its state, or leave that to a later block of another thread that overlaps and still runs.

    A block that began in the middle of another one has read what the first had changed. If the first restored the
    model under the second, the second would work on a changed model and would end with the state of the first block's
    inside.
    """
    with exclusive():
        at = _open.index(window)
        later = [w for w in _open[at + 1 :] if w.places & window.places and w.thread != window.thread]
        del _open[at]
        if later:
            later[0].restores[:0] = window.restores  # run after its own: the last in the list is run first
            return
        with ExitStack() as stack:  # a failure of one does not keep the others from running
            for restore in window.restores:
                stack.callback(restore)


def _after_fork() -> None:
    """A child process has only the thread that forked: other threads' blocks never end in it."""
    _open[:] = [window for window in _open if window.thread == threading.get_ident()]


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
