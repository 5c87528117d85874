"""Run a forward pass no further than the layers that are wanted."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from torch import nn

from .capture import Captured, capture
from .models import ForwardFunc
from .threads import of_this_thread


class _Reached(BaseException):
    """Ends the pass; no Exception, so that a model's own handlers let it through."""


def reach(forward_func: ForwardFunc, layers: Sequence[nn.Module], call: Callable[[], Any]) -> Captured:
    """What ``layers`` hand over when ``call()`` runs the model, which stops after the last of them.

    Under DataParallel, whose threads cannot be stopped, the pass runs to its end. A layer that would run again later
    in the pass is not noticed; one full pass under :func:`capture` notices.

    Args:
        forward_func: the model that ``call`` runs.
        layers: modules whose outputs are recorded.
        call: runs the forward pass.

    Raises:
        LayerError: as :func:`capture`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(9, 9))
        >>> reach(model, [model[1]], lambda: model(torch.ones(4, 2)))[model[1]].shape
        torch.Size([4, 3])
    """
    waiting, ours = set(layers), of_this_thread()

    def passed(module: nn.Module, _args: Any, _output: Any) -> None:
        if not ours(module):
            return
        waiting.discard(module)
        if not waiting:
            raise _Reached

    with capture(forward_func, layers) as captured, ExitStack() as stack:
        if not isinstance(getattr(forward_func, "__self__", forward_func), nn.DataParallel):
            for layer in layers:
                stack.callback(layer.register_forward_hook(passed).remove)
        with suppress(_Reached):
            call()
    return captured
