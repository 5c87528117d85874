"""Shared behaviour of all attribution classes: gradient mode, state restoration, output conversion."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from captum.log import log_usage
from torch import Tensor, nn

from ..hooks import ForwardFunc, LayerError, eager, exclusive, gradient_errors, modules_behind, protect, snapshot
from ..hooks.layout import parents_once

P = ParamSpec("P")
R = TypeVar("R")

_BATCH_NORM, _DROPOUT = nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd


def captum_method(method: Callable[P, R]) -> Callable[P, R]:
    """Decorate ``attribute`` as Captum expects (NoiseTunnel calls its ``__wrapped__``), with unchanged types.

    Calls from several threads run one after the other (:func:`xinc_captum.hooks.exclusive`).
    """
    decorated: Callable[P, R] = log_usage()(exclusive()(method))
    return decorated


@contextmanager
def attribution_context(forward_func: ForwardFunc, *other_modules: nn.Module) -> Iterator[None]:
    """Enable gradients, run compiled models eagerly (else hooks would be skipped), and restore all state on exit.

    The restored state is that of the models, PyTorch's flags and the random generators. Attributions in other threads
    wait. A part of the forward pass that records no gradient raises :class:`~xinc_captum.hooks.GradientError`.
    """
    if isinstance(forward_func, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise LayerError(
            f"forward_func is a {type(forward_func).__name__}: scripted and traced models run no Python hooks, so "
            "their layers cannot be read. Give the original torch.nn.Module."
        )
    for name, module in _in_training(forward_func, other_modules, _BATCH_NORM, _DROPOUT):
        warnings.warn(
            f"{type(module).__name__} {name!r} is in training mode, so the explanation depends on the batch "
            "or on random numbers; call model.eval() first unless this is intended.",
            stacklevel=4,
        )
        break
    errors = gradient_errors(forward_func, *other_modules)
    modes = torch.inference_mode(False), torch.enable_grad()
    with errors, modes[0], protect(forward_func, *other_modules), modes[1], eager(), parents_once():
        yield


def _in_training(
    forward_func: ForwardFunc, other_modules: tuple[nn.Module, ...], *kinds: type[nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of each module that is in training mode and of one of the classes ``kinds``."""
    for root in (*modules_behind(forward_func), *other_modules):
        for name, module in root.named_modules():
            if module.training and isinstance(module, kinds):
                yield name, module


def shares_statistics(forward_func: ForwardFunc, *other_modules: nn.Module) -> bool:
    """Return whether samples of a batch influence one another, because a batch norm is in training mode."""
    return any(True for _ in _in_training(forward_func, other_modules, _BATCH_NORM))


def differentiable(forward_func: ForwardFunc, *other_modules: nn.Module) -> ForwardFunc:
    """Return ``forward_func``, or a copy with ordinary weights if its weights were created in inference mode."""
    roots = (*modules_behind(forward_func), *other_modules)
    if any(p.is_inference() for root in roots for p in root.parameters()):
        return snapshot(forward_func, *other_modules)
    return forward_func


def as_called(forward_func: ForwardFunc, device: str) -> ForwardFunc:
    """Return a function that calls ``forward_func`` under the current autocast settings, wherever it is called."""
    if not torch.is_autocast_enabled(device):
        return forward_func
    dtype = torch.get_autocast_dtype(device)

    def call(*args: Any) -> Any:
        with torch.autocast(device, dtype):
            return forward_func(*args)

    return call


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor detached, contiguous, and in float32 where autocast reduced its precision."""
    if torch.is_autocast_enabled(tensor.device.type) and tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.detach().contiguous()


def as_explanation(method: Any) -> Callable[..., Any]:
    """Adapt the ``attribute`` of a layer method, also Captum's, to ``captum.metrics.sensitivity_max`` and the like.

    ``f(inputs, **kwargs) = method.attribute(inputs, **kwargs)``, as a tuple whenever ``inputs`` is one, as Captum's
    metrics expect; a tuple of one input is passed to the method as a tensor.

    Example:
        >>> from captum.metrics import sensitivity_max
        >>> from xinc_captum import LayerContribution
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        >>> sensitivity_max(as_explanation(LayerContribution(model, "1")), torch.rand(5, 2), target=0).shape
        torch.Size([5])

    Source: Yeh et al. 2019 for the metrics; Captum's own adapters do not cover layers.
    """

    def explain(inputs: Any, **kwargs: Any) -> Any:
        single = isinstance(inputs, tuple) and len(inputs) == 1
        result = method.attribute(inputs[0] if single else inputs, **kwargs)
        return (result,) if isinstance(inputs, tuple) and not isinstance(result, tuple) else result

    return explain
