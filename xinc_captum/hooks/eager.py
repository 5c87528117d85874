"""Run compiled models eagerly for the length of a block, so that their hooks fire."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def eager() -> AbstractContextManager[Any]:
    """A block in which ``torch.compile``d models run as written; a compiled graph would skip hooks silently."""
    # Only a process that compiled something has torch._dynamo loaded; importing it here would cost seconds.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
