"""A NeRN in one safetensors file, with everything of its target that it does not generate."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ... import store
from ...hooks import exclusive
from .kernel_network import KernelNetwork
from .kernels import Convolution, parameter_name, target_behind
from .permutation import pack, unpack

N = TypeVar("N", bound=KernelNetwork)
KIND, WRITER = "nern", "NeRN.save()"


@exclusive()  # a call in another thread may have other weights in the places of the target's
def sections(nern: KernelNetwork, dtype: torch.dtype | None = None) -> dict[str, dict[str, Tensor]]:
    """What a file holds: the predictor, the permutation, and what is kept of the target."""
    orders = {layer.name: pack(order) for layer, order in zip(nern.layers, nern.orders, strict=True)}
    return {
        "predictor": {name: _held(value, dtype) for name, value in nern.predictor.state_dict().items()},
        "order": {name: bits for name, bits in orders.items() if bits is not None},
        "kept": kept(target_behind(nern.target), nern.layers),
    }


def kept(root: nn.Module, layers: tuple[Convolution, ...]) -> dict[str, Tensor]:
    """The state of a target without the represented weights, under whatever names those are shared."""
    generated = {id(root.get_parameter(parameter_name(layer.name))) for layer in layers}
    names = {name for name, p in root.named_parameters(remove_duplicate=False) if id(p) in generated}
    return {name: _held(value) for name, value in root.state_dict().items() if name not in names}


def content(nern: KernelNetwork, dtype: torch.dtype | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file."""
    tensors = {
        f"{section}.{name}": value
        for section, values in sections(nern, dtype).items()
        for name, value in values.items()
    }
    own = str(next(nern.predictor.parameters()).dtype).removeprefix("torch.")
    layers = [[layer.name, list(layer.shape)] for layer in nern.layers]
    return tensors, {"config": nern.config, "layers": layers, "dtype": own}


def file_bytes(nern: KernelNetwork, dtype: torch.dtype | None = None) -> int:
    """Return the size of the file that :func:`write` writes."""
    tensors, note = content(nern, dtype)
    return store.tensor_file_bytes(tensors, kind=KIND, metadata=note)


def write(path: str | Path, nern: KernelNetwork, dtype: torch.dtype | None = None) -> Path:
    """Write what :meth:`NeRN.save` documents."""
    tensors, note = content(nern, dtype)
    return store.write_tensors(path, tensors, kind=KIND, metadata=note)


def read(cls: type[N], path: str | Path, target: nn.Module) -> N:
    """What :meth:`NeRN.load` documents."""
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    sections_: dict[str, dict[str, Tensor]] = {"predictor": {}, "order": {}, "kept": {}}
    with store.consistent(path, WRITER):
        found = [Convolution(name, tuple(shape)) for name, shape in note["layers"]]
        for name, value in tensors.items():
            section, _, rest = name.partition(".")
            sections_[section][rest] = value
    with exclusive():
        model = copy.deepcopy(target_behind(target))
    _checked_target(path, model, found, sections_["kept"])
    model.load_state_dict(sections_["kept"], strict=False)
    with store.consistent(path, WRITER):
        kind = note["config"]["permutation"]
        orders = [unpack(sections_["order"].get(layer.name), layer.shape, kind) for layer in found]
        nern = cls(model, [layer.name for layer in found], **note["config"], orders=orders)
        store.check_state(path, nern.predictor.state_dict(), sections_["predictor"])
        nern.predictor.load_state_dict(sections_["predictor"])
        nern.predictor.to(getattr(torch, note["dtype"]))
    return nern


def _checked_target(path: str | Path, root: nn.Module, layers: list[Convolution], held: dict[str, Tensor]) -> None:
    own = {name: tuple(value.shape) for name, value in root.state_dict().items()}
    expected = {parameter_name(layer.name): tuple(layer.shape) for layer in layers}
    expected |= {name: tuple(value.shape) for name, value in held.items()}
    wrong = [
        f"{name} {own.get(name, 'missing')} instead of {shape}"
        for name, shape in expected.items()
        if own.get(name) != shape
    ]
    # A weight that is shared has several names, and the file need not know all.
    shared = {id(p) for name, p in root.named_parameters(remove_duplicate=False) if name in expected}
    names = dict(root.named_parameters(remove_duplicate=False))
    wrong += [
        f"{name} {own[name]} that the file has nothing of"
        for name in own
        if name not in expected and id(names.get(name)) not in shared
    ]
    if wrong:
        some = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise store.StoreError(f"{path} represents another network than this {type(root).__name__}: it has {some}.")


def _held(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
