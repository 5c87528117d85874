"""The safetensors file of a NeRN: predictor, permutation, and the part of the target that is not generated."""

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


@exclusive()  # a call in another thread may have exchanged the target's weights
def sections(nern: KernelNetwork, dtype: torch.dtype | None = None) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a file: the predictor, the permutation, and the rest of the target."""
    orders = {layer.name: pack(order) for layer, order in zip(nern.layers, nern.orders, strict=True)}
    return {
        "predictor": {name: _to_cpu(value, dtype) for name, value in nern.predictor.state_dict().items()},
        "order": {name: bits for name, bits in orders.items() if bits is not None},
        "kept": state_without_layers(target_behind(nern.target), nern.layers),
    }


def state_without_layers(root: nn.Module, layers: tuple[Convolution, ...]) -> dict[str, Tensor]:
    """Return the state of a target without the represented weights, under any of their names."""
    generated = {id(root.get_parameter(parameter_name(layer.name))) for layer in layers}
    names = {name for name, p in root.named_parameters(remove_duplicate=False) if id(p) in generated}
    return {name: _to_cpu(value) for name, value in root.state_dict().items() if name not in names}


def content(nern: KernelNetwork, dtype: torch.dtype | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a file."""
    tensors = {
        f"{section}.{name}": value
        for section, values in sections(nern, dtype).items()
        for name, value in values.items()
    }
    dtype_name = str(next(nern.predictor.parameters()).dtype).removeprefix("torch.")
    layers = [[layer.name, list(layer.shape)] for layer in nern.layers]
    return tensors, {"config": nern.config, "layers": layers, "dtype": dtype_name}


def file_bytes(nern: KernelNetwork, dtype: torch.dtype | None = None) -> int:
    """Return the size of the file that :func:`write` writes."""
    tensors, note = content(nern, dtype)
    return store.tensor_file_bytes(tensors, kind=KIND, metadata=note)


def write(path: str | Path, nern: KernelNetwork, dtype: torch.dtype | None = None) -> Path:
    """Write a file, as :meth:`NeRN.save` documents."""
    tensors, note = content(nern, dtype)
    return store.write_tensors(path, tensors, kind=KIND, metadata=note)


def read(cls: type[N], path: str | Path, target: nn.Module) -> N:
    """Read a file, as :meth:`NeRN.load` documents."""
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    contents: dict[str, dict[str, Tensor]] = {"predictor": {}, "order": {}, "kept": {}}
    with store.consistent(path, WRITER):
        layers = [Convolution(name, tuple(shape)) for name, shape in note["layers"]]
        for name, value in tensors.items():
            section, _, rest = name.partition(".")
            contents[section][rest] = value
    with exclusive():
        model = copy.deepcopy(target_behind(target))
    _check_target(path, model, layers, contents["kept"])
    model.load_state_dict(contents["kept"], strict=False)
    with store.consistent(path, WRITER):
        kind = note["config"]["permutation"]
        orders = [unpack(contents["order"].get(layer.name), layer.shape, kind) for layer in layers]
        nern = cls(model, [layer.name for layer in layers], **note["config"], orders=orders)
        store.check_state(path, nern.predictor.state_dict(), contents["predictor"])
        nern.predictor.load_state_dict(contents["predictor"])
        nern.predictor.to(getattr(torch, note["dtype"]))
    return nern


def _check_target(path: str | Path, root: nn.Module, layers: list[Convolution], remaining: dict[str, Tensor]) -> None:
    shapes = {name: tuple(value.shape) for name, value in root.state_dict().items()}
    stored = {parameter_name(layer.name): tuple(layer.shape) for layer in layers}
    stored |= {name: tuple(value.shape) for name, value in remaining.items()}
    differences = [
        f"{name} {shapes.get(name, 'missing')} instead of {shape}"
        for name, shape in stored.items()
        if shapes.get(name) != shape
    ]
    # A shared weight has several names, and the file may have only some of them.
    shared = {id(p) for name, p in root.named_parameters(remove_duplicate=False) if name in stored}
    names = dict(root.named_parameters(remove_duplicate=False))
    differences += [
        f"{name} {shapes[name]} that is not in the file"
        for name in shapes
        if name not in stored and id(names.get(name)) not in shared
    ]
    if differences:
        some = "; ".join(differences[:4]) + (f"; and {len(differences) - 4} more" if len(differences) > 4 else "")
        raise store.StoreError(f"{path} represents another network than this {type(root).__name__}: it has {some}.")


def _to_cpu(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
