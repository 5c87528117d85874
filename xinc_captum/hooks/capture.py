"""Read what flows through layers during one forward pass, ready to differentiate through."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .offload import to_host, wait
from .eager import eager
from .layer_value import Tensors, float_arguments, floats_of
from .models import ForwardFunc, LayerError, find_layer, is_scripted, layer_name
from .threads import of_this_thread


class Captured:
    """What :func:`capture` saw.

    ``captured[layer]`` is the layer's float tensor; a tuple where the layer returned (or took) several of them.
    """

    def __init__(self, names: dict[nn.Module, str], device_ids: Sequence[int] = ()) -> None:
        self._names = names
        self._device_ids = list(device_ids)
        self._seen: dict[nn.Module, dict[torch.device, Tensors]] = {layer: {} for layer in names}
        self._lock = threading.Lock()  # DataParallel replicas report from their own threads

    def name(self, layer: nn.Module) -> str:
        """The layer's name, for messages."""
        return self._names[layer]

    def record(self, layer: nn.Module, tensors: Tensors) -> None:
        """Keep one call's tensors; a second call on the same device is refused."""
        with self._lock:
            device = tensors[0].device
            if device in self._seen[layer]:
                raise LayerError(
                    f"layer {self._names[layer]} runs more than once in a forward pass, so one map cannot tell "
                    "its calls apart; hook the module around it, or give each call a module of its own."
                )
            self._seen[layer][device] = tensors

    def per_device(self, layer: nn.Module) -> list[Tensors]:
        """The tensors of every replica, in the order of the devices (one entry without DataParallel)."""
        seen = self._seen[layer]
        if not seen:
            raise LayerError(
                f"layer {self._names[layer]} never ran in the forward pass; choose a layer that this model calls "
                "for these inputs (modules that only hold weights, such as ModuleList, are never called)."
            )
        return [seen[device] for device in sorted(seen, key=self._place)]

    def _place(self, device: torch.device) -> int:
        """DataParallel hands the first rows to the first of its devices, whatever their numbers."""
        index = device.index or 0
        return self._device_ids.index(index) if index in self._device_ids else index

    def __getitem__(self, layer: nn.Module) -> Tensor | Tensors:
        replicas = self.per_device(layer)
        device = replicas[0][0].device
        whole = tuple(
            parts[0] if len(parts) == 1 else torch.cat([part.to(device) for part in parts])
            for parts in zip(*replicas, strict=True)
        )
        return whole if len(whole) > 1 else whole[0]


@contextmanager
def capture(
    model: ForwardFunc,
    layers: nn.Module | str | Sequence[nn.Module | str],
    *,
    at_input: bool = False,
    offload: Literal["cpu"] | None = None,
) -> Iterator[Captured]:
    """Record the output (or input) of ``layers`` while the block runs one forward pass.

    Of a layer that returns a tuple, list, dict or dataclass, its float tensors are recorded, and everything else is
    passed on unchanged. The recorded tensor is in the graph, so ``torch.autograd.grad(y, captured[layer])`` works,
    frozen parameters or not; the model goes on with a clone, so an in-place ReLU cannot rewrite what was recorded.

    Under ``torch.no_grad()`` or ``torch.inference_mode()`` the recorded tensor is an ordinary copy that does not
    require gradients: features to train a head on, for example.

    Args:
        model: the module, or any function around it, that the block will call.
        layers: one or several modules or dotted names.
        at_input: record what enters the layer instead of what leaves it.
        offload: ``"cpu"`` moves detached copies to host memory (pinned and on a side stream under CUDA).

    Raises:
        LayerError: a layer is unknown, scripted, runs twice, never ran (on look-up) or returns no float tensor.

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
    captured = Captured({module: layer_name(model, module) for module in modules}, device_ids)

    def keep(module: nn.Module, tensors: Tensors) -> Tensors | None:
        if offload is None:
            if not torch.is_grad_enabled():
                captured.record(module, tuple(map(_plain, tensors)))
                return None
            tensors = tuple(t if t.requires_grad else t.detach().requires_grad_() for t in tensors)
            captured.record(module, tensors)
            return tuple(t.clone() for t in tensors)
        captured.record(module, tuple(to_host(t) for t in tensors))
        return None

    with ExitStack() as stack:
        stack.enter_context(eager())
        for module in captured._names:
            stack.callback(hook_values(module, keep, at_input, partial(captured.name, module)).remove)
        yield captured
        if offload is not None:
            wait()


def _plain(tensor: Tensor) -> Tensor:
    """A copy without a graph, and an ordinary tensor also under inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()


def hook_values(
    module: nn.Module, edit: Callable[[nn.Module, Tensors], Tensors | None], at_input: bool, name: Callable[[], str]
) -> RemovableHandle:
    """Register ``edit(module, tensors) -> tensors`` on the float tensors of a module's output, or of its arguments.

    Everything else that the layer returns or takes is passed on unchanged, and so is all of it where ``edit`` returns
    None. The hook receives the original module even where DataParallel runs a replica of it.

    The hook acts on forward passes of the thread that registers it, those of replicas that DataParallel runs for it
    included, and does nothing in other threads.

    Raises:
        LayerError: the module is scripted; later, no float tensor is there.
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
        tensors, rebuild = floats_of(output, module, name)
        new = edit(module, tensors)
        return output if new is None else rebuild(new)

    def before(running: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not ours(running):
            return None
        tensors, rebuild = float_arguments(args, kwargs, name)
        new = edit(module, tensors)
        return (args, kwargs) if new is None else rebuild(new)

    if at_input:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)
