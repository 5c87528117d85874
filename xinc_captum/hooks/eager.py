"""Run compiled models eagerly for the length of a block, so that their hooks fire."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_blocks = 0  # the stance of torch.compile belongs to the process: the first block sets it, the last one restores it
_stance: Any = None


@contextmanager
def eager() -> Iterator[None]:
    """A block in which ``torch.compile``d models run as written; a compiled graph would skip hooks silently.

    Blocks of several threads may overlap.
    """
    global _blocks, _stance
    # Only a process that compiled something has torch._dynamo loaded; importing it here would cost seconds.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _lock:
        if not _blocks:
            _stance = torch.compiler.set_stance("force_eager")
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                _stance.__exit__(None, None, None)
