"""Whether a model switches gradients off while it runs, and whether they are off in a block of its own now."""

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_OFF: ContextVar[bool] = ContextVar("gradients are off in a no_grad block of the model", default=False)


def in_no_grad_block() -> bool:
    """Return whether the model is in a ``no_grad`` block of its own.

    False in the forward pass of a custom autograd Function, where gradients are off too, but what is computed has a
    derivative. Known only inside of :class:`GradModes`.
    """
    return _OFF.get()


class GradModes(TorchFunctionMode):
    """Notes what a model that runs inside does with gradients.

    Attributes:
        toggled: the model has switched them off or on: forward mode would walk through, backward does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.toggled = False
        self._before: Token[bool] | None = None

    def __enter__(self) -> "GradModes":
        self._before = _OFF.set(False)
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self._before is not None:
            _OFF.reset(self._before)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            self.toggled = True
            # Gradients that are off already, outside of a block, were switched off by a custom autograd Function.
            _OFF.set(not args[0] and (torch.is_grad_enabled() or _OFF.get()))
        return func(*args, **(kwargs or {}))
