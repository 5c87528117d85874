"""Capture and patch activations, and differentiate by them."""

import copy
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .layers import ForwardFunc, LayerError, find_layer, is_scripted, layer_name, modules_behind
from .state import of_this_thread

_lock = threading.Lock()
_blocks = 0  # torch.compile has one stance per process: the first block sets it, the last one restores it
_stance: Any = None


@contextmanager
def eager() -> Iterator[None]:
    """Run ``torch.compile``d models in the block without compilation; a compiled graph would skip hooks silently.

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


Tensors = tuple[Tensor, ...]


def floats_of(
    value: Any, module: nn.Module, name: Callable[[], str], complex_values: bool = False
) -> tuple[Tensors, Callable[[Tensors], Any]]:
    """Return the float tensors of a layer's output, and a function that rebuilds the output from replacements.

    The output is a tensor, or a tuple, list, dict or dataclass that holds float tensors directly; else, and for an
    LSTM, a LayerError is raised. Everything else in it (None, integer or boolean masks, nested states) is passed on
    unchanged. With ``complex_values``, complex tensors are returned if there are no real ones. ``name`` returns the
    layer's name, for messages.
    """
    if isinstance(value, Tensor):
        if _float_keys({0: value}, complex_values):
            return (value,), lambda new: new[0]
        raise _no_float_error(value, name())
    items = _items(value)
    places = _float_keys(items, complex_values)
    if not places:
        raise _no_float_error(value, name())
    if isinstance(module, nn.LSTM):  # its states repeat values of its output
        raise LayerError(
            f"layer {name()} is an LSTM, which returns its last states next to its output, so a contribution of the "
            "output alone would be incomplete; choose the layer that uses the output, or explain what enters the LSTM "
            "(attribute_to_layer_input=True)."
        )
    return tuple(items[key] for key in places), lambda new: _rebuilt(value, dict(zip(places, new, strict=True)))


def _float_keys(items: Mapping[Any, Any], complex_values: bool) -> list[Any]:
    tensors = {key: item for key, item in items.items() if isinstance(item, Tensor)}
    floats = [key for key, tensor in tensors.items() if tensor.is_floating_point()]
    if floats or not complex_values:
        return floats
    return [key for key, tensor in tensors.items() if tensor.is_complex()]


def _items(value: Any) -> dict[Any, Any]:
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if isinstance(value, Mapping):
        return dict(value) if isinstance(value, MutableMapping) else {}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {}


def _rebuilt(value: Any, new: dict[Any, Tensor]) -> Any:
    """Return a new container of the same type with some items replaced."""
    if isinstance(value, tuple):
        items = [new.get(i, item) for i, item in enumerate(value)]
        if hasattr(value, "_make"):  # a namedtuple takes its items one by one, other tuples take one iterable
            return value._make(items)
        return type(value)(items)
    changed = copy.copy(value)
    for key, tensor in new.items():
        if isinstance(value, list | Mapping):
            changed[key] = tensor
        else:
            object.__setattr__(changed, key, tensor)  # also where the dataclass is frozen
    return changed


def _no_float_error(value: Any, name: str) -> LayerError:
    items = list(_items(value).values()) if not isinstance(value, Tensor) else [value]
    nested = any(isinstance(item, tuple | list | Mapping) for item in items)
    received = f"({_kinds(items)})" if items or isinstance(value, tuple) else type(value).__name__
    why = ", and tensors inside a nested container are not explained" if nested else ""
    return LayerError(
        f"layer {name} returns {received}; expected a floating-point tensor, or a tuple, list, dict or dataclass that "
        f"holds one directly{why}. Explain what enters the layer (attribute_to_layer_input=True), or choose a module "
        "inside it or the module that uses its output."
    )


def _kinds(values: Iterable[Any]) -> str:
    return ", ".join(str(t.dtype) if isinstance(t, Tensor) else type(t).__name__ for t in values)


def float_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: Callable[[], str], complex_values: bool = False
) -> tuple[Tensors, Callable[[Tensors], tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Return the float tensors among a layer's arguments, and a function that builds arguments from replacements."""
    items: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    places = _float_keys(items, complex_values)
    if not places:
        raise LayerError(
            f"layer {name()} takes ({_kinds(items.values())}); expected a floating-point tensor among its arguments. "
            "Explain what leaves the layer instead (attribute_to_layer_input=False), or choose the module before it."
        )

    def rebuild(new: Tensors) -> tuple[tuple[Any, ...], dict[str, Any]]:
        filled = items | dict(zip(places, new, strict=True))
        return tuple(filled[i] for i in range(len(args))), {name: filled[name] for name in kwargs}

    return tuple(items[key] for key in places), rebuild


_side_streams: dict[torch.device, torch.cuda.Stream] = {}


def to_host(tensor: Tensor) -> Tensor:
    """Return a detached copy of ``tensor`` in host memory; under CUDA it is complete only after :func:`wait`.

    The copy goes into a pinned buffer on a side stream and overlaps with the model's next operations. A clone on the
    device comes first, because the model may overwrite its output in place (ReLU).
    """
    tensor = tensor.detach()
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    if tensor.device not in _side_streams:
        _side_streams[tensor.device] = torch.cuda.Stream(tensor.device)
    side = _side_streams[tensor.device]
    snapshot = tensor.clone()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    side.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(side):
        pinned.copy_(snapshot, non_blocking=True)
    snapshot.record_stream(side)
    return pinned


def wait() -> None:
    """Block until every copy started by :func:`to_host` has arrived."""
    for stream in _side_streams.values():
        stream.synchronize()


class Calls:
    """Counts the calls of a layer on each device, and tells which of them is recorded or edited."""

    def __init__(self, name: Callable[[], str], call: int | None) -> None:
        check_call(call)
        self.name, self._call = name, call
        self._counts = Counter[torch.device]()
        self._lock = threading.Lock()  # DataParallel replicas report from their own threads

    def count(self, device: torch.device) -> bool:
        """Count a call, and return whether it is the chosen one; the first one if none was chosen."""
        with self._lock:
            self._counts[device] += 1
            return self._counts[device] == (self._call or 0) + 1

    def check(self, *, ran: bool = True) -> None:
        """Raise a LayerError if the chosen call did not occur, or if there were several calls and none was chosen.

        With ``ran``, a layer that never ran is an error too.
        """
        calls = max(self._counts.values(), default=0)
        if not calls and ran:
            raise LayerError(
                f"layer {self.name()} never ran in the forward pass; choose a layer that this model calls for these "
                "inputs (modules that only hold weights, such as ModuleList, are never called)."
            )
        if calls > 1 and self._call is None:
            raise LayerError(
                f"layer {self.name()} runs more than once in a forward pass, and which of its {calls} calls is meant "
                f"is not clear. Give call=0 to call={calls - 1} of NeuronCanvas, LayerContribution, capture or patch, "
                "hook the module around it, or give each call a module of its own."
            )
        if calls and self._call is not None and self._call >= calls:
            known = "call=0" if calls == 1 else f"call=0 to call={calls - 1}"
            raise LayerError(
                f"call is {self._call}, but layer {self.name()} has {calls} call{'s' * (calls > 1)} in a forward pass; "
                f"expected {known}."
            )


def check_call(call: int | None) -> None:
    """Raise a ValueError if ``call`` is neither None nor the number of a call."""
    if call is not None and (isinstance(call, bool) or not isinstance(call, int) or call < 0):
        raise ValueError(f"call is {call!r}; expected None, or the number of one call of the layer, counted from 0.")


class Captured:
    """Activations recorded by :func:`capture`.

    ``captured[layer]`` is the layer's float tensor; a tuple where the layer returned (or took) several of them.
    """

    def __init__(self, names: dict[nn.Module, str], device_ids: Sequence[int] = (), call: int | None = None) -> None:
        self._names = names
        self._device_ids = list(device_ids)
        self._by_device: dict[nn.Module, dict[torch.device, Tensors]] = {layer: {} for layer in names}
        self.calls = {layer: Calls(partial(self.name, layer), call) for layer in names}

    def name(self, layer: nn.Module) -> str:
        """Return the layer's name, for messages."""
        return self._names[layer]

    def record(self, layer: nn.Module, tensors: Tensors) -> None:
        """Store the tensors of one call."""
        self._by_device[layer][tensors[0].device] = tensors

    def per_device(self, layer: nn.Module) -> list[Tensors]:
        """Return the tensors of every replica, in the order of the devices (one entry without DataParallel)."""
        by_device = self._by_device[layer]
        self.calls[layer].check(ran=not by_device)
        return [by_device[device] for device in sorted(by_device, key=self._device_order)]

    def _device_order(self, device: torch.device) -> int:
        """Return the position of a device: DataParallel sends the first rows to the first of its devices."""
        index = device.index or 0
        return self._device_ids.index(index) if index in self._device_ids else index

    def __getitem__(self, layer: nn.Module) -> Tensor | Tensors:
        replicas = self.per_device(layer)
        device = replicas[0][0].device
        gathered = tuple(
            parts[0] if len(parts) == 1 else torch.cat([part.to(device) for part in parts])
            for parts in zip(*replicas, strict=True)
        )
        return gathered if len(gathered) > 1 else gathered[0]


@contextmanager
def capture(
    model: ForwardFunc,
    layers: nn.Module | str | Sequence[nn.Module | str],
    *,
    at_input: bool = False,
    offload: Literal["cpu"] | None = None,
    call: int | None = None,
    complex_values: bool = False,
) -> Iterator[Captured]:
    """Record the output (or input) of ``layers`` while the block runs one forward pass.

    If a layer returns a tuple, list, dict or dataclass, its float tensors are recorded, and everything else is passed
    on unchanged. The recorded tensor is part of the graph, so ``torch.autograd.grad(y, captured[layer])`` works, also
    with frozen parameters. The model continues with a clone, so an in-place ReLU does not change the recorded tensor.
    Under ``torch.no_grad()`` or ``torch.inference_mode()`` the recorded tensor is an ordinary copy that does not
    require gradients, for example features to train a head on.

    Args:
        model: the module, or any function around it, that the block calls.
        layers: one or several modules or dotted names.
        at_input: record the layer's input instead of its output.
        offload: ``"cpu"`` moves detached copies to host memory (pinned and on a side stream under CUDA).
        call: which call of each layer to record, from 0, if it runs several times in one forward pass.
        complex_values: record complex tensors too, where a layer has no real ones.

    Raises:
        LayerError: a layer is unknown or scripted, or returns no float tensor; at the end of the block, a layer ran
            several times without ``call``, or has no such call; ``captured[layer]`` raises it if the layer never ran.
        ValueError: ``call`` is not a number from 0.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> with capture(model, "0") as captured:
        ...     y = model(torch.ones(4, 2))
        >>> captured[model[0]].shape
        torch.Size([4, 3])
    """
    several = layers if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]
    modules = [find_layer(model, layer) for layer in several]
    parallel = model if isinstance(model, nn.DataParallel) else getattr(model, "__self__", None)
    device_ids = parallel.device_ids if isinstance(parallel, nn.DataParallel) else ()
    captured = Captured({module: layer_name(model, module) for module in modules}, device_ids, call)

    def keep(module: nn.Module, tensors: Tensors) -> Tensors | None:
        if not captured.calls[module].count(tensors[0].device):
            return None
        if offload is None:
            if not torch.is_grad_enabled():
                with torch.inference_mode(False), torch.no_grad():  # an ordinary copy also under inference mode
                    captured.record(module, tuple(t.clone() for t in tensors))
                return None
            tensors = tuple(t if t.requires_grad else t.detach().requires_grad_() for t in tensors)
            captured.record(module, tensors)
            return tuple(t.clone() for t in tensors)
        captured.record(module, tuple(to_host(t) for t in tensors))
        return None

    with ExitStack() as stack:
        stack.enter_context(eager())
        for module in captured._names:
            name = partial(captured.name, module)
            stack.callback(hook_values(module, keep, at_input, name, complex_values).remove)
        yield captured
        if offload is not None:
            wait()
        for calls in captured.calls.values():
            calls.check(ran=False)


def hook_values(
    module: nn.Module,
    edit: Callable[[nn.Module, Tensors], Tensors | None],
    at_input: bool,
    name: Callable[[], str],
    complex_values: bool = False,
) -> RemovableHandle:
    """Register ``edit(module, tensors) -> tensors`` on the float tensors of a module's output, or of its arguments.

    All other values are passed on unchanged; so are the tensors if ``edit`` returns None. ``edit`` receives the
    original module, also from a replica of DataParallel. The hook acts on forward passes of the thread that registers
    it, including replicas that DataParallel runs for that thread.
    """
    if is_scripted(module):
        raise LayerError(
            f"layer {name()} is scripted (torch.jit.script), and scripted modules run no Python hooks, so it cannot be "
            "read; give the original torch.nn.Module, or choose a layer outside the scripted part."
        )
    ours = of_this_thread()

    def after(running: nn.Module, _args: Any, output: Any) -> Any:
        if not ours(running):
            return None
        tensors, rebuild = floats_of(output, module, name, complex_values)
        new = edit(module, tensors)
        return output if new is None else rebuild(new)

    def before(running: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not ours(running):
            return None
        tensors, rebuild = float_arguments(args, kwargs, name, complex_values)
        new = edit(module, tensors)
        return (args, kwargs) if new is None else rebuild(new)

    if at_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


@contextmanager
def patch(
    model: ForwardFunc,
    layer: nn.Module | str,
    edit: Callable[[Any], Any],
    *,
    at_input: bool = False,
    call: int | None = None,
    complex_values: bool = False,
) -> Iterator[None]:
    """Replace a layer's output (or input) by ``edit(value)`` while the block runs.

    Args:
        model: the module, or any function around it, that the block calls.
        layer: a module or dotted name.
        edit: takes the layer's float tensor (a tuple where there are several) and returns its replacement; everything
            else that the layer returns is passed on unchanged.
        at_input: edit the layer's input instead of its output.
        call: which call of the layer to edit, from 0, if it runs several times; other calls are not edited.
        complex_values: edit complex tensors too, where the layer has no real ones.

    Raises:
        LayerError, ValueError: as :func:`capture`; if the layer never ran, it is raised at the end of the block.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> with patch(model, "1", torch.zeros_like):
        ...     y = model(torch.ones(4, 2))
        >>> y.abs().sum()
        tensor(0.)
    """
    module = find_layer(model, layer)
    name = partial(layer_name, model, module)
    calls = Calls(name, call)

    def once(_module: nn.Module, tensors: Tensors) -> Tensors | None:
        if not calls.count(tensors[0].device):
            return None
        new = edit(tensors if len(tensors) > 1 else tensors[0])
        return new if isinstance(new, tuple) else (new,)

    handle = hook_values(module, once, at_input, name, complex_values)
    try:
        with eager():
            yield
    finally:
        handle.remove()
    calls.check()


class _Reached(BaseException):
    """Ends the forward pass; not an Exception, so that a model's own handlers do not catch it."""


def reach(forward_func: ForwardFunc, layers: Sequence[nn.Module], call: Callable[[], Any]) -> Captured:
    """Return the outputs of ``layers`` in ``call()``, which runs ``forward_func``, and stop it after the last of them.

    Under DataParallel, whose threads cannot be stopped, the forward pass runs to its end. A layer that would run again
    later in the pass is not detected; a full pass under :func:`capture`, which raises the same errors, detects it.
    """
    waiting, ours = set(layers), of_this_thread()

    def stop_after_last(module: nn.Module, _args: Any, _output: Any) -> None:
        if not ours(module):
            return
        waiting.discard(module)
        if not waiting:
            raise _Reached

    with capture(forward_func, layers) as captured, ExitStack() as stack:
        if not isinstance(getattr(forward_func, "__self__", forward_func), nn.DataParallel):
            for layer in layers:
                stack.callback(layer.register_forward_hook(stop_after_last).remove)
        with suppress(_Reached):
            call()
    return captured


class UnsupportedError(RuntimeError):
    """A backward pass that cannot itself be differentiated."""


class JacobianVectorProduct:
    r"""Jacobian-vector products J v for any number of v, after one forward and one backward pass.

    .. math:: J v = \partial \langle J^T w, v \rangle / \partial w

    Symbols: J the derivative of ``output``, (rows, *output_shape), by ``activation``, a leaf tensor of its graph; w a
    placeholder for the gradient at the output. The model itself runs once, so its in-place edits, views and gradient
    modes work as usual. Only the recorded linear backward pass is repeated, vmapped over the v.

    Raises:
        UnsupportedError: an operation whose backward pass is not differentiable or cannot be vmapped, or a custom
            autograd Function, whose backward pass may be declared differentiable without being so.
    """

    def __init__(self, activation: Tensor, output: Tensor) -> None:
        if any(isinstance(node, torch.autograd.function.BackwardCFunction) for node in _nodes(output)):
            raise UnsupportedError("a custom autograd Function")
        with torch.enable_grad():
            self._w = torch.zeros_like(output, requires_grad=True)
            try:
                (self._back,) = torch.autograd.grad(output, activation, self._w, create_graph=True)
            except RuntimeError as error:
                raise UnsupportedError(str(error)) from error
        if not self._back.requires_grad:
            raise UnsupportedError("the backward pass is not differentiable")

    def __call__(self, parts: Tensor) -> Tensor:
        """Return J v for k vectors: (k, *activation) to (k, *output)."""
        try:
            (pushed,) = torch.autograd.grad(
                self._back, self._w, parts, retain_graph=True, is_grads_batched=True, materialize_grads=True
            )
        except RuntimeError as error:
            raise UnsupportedError(str(error)) from error
        return pushed.detach()


def _nodes(output: Tensor, *, differentiable: bool = False) -> Iterator[Any]:
    """Yield each node of a tensor's graph; ``differentiable`` omits those behind operations without a derivative."""
    waiting: list[Any] = [output.grad_fn]
    visited = set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in visited or (differentiable and "NotImplemented" in node.name()):
            continue
        yield node
        visited.add(node)
        waiting += [following for following, _ in node.next_functions]


# Texts of PyTorch's errors for a graph that does not reach the tensor by which it is differentiated.
_TEXTS = ("does not require grad", "not have been used in the graph", "nference tensor", "InferenceMode")


class GradientError(LayerError):
    """No gradient reaches the images or the layer, because part of the forward pass records none."""


@contextmanager
def gradient_errors(forward_func: ForwardFunc, *also: nn.Module) -> Iterator[None]:
    """Raise :class:`GradientError` in place of PyTorch's errors about missing gradients.

    The error names quantized modules of the model and of ``also``, further models of the same explanation.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        missing = "derivative for" in text and "not implemented" in text
        if not missing and not any(part in text for part in _TEXTS):
            raise
        raise GradientError(no_gradient("from the score to what is explained", forward_func, *also)) from error


def leads_to(value: Tensor, source: Tensor) -> bool:
    """Return whether a gradient of ``value`` reaches ``source``, a tensor that has a ``grad_fn``."""
    return any(node is source.grad_fn for node in _nodes(value, differentiable=True))


def no_gradient(way: str, forward_func: ForwardFunc, *also: nn.Module) -> str:
    """Return the text of a :class:`GradientError`; ``way`` names the start and the end of the missing gradient."""
    return (
        f"no gradient flows {way}: part of the forward pass records none.{_name_quantized(forward_func, *also)} Remove "
        "torch.no_grad(), torch.inference_mode(), .detach() and NumPy from the forward function (requires_grad_(False) "
        "freezes a backbone and lets gradients pass), and give the float model instead of a quantized one. Maps that "
        'need no gradients: NeuronCanvas(..., rule="ablation").'
    )


def _name_quantized(forward_func: ForwardFunc, *also: nn.Module) -> str:
    """Return a sentence with the name of the first quantized module; empty if there is none."""
    for root in (*modules_behind(forward_func), *also):
        for name, module in root.named_modules():
            if ".quantized" in type(module).__module__:
                return f" Module {name!r} is a quantized {type(module).__name__}."
    return ""
