"""Leave a model, and the process around it, exactly as found."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from .lock import exclusive
from .models import ForwardFunc, modules_behind
from .windows import closed, opened


@contextmanager
def untouched(model: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Put everything back when the block ends, also after an exception or Ctrl-C.

    Restored: train flags, ``requires_grad``, ``.grad`` (the same tensor objects with the same values), buffers,
    the random state of torch, numpy, Python and every CUDA device in use, autocast, gradient mode, TF32 and
    cuDNN switches. Hooks that were registered before the block are never looked at.

    Methods of this package in other threads can run meanwhile. Blocks of several threads may overlap: the state from
    before the first of them is back when the last has ended.

    Args:
        model: a module, or a function around modules (they are looked up behind it).
        also: further modules to protect, for functions behind which nothing can be seen.

    Example:
        >>> model = torch.nn.BatchNorm1d(3)
        >>> with untouched(model):
        ...     y = model.train()(torch.randn(8, 3))
        >>> model.running_mean
        tensor([0., 0., 0.])
    """
    roots = {id(m): m for m in (*modules_behind(model), *also)}
    modules = list({id(m): m for root in roots.values() for m in root.modules()}.values())
    with ExitStack() as stack:
        with exclusive():
            states = [_flags(modules), _parameters(modules), _buffers(modules)]
            windows = opened(map(id, modules), states), opened(["random states"], _random_states())
            for restore in _switches():
                stack.callback(restore)
            for window in windows:
                stack.callback(closed, window)
        yield


def _flags(modules: list[nn.Module]) -> Callable[[], None]:
    found = [(module, module.training) for module in modules]

    def restore() -> None:
        for module, training in found:
            module.training = training

    return restore


def _parameters(modules: list[nn.Module]) -> Callable[[], None]:
    """Gradients are set aside, not copied: whatever the block accumulates lands in a tensor of its own."""
    own = {id(p): p for module in modules for p in module.parameters(recurse=False)}
    found = [(p, p.requires_grad, p.grad) for p in own.values()]
    for p, _, grad in found:
        if grad is not None:
            p.grad = None

    def restore() -> None:
        for p, requires_grad, grad in found:
            if p.requires_grad is not requires_grad:
                p.requires_grad_(requires_grad)
            p.grad = grad

    return restore


def _buffers(modules: list[nn.Module]) -> Callable[[], None]:
    found = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
    ]

    def restore() -> None:
        with torch.inference_mode(False), torch.no_grad():
            for module, name, buffer, value in found:
                if buffer is not None and value is not None:
                    if buffer.is_inference():
                        with torch.inference_mode():
                            buffer.copy_(value)
                    else:
                        buffer.copy_(value)
                module._buffers[name] = buffer

    return restore


def _random_states() -> list[Callable[[], None]]:
    restores: list[Callable[[], None]] = []

    def keep(get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        state = get()
        restores.append(lambda: put(state))

    keep(torch.get_rng_state, torch.set_rng_state)
    keep(np.random.get_state, np.random.set_state)
    keep(random.getstate, random.setstate)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        keep(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    return restores


def _switches() -> list[Callable[[], None]]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    places: list[tuple[Any, str]] = [(cudnn, "enabled"), (cudnn, "benchmark"), (cudnn, "deterministic")]
    if hasattr(matmul, "fp32_precision"):  # reading the older names beside these raises, once a user has set these
        kinds = [getattr(cudnn, kind) for kind in ("conv", "rnn")]
        places += [(place, "fp32_precision") for place in (matmul, *kinds)]
    else:
        places += [(cudnn, "allow_tf32"), (matmul, "allow_tf32")]
    found = [(place, name, getattr(place, name)) for place, name in places]
    grad, devices = torch.is_grad_enabled(), ("cpu", "cuda")
    autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices]

    def restore() -> None:
        for place, name, value in found:
            if getattr(place, name) != value:
                setattr(place, name, value)
        torch.set_grad_enabled(grad)
        for device, enabled, dtype in autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)

    return [restore]
