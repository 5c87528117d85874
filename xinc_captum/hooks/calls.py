"""The calls of a layer in one forward pass, and the activations that were recorded at them."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .layers import LayerError

Tensors = tuple[Tensor, ...]


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
