"""What every attribution class of this package owes its caller, written once."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from captum.log import log_usage
from torch import Tensor, nn

from ..hooks import (
    ForwardFunc,
    LayerError,
    eager,
    exclusive,
    gradient_errors,
    modules_behind,
    protect,
    snapshot,
)

P = ParamSpec("P")
R = TypeVar("R")

_UNSTEADY = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def captum_method(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate ``attribute`` as Captum expects (NoiseTunnel calls its ``__wrapped__``), keeping its types.

    Calls of several threads run one after the other (:func:`xinc_captum.hooks.exclusive`).
    """
    decorated: Callable[P, R] = log_usage()(exclusive()(method))
    return decorated


@contextmanager
def attribution_context(forward_func: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Run explanations under any surroundings and leave everything as found.

    Gradients are on whatever the caller switched off, compiled models run eagerly (their hooks would be skipped
    silently), and model, flags and random states are put back at the end. Other threads that explain wait.

    Raises:
        GradientError: part of the forward pass records no gradient where one is needed.
    """
    _refuse_scripted(forward_func)
    _warn_if_training(forward_func, also)
    errors = gradient_errors(forward_func, *also)
    with errors, torch.inference_mode(False), protect(forward_func, *also), torch.enable_grad(), eager():
        yield


def differentiable(forward_func: ForwardFunc, *also: nn.Module) -> ForwardFunc:
    """``forward_func`` itself, or one with ordinary weights where they were made under inference mode."""
    roots = (*modules_behind(forward_func), *also)
    if any(p.is_inference() for root in roots for p in root.parameters()):
        return snapshot(forward_func, *also)
    return forward_func


def as_called(forward_func: ForwardFunc, device: str) -> ForwardFunc:
    """``forward_func`` under the autocast of now, whatever it is called under."""
    if not torch.is_autocast_enabled(device):
        return forward_func
    dtype = torch.get_autocast_dtype(device)

    def call(*args: Any) -> Any:
        with torch.autocast(device, dtype):
            return forward_func(*args)

    return call


def _refuse_scripted(forward_func: ForwardFunc) -> None:
    if isinstance(forward_func, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise LayerError(
            f"forward_func is a {type(forward_func).__name__}: scripted and traced models run no Python hooks, so "
            "their layers cannot be read. Give the original torch.nn.Module."
        )


def _warn_if_training(forward_func: ForwardFunc, also: tuple[nn.Module, ...]) -> None:
    for root in (*modules_behind(forward_func), *also):
        for name, module in root.named_modules():
            if module.training and isinstance(module, _UNSTEADY):
                warnings.warn(
                    f"{type(module).__name__} {name!r} is in training mode, so the explanation depends on the batch "
                    "or on chance; call model.eval() first if that is not meant.",
                    stacklevel=5,
                )
                return


def shares_statistics(forward_func: ForwardFunc, *also: nn.Module) -> bool:
    """Whether rows of a batch change one another: a batch norm in training mode."""
    roots = (*modules_behind(forward_func), *also)
    return any(m.training and isinstance(m, _UNSTEADY[1]) for root in roots for m in root.modules())


def plain(tensor: Tensor) -> Tensor:
    """Detached, contiguous, and float32 where autocast made it narrower."""
    if torch.is_autocast_enabled(tensor.device.type) and tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.detach().contiguous()


def as_explanation(method: Any) -> Callable[..., Any]:
    """Adapt a layer method to Captum's metrics, which pass inputs as a tuple and expect a tuple back.

    ``f(inputs, **kwargs) = method.attribute(inputs, **kwargs)``, as a tuple whenever ``inputs`` is one; a single
    input is handed to the method as a plain tensor.

    Args:
        method: an object with ``attribute``, ours or Captum's own (its layer methods fail without this too).

    Returns:
        a function for ``captum.metrics.sensitivity_max`` and the like.

    Example:
        >>> from captum.metrics import sensitivity_max
        >>> from xinc_captum import LayerContribution, as_explanation
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> explain = as_explanation(LayerContribution(model, "1"))
        >>> sensitivity_max(explain, torch.rand(5, 2), target=0, n_perturb_samples=2).shape
        torch.Size([5])

    Source: Yeh et al. 2019 for the metrics; Captum's own adapters do not cover layers.
    """

    def explain(inputs: Any, **kwargs: Any) -> Any:
        alone = isinstance(inputs, tuple) and len(inputs) == 1
        answer = method.attribute(inputs[0] if alone else inputs, **kwargs)
        return (answer,) if isinstance(inputs, tuple) and not isinstance(answer, tuple) else answer

    return explain
