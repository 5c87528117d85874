"""Tell which thread a hook runs in: hooks stay on the module for all threads, and must act for one call only."""

import sys
import threading
from collections.abc import Callable

from torch import nn
from torch.nn.parallel.parallel_apply import parallel_apply


def of_this_thread() -> Callable[[nn.Module], bool]:
    """A function for hooks: whether the module that they are called for runs for the thread of now.

    That is the thread that called this, or one in which ``torch.nn.DataParallel`` runs a replica for it.

    Example:
        >>> ours = of_this_thread()
        >>> ours(torch.nn.ReLU())
        True
    """
    owner = threading.get_ident()

    def ours(module: nn.Module) -> bool:
        if threading.get_ident() == owner:
            return True
        return bool(getattr(module, "_is_replica", False)) and _waits_for_this_thread(owner)

    return ours


def _waits_for_this_thread(owner: int) -> bool:
    """Whether the owner is inside DataParallel's ``parallel_apply``, which started this thread."""
    frame = sys._current_frames().get(owner)
    while frame is not None and frame.f_code is not parallel_apply.__code__:
        frame = frame.f_back
    return frame is not None and threading.current_thread() in frame.f_locals.get("threads", ())
