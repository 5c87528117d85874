"""Call a model with other weights."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .layers import ForwardFunc, LayerError, modules_behind


@contextmanager
def no_synchronization(model: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Stop ``DistributedDataParallel`` from communicating with other processes while the block runs.

    Otherwise each forward pass sends buffers to all ranks, which blocks for ever if only one rank explains. It also
    prepares a reduction of gradients that never happens, so that the next training step fails.

    Example:
        >>> with no_synchronization(torch.nn.Linear(2, 1)):
        ...     pass
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


def is_sharded(roots: Iterable[nn.Module]) -> bool:
    """Return whether FSDP splits weights between processes (``fully_shard`` or ``FullyShardedDataParallel``)."""
    if "torch.distributed.fsdp" not in sys.modules:  # nothing was sharded; importing it is slow
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(m, FSDPModule | FullyShardedDataParallel) for root in roots for m in root.modules())


def refuse_sharded(roots: Iterable[nn.Module], what: str) -> None:
    """Raise an error for sharded weights before anything runs, so that all ranks raise it and none waits.

    Raises:
        LayerError: the weights are sharded.
    """
    if is_sharded(roots):
        raise LayerError(
            f"the model is sharded (torch.distributed.fsdp), and {what} needs whole weights in each process. Load the "
            "full state dict into a model that is not sharded, and explain that one "
            "(torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True)."
        )


Place = tuple[Any, str, Any]  # a module's _parameters, _buffers, _modules or __dict__; a name in it; its value
_ABSENT: Any = object()


def modules_below(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the roots and all their submodules, each once."""
    return list({id(module): module for root in roots for module in root.modules()}.values())


def tensor_places(modules: Iterable[nn.Module]) -> list[Place]:
    """Return every place where one of ``modules`` stores a parameter or buffer.

    A tensor that several modules share, or that one module has under two names, is listed once for each of them.
    """
    return [
        (tensors, name, tensor)
        for module in modules
        for tensors in (module._parameters, module._buffers)
        for name, tensor in tensors.items()
        if tensor is not None
    ]


@contextmanager
def swap_values(places: Iterable[Place], modules: Iterable[nn.Module]) -> Iterator[None]:
    """Replace values of modules while the block runs, and restore the original objects after it.

    Args:
        places: the new values and where they belong.
        modules: those that may run. An RNN among them has a second list of its weights, which its forward pass rebuilds
            whenever a weight is another object; that list is restored too.
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

    Parameters and buffers are copied once. Each call uses the copies and then restores the user's own tensor objects,
    also after an exception. Train flags are those of now. Buffers that a module in training mode updates start each
    call with the same values. Modules that are not found behind ``forward_func`` are called in their current state.

    Args:
        forward_func: a module, or a function around modules.
        also: further modules to copy.
        change: applied to every copied parameter, for example to compare with a model of shuffled weights.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> frozen, before = snapshot(model), model(torch.ones(1, 1))
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> bool(frozen(torch.ones(1, 1)) == before)
        True
    """
    roots = list({id(m): m for m in (*modules_behind(forward_func), *also)}.values())
    refuse_sharded(roots, "a copy of its weights (a canvas, or the shuffled control of .trust)")
    modules = modules_below(roots)
    copies: dict[int, Tensor] = {}
    places: list[Place] = []
    updated: list[Place] = []  # buffers that a forward pass in training mode may rewrite
    with torch.inference_mode(False):  # ordinary copies even of weights made under inference mode
        for module in modules:
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in copies:
                        copy = tensor.detach().clone()
                        changed = change is not None and tensors is module._parameters
                        copies[id(tensor)] = change(copy) if changed else copy  # type: ignore[misc]
                    place = (tensors, name, copies[id(tensor)])
                    (updated if tensors is module._buffers and module.training else places).append(place)
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
            with swap_values(
                [*places, *((container, name, fresh[id(value)]) for container, name, value in updated)], modules
            ):
                return forward_func(*args)
        finally:
            for module, training in now:
                module.training = training

    return frozen


def exchange(forward_func: ForwardFunc) -> Callable[[Mapping[str, Tensor]], ForwardFunc]:
    """Return a function of weights: ``exchange(f)(weights)`` computes ``f`` with these weights; gradients reach them.

    Nothing is copied. During a call the given tensors replace the model's own, under every name of a shared module or a
    tied weight; then the model's own objects are restored, also after an exception. Weights and buffers made under
    inference mode are replaced by ordinary copies.

    Args:
        forward_func: a module, or a function around exactly one.

    Raises:
        KeyError: a name is not that of a parameter or buffer of the model.
        ValueError: two different replacements for two names of one tensor.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> exchange(model)({"weight": torch.full((1, 1), 3.0)})(torch.ones(2, 1)).tolist()
        [[3.0], [3.0]]
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
            if tensor_id in names_by_id and weights[names_by_id[tensor_id]] is not weight:
                raise ValueError(
                    f"{names_by_id[tensor_id]!r} and {name!r} are one tensor of the model; give it one replacement."
                )
            names_by_id[tensor_id], replacements[tensor_id] = name, weight
        places = [
            (container, name, replacements[id(t)])
            for container, name, t in tensor_places(modules)
            if id(t) in replacements
        ]

        def call(*args: Any) -> Any:
            with swap_values(places, modules):
                return forward_func(*args)

        return call

    return with_weights
