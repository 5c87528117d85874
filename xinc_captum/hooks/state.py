"""Restore the state of a model and of the process, call a model with other weights, and give threads turns."""

import operator
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel.parallel_apply import parallel_apply
from torch.nn.parameter import is_lazy

from .layers import ForwardFunc, LayerError, modules_behind, modules_below, refuse_sharded

_GENERATORS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Make ``torch.utils.checkpoint`` keep activations in the block instead of computing them again.

    A checkpointed part runs twice, the second time without the hooks or the first time without gradients. Its layers
    would seem to run more than once, or not to lead to the output. Values and gradients are the same; only memory
    differs. The caller must be inside :func:`exclusive`. Training steps of other threads also keep their activations
    during the block.
    """
    module: Any = sys.modules.get("torch.utils.checkpoint")
    places: list[tuple[Any, str, Any]] = []
    if module is not None:  # versions of torch use one or the other of the generators
        places = [(module, name, _empty_context) for name in _GENERATORS if hasattr(module, name)]
        places.append((module.CheckpointFunction, "apply", lambda function, _preserve, *args: function(*args)))
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in places]
    try:
        for owner, name, new in places:
            setattr(owner, name, new)
        yield
    finally:
        for owner, name, old in before:
            if old is not None:
                setattr(owner, name, old)
            elif name in vars(owner):  # a method of a base class
                delattr(owner, name)


def _empty_context(*_args: Any, **_options: Any) -> Iterator[None]:
    """Yield once, in place of the generator that torch runs around a checkpointed function."""
    yield


class _Turns:
    """The lock, a queue that makes it fair, and how many nested blocks the current thread is in."""

    def __init__(self) -> None:
        self.lock, self.queue, self.local = threading.Lock(), threading.Lock(), threading.local()


_turns = _Turns()


@contextmanager
def exclusive() -> Iterator[None]:
    """Run the block in one thread at a time, under a lock for the whole process.

    Every method of this package that runs a model holds this lock. One lock serves all models, because such a call also
    changes shared state: PyTorch has one default random generator, one stance of ``torch.compile`` and one level of
    forward-mode differentiation (``torch.func.jvp``) for the process, models can share submodules, and the modules
    behind a forward function may be unknown. The lock is re-entrant, and threads get it in the order of their arrival.

    Use it around your own code that must not run at the same time, such as a training step.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> with exclusive():  # no other thread explains the model during the block
        ...     model(torch.ones(1, 2)).sum().backward()
    """
    turns = _turns  # a fork replaces it
    depth = getattr(turns.local, "depth", 0)
    if not depth:
        with turns.queue:  # a thread that releases the lock and acquires it again queues behind the waiting ones
            turns.lock.acquire()
    turns.local.depth = depth + 1
    try:
        yield
    finally:
        turns.local.depth = depth
        if not depth:
            turns.lock.release()


def of_this_thread() -> Callable[[nn.Module], bool]:
    """Return a function for hooks that tells whether a module runs for the current thread.

    It does in the thread that called this function, and in those in which ``torch.nn.DataParallel`` runs a replica for
    that thread.
    """
    owner = threading.get_ident()

    def ours(module: nn.Module) -> bool:
        if threading.get_ident() == owner:
            return True
        return bool(getattr(module, "_is_replica", False)) and _waits_for_this_thread(owner)

    return ours


def _waits_for_this_thread(owner: int) -> bool:
    """Return whether the owner is inside DataParallel's ``parallel_apply``, which started this thread."""
    frame = sys._current_frames().get(owner)
    while frame is not None and frame.f_code is not parallel_apply.__code__:
        frame = frame.f_back
    return frame is not None and threading.current_thread() in frame.f_locals.get("threads", ())


Restore = Callable[[], None]

# transformers registers hooks in a model's first forward pass and marks the model. The hooks are not removed, so the
# mark stays too: without it, the next pass would register them again and return each hidden state twice.
LASTING = frozenset({"_output_capturing_hooks_installed"})


@dataclass(eq=False)
class _Window:
    """State that a block of a thread restores at its end."""

    places: frozenset[int | str]  # the ids of the modules, or the name of the process state
    restores: list[Restore]
    thread: int = field(default_factory=threading.get_ident)


_open: list[_Window] = []  # in the order of their beginnings; read and changed inside exclusive()


def _open_window(places: Iterable[int | str], restores: list[Restore]) -> _Window:
    """Register the start of a block. The caller must be inside :func:`exclusive` and have just read the state."""
    window = _Window(frozenset(places), restores)
    _open.append(window)
    return window


def _close_window(window: _Window) -> None:
    """End a block and restore its state.

    If a later block of another thread is still open, that block restores the state when it ends: it read the state that
    the first one had changed. Restoring earlier would change the model during the later block, which would then restore
    the changed state.
    """
    with exclusive():
        at = _open.index(window)
        later = [w for w in _open[at + 1 :] if w.places & window.places and w.thread != window.thread]
        del _open[at]
        if later:
            later[0].restores[:0] = window.restores  # they run after its own: the last in the list runs first
            return
        with ExitStack() as stack:  # all run, also if one of them fails
            for restore in window.restores:
                stack.callback(restore)


def _forget_other_threads_after_fork() -> None:
    """Replace the lock, and drop the blocks, of threads that do not exist in a child process."""
    global _turns
    if not getattr(_turns.local, "depth", 0):
        _turns = _Turns()
    _open[:] = [window for window in _open if window.thread == threading.get_ident()]


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_other_threads_after_fork)


@contextmanager
def untouched(model: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Restore the state of a model and of the process when the block ends, also after an exception or Ctrl-C.

    Restored are: train flags and every other plain attribute of the modules (the same object again; entries that a
    forward pass adds to a list or dict stay in it), ``requires_grad``, ``.grad`` (the same tensor objects with the same
    values), buffers (the same objects, values and version counters, so that a ``backward()`` of a graph from before the
    block still works), the random state of torch, numpy, Python and every CUDA device in use, autocast, gradient mode,
    TF32 and cuDNN switches. Hooks that were registered before the block are unchanged. Parameters are not copied: if
    the block changes one in place, as a forward pass of ``nn.Embedding(max_norm=…)`` does, a warning names it.

    Methods of this package in other threads can run during the block. Blocks of several threads may overlap: the state
    from before the first of them is restored when the last one ends.

    Args:
        model: a module, or a function around modules (they are found by their references).
        also: further modules to protect, for functions whose modules cannot be found.

    Raises:
        LayerError: a parameter of a lazy module has no shape yet; the first forward pass would change the module.

    Example:
        >>> model = torch.nn.BatchNorm1d(3)
        >>> with untouched(model):
        ...     y = model.train()(torch.randn(8, 3))
        >>> model.running_mean
        tensor([0., 0., 0.])
    """
    modules = modules_below((*modules_behind(model), *also))
    _refuse_lazy(modules)
    with ExitStack() as stack:
        with exclusive():
            states, random_states = [_attributes(modules), _buffers(modules)], _random_states()
            states.append(_parameters(modules))  # the last, because it already changes something: it clears .grad
            windows = _open_window(map(id, modules), states), _open_window(["random states"], random_states)
            stack.callback(_switches())
            for window in windows:
                stack.callback(_close_window, window)
        yield


def _refuse_lazy(modules: list[nn.Module]) -> None:
    lazy = next((m for m in modules if any(is_lazy(t) for _, _, t in tensor_places([m]))), None)
    if lazy is not None:
        raise LayerError(
            f"{type(lazy).__name__} has parameters or buffers without a shape: a lazy module turns into another one in "
            "its first forward pass. Call the model once on an input, then explain it."
        )


def _attributes(modules: list[nn.Module]) -> Restore:
    """Return a function that restores all attributes of modules besides tensors: train flags, caches, counters."""
    states = [(module, module.training, dict(module.__dict__)) for module in modules]

    def restore() -> None:
        for module, training, attributes in states:
            _restore_entries(module.__dict__, attributes)
            if module.training is not training:  # TorchScript keeps the flag elsewhere
                module.training = training

    return restore


def _restore_entries(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Make a dict hold its earlier objects again."""
    if len(now) == len(before) and all(map(operator.is_, now.values(), before.values())):
        return
    for name in [name for name in now if name not in before and name not in LASTING]:
        del now[name]
    now.update(before)


def _parameters(modules: list[nn.Module]) -> Restore:
    """Clear gradients, without copies, and return a function that restores them and ``requires_grad``."""
    unique = {id(p): p for module in modules for p in module._parameters.values() if p is not None}
    states = [(p, p.requires_grad, p.grad, _version(p)) for p in unique.values()]
    for p, _, grad, _ in states:
        if grad is not None:
            p.grad = None

    def restore() -> None:
        rewritten = []
        for p, requires_grad, grad, version in states:
            if p.requires_grad is not requires_grad:
                p.requires_grad_(requires_grad)
            p.grad = grad
            if _version(p) != version:
                rewritten.append(id(p))
        if rewritten:
            owner = next(m for m in modules if any(id(p) in rewritten for p in m._parameters.values()))
            name = next(name for name, p in owner._parameters.items() if id(p) in rewritten)
            warnings.warn(
                f"parameter {name!r} of an {type(owner).__name__} layer was changed in place during the explanation, "
                "by the model's own forward pass or by another thread. Parameters are not copied, so it keeps the new "
                "values.",
                stacklevel=2,
            )

    return restore


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was written to; -1 for inference tensors, which have no counter."""
    return -1 if tensor.is_inference() else tensor._version


def _buffers(modules: list[nn.Module]) -> Restore:
    states = [(module, dict(module._buffers.items())) for module in modules]
    unique = {id(buffer): buffer for _, buffers in states for buffer in buffers.values() if buffer is not None}
    values = [(buffer, buffer.detach().clone()) for buffer in unique.values()]
    # Restored buffers also get their old version, or the backward pass of graphs from before the block would fail.
    versions = [None if b.is_inference() else _unsafe_preserve_version_counter(b) for b in unique.values()]

    def restore() -> None:
        for (buffer, value), version in zip(values, versions, strict=True):
            # The version alone is not enough: torch's batch norm writes without counting. On other devices than the
            # CPU a comparison would wait for the device, so the values are always written there.
            if not (buffer.device.type == "cpu" and _equal(buffer, value)):
                with torch.inference_mode(version is None), torch.no_grad():
                    _write(buffer, value)
            if version is not None:
                version.__exit__(None, None, None)
        for module, buffers in states:
            if not isinstance(module, torch.jit.ScriptModule):  # its places are fixed
                _restore_entries(module._buffers, buffers)

    return restore


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same values; False if torch cannot compare them, as for sparse ones."""
    comparable = one.layout is torch.strided and not one.is_nested and one.dtype is other.dtype
    return comparable and torch.equal(one, other)


def _write(buffer: Tensor, value: Tensor) -> None:
    """Write the values into a buffer, also if it has another shape now or repeats its entries, as after expand."""
    if buffer.is_nested:
        buffer.copy_(value)
        return
    if buffer.shape != value.shape or buffer.dtype is not value.dtype:
        buffer.data = value
        return
    if buffer.layout is torch.strided and 0 in buffer.stride():
        once = tuple(slice(1) if step == 0 else slice(None) for step in buffer.stride())
        buffer, value = buffer[once], value[once]
    buffer.copy_(value)


def _random_states() -> list[Restore]:
    restores: list[Restore] = []

    def keep(get: Callable[[], Any], put: Callable[[Any], Any]) -> None:
        state = get()
        restores.append(lambda: put(state))

    keep(torch.get_rng_state, torch.set_rng_state)
    keep(np.random.get_state, np.random.set_state)
    keep(random.getstate, random.setstate)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        keep(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    return restores


def _switches() -> Restore:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    places: list[tuple[Any, str]] = [(cudnn, "enabled"), (cudnn, "benchmark"), (cudnn, "deterministic")]
    if hasattr(matmul, "fp32_precision"):  # reading the older names raises an error once a user has set these
        kinds = [getattr(cudnn, kind) for kind in ("conv", "rnn")]
        places += [(place, "fp32_precision") for place in (matmul, *kinds)]
    else:
        places += [(cudnn, "allow_tf32"), (matmul, "allow_tf32")]
    states = [(place, name, getattr(place, name)) for place, name in places]
    grad, devices = torch.is_grad_enabled(), ("cpu", "cuda")
    autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in devices]

    def restore() -> None:
        for place, name, value in states:
            if getattr(place, name) != value:
                setattr(place, name, value)
        torch.set_grad_enabled(grad)
        for device, enabled, dtype in autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)

    return restore


@contextmanager
def protect(model: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Combine :func:`untouched` and :func:`exclusive`: no other thread uses the model while it is changed.

    ``DistributedDataParallel`` does not communicate with other processes during the block, and parts with gradient
    checkpointing keep their activations. Do not use it around code of the user, which may wait for a thread that needs
    the same lock.
    """
    with exclusive(), untouched(model, *also), no_synchronization(model, *also), without_checkpoints():
        yield


@contextmanager
def no_synchronization(model: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Stop ``DistributedDataParallel`` from communicating with other processes while the block runs.

    Otherwise each forward pass sends buffers to all ranks, which blocks for ever if only one rank explains. It also
    prepares a reduction of gradients that never happens, so that the next training step fails.
    """
    roots = (*modules_behind(model, wrapped=True), *also)
    parallel = {m for root in roots for m in root.modules() if isinstance(m, DistributedDataParallel)}
    flags = [(m, m.require_backward_grad_sync, m.require_forward_param_sync) for m in parallel]
    try:
        for m, _, _ in flags:
            m.require_backward_grad_sync = m.require_forward_param_sync = False
        yield
    finally:
        for m, backward, forward in flags:
            m.require_backward_grad_sync, m.require_forward_param_sync = backward, forward


Place = tuple[Any, str, Any]  # a module's _parameters, _buffers, _modules or __dict__; a name in it; its value
_ABSENT: Any = object()


def tensor_places(modules: Iterable[nn.Module]) -> list[Place]:
    """Return every place where a module stores a parameter or buffer; shared and tied tensors have several."""
    return [
        (tensors, name, tensor)
        for module in modules
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]


@contextmanager
def swap_values(places: Iterable[Place], modules: Iterable[nn.Module]) -> Iterator[None]:
    """Replace values of modules by those of ``places`` while the block runs, and restore the original objects after it.

    ``modules`` are those that may run. An RNN among them has a second list of its weights, which its forward pass
    rebuilds whenever a weight is another object; that list is restored too.
    """
    second = ("_flat_weights", "_flat_weight_refs")
    lists = [(m.__dict__, name, m.__dict__.get(name)) for m in modules if isinstance(m, nn.RNNBase) for name in second]
    before: list[Place] = []
    try:
        for container, name, value in places:
            before.append((container, name, container[name] if name in container else _ABSENT))  # noqa: SIM401 - no get in TorchScript
            container[name] = value
        yield
    finally:
        for container, name, value in (*reversed(before), *lists):
            if value is _ABSENT:
                del container[name]
            else:
                container[name] = value


def snapshot(
    forward_func: ForwardFunc, *also: nn.Module, change: Callable[[Tensor], Tensor] | None = None
) -> Callable[..., Any]:
    """Return a function that computes what ``forward_func`` computes now, also after further training of the model.

    Parameters and buffers of its modules, and of ``also``, are copied once; ``change`` is applied to every copied
    parameter, for example to compare with a model of shuffled weights. Each call uses the copies and then restores the
    user's own tensor objects, also after an exception. Train flags are those at the snapshot. Buffers that a module in
    training mode updates start each call with the same values. Modules that are not found behind ``forward_func`` are
    called in their current state.
    """
    roots = list({id(m): m for m in (*modules_behind(forward_func), *also)}.values())
    refuse_sharded(roots, "a copy of its weights (a canvas, or the shuffled control of .trust)")
    modules = modules_below(roots)
    copies: dict[int, Tensor] = {}
    places: list[Place] = []
    updated: list[Place] = []  # buffers that a forward pass in training mode may rewrite
    with torch.inference_mode(False):  # ordinary copies even of weights made under inference mode
        for module in modules:
            for tensors, name, tensor in tensor_places([module]):
                is_buffer = tensors is module._buffers
                if id(tensor) not in copies:
                    copy = tensor.detach().clone()
                    copies[id(tensor)] = copy if change is None or is_buffer else change(copy)
                (updated if is_buffer and module.training else places).append((tensors, name, copies[id(tensor)]))
    for module in modules:
        if not isinstance(module, torch.jit.ScriptModule):
            places += [(module._modules, name, child) for name, child in module._modules.items()]
    flags = [(module, module.training) for module in modules]

    def frozen(*args: Any) -> Any:
        now = [(module, module.training) for module, _ in flags]
        fresh = {id(value): value.clone() for _, _, value in updated}
        try:
            for module, training in flags:
                module.training = training
            buffers = [(container, name, fresh[id(value)]) for container, name, value in updated]
            with swap_values([*places, *buffers], modules):
                return forward_func(*args)
        finally:
            for module, training in now:
                module.training = training

    return frozen


def exchange(forward_func: ForwardFunc) -> Callable[[Mapping[str, Tensor]], ForwardFunc]:
    """Return a function of weights: ``exchange(f)(weights)`` computes ``f`` with these weights; gradients reach them.

    ``forward_func`` is a module, or a function around exactly one; ``weights`` are tensors by name. During a call they
    replace the model's own, under every name of a shared module or a tied weight; then the model's own objects are
    restored, also after an exception. Only weights and buffers made under inference mode are copied, to ordinary ones.

    Raises:
        KeyError: a name is not that of a parameter or buffer of the model.
        ValueError: two different replacements for two names of one tensor.
    """
    roots = modules_behind(forward_func)
    root, modules = roots[0], modules_below(roots)
    with torch.inference_mode(False):
        ordinary = {id(t): t.detach().clone() for _, _, t in tensor_places(modules) if t.is_inference()}

    def with_weights(weights: Mapping[str, Tensor]) -> ForwardFunc:
        named = dict(root.named_parameters(remove_duplicate=False)) | dict(root.named_buffers(remove_duplicate=False))
        unknown = [name for name in weights if name not in named]
        if unknown:
            raise KeyError(f"{unknown[0]!r} is not a parameter or buffer of {type(root).__name__}.")
        replacements = dict(ordinary)
        names_by_id: dict[int, str] = {}
        for name, weight in weights.items():
            tensor_id = id(named[name])
            other = names_by_id.setdefault(tensor_id, name)
            if weights[other] is not weight:
                raise ValueError(f"{other!r} and {name!r} are one tensor of the model; give it one replacement.")
            replacements[tensor_id] = weight
        tensors = tensor_places(modules)
        places = [(place, name, replacements[id(t)]) for place, name, t in tensors if id(t) in replacements]

        def call(*args: Any) -> Any:
            with swap_values(places, modules):
                return forward_func(*args)

        return call

    return with_weights
