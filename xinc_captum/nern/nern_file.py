"""A NeRN in one safetensors file, with everything of its target that it does not generate."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..hooks import exclusive
from .convolutions import Convolution, parameter_name, target_behind
from .permutation import pack, unpack

if TYPE_CHECKING:
    from .nern import NeRN

FORMAT = "xinc-captum-nern-1"
KEY = "nern"  # one metadata entry: safetensors writes several in random order, and equal NeRNs are equal bytes


@exclusive()  # a call in another thread may have other weights in the places of the target's
def sections(nern: NeRN, dtype: torch.dtype | None = None) -> dict[str, dict[str, Tensor]]:
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


def packed(nern: NeRN, dtype: torch.dtype | None = None) -> bytes:
    """The whole file."""
    tensors = {
        f"{section}.{name}": value
        for section, values in sections(nern, dtype).items()
        for name, value in values.items()
    }
    own = str(next(nern.predictor.parameters()).dtype).removeprefix("torch.")
    layers = [[layer.name, list(layer.shape)] for layer in nern.layers]
    note = {"format": FORMAT, "config": nern.config, "layers": layers, "dtype": own}
    content: bytes = save(tensors, metadata={KEY: json.dumps(note)})
    return content


def write(path: str | Path, content: bytes) -> Path:
    """Whole or not at all."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} is not there; make it first, or give another path.")
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


def read(cls: type[NeRN], path: str | Path, target: nn.Module) -> NeRN:
    """What :meth:`NeRN.load` documents."""
    tensors, note = _opened(Path(path))
    found = [Convolution(name, tuple(shape)) for name, shape in note["layers"]]
    sections_: dict[str, dict[str, Tensor]] = {"predictor": {}, "order": {}, "kept": {}}
    for name, value in tensors.items():
        section, _, rest = name.partition(".")
        sections_[section][rest] = value
    with exclusive():
        model = copy.deepcopy(target_behind(target))
    _checked_target(path, model, found, sections_["kept"])
    model.load_state_dict(sections_["kept"], strict=False)
    kind = note["config"]["permutation"]
    orders = [unpack(sections_["order"].get(layer.name), layer.shape, kind) for layer in found]
    nern = cls(model, [layer.name for layer in found], **note["config"], orders=orders)
    nern.predictor.load_state_dict(sections_["predictor"])
    nern.predictor.to(getattr(torch, note["dtype"]))
    return nern


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted a NeRN written by NeRN.save().")
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); write it again with NeRN.save().") from error
    if note.get("format") != FORMAT:
        raise ValueError(
            f"{path} is marked {note.get('format', 'with nothing')!r}; wanted {FORMAT!r}, as NeRN.save() writes."
        )
    return tensors, note


def _checked_target(path: str | Path, root: nn.Module, layers: list[Convolution], held: dict[str, Tensor]) -> None:
    own = {name: tuple(value.shape) for name, value in root.state_dict().items()}
    wanted = {parameter_name(layer.name): tuple(layer.shape) for layer in layers}
    wanted |= {name: tuple(value.shape) for name, value in held.items()}
    wrong = [
        f"{name} {own.get(name, 'missing')} instead of {shape}"
        for name, shape in wanted.items()
        if own.get(name) != shape
    ]
    # A weight that is shared has several names, and the file need not know all.
    shared = {id(p) for name, p in root.named_parameters(remove_duplicate=False) if name in wanted}
    names = dict(root.named_parameters(remove_duplicate=False))
    wrong += [
        f"{name} {own[name]} that the file has nothing of"
        for name in own
        if name not in wanted and id(names.get(name)) not in shared
    ]
    if wrong:
        some = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise ValueError(f"{path} represents another network than this {type(root).__name__}: it has {some}.")


def _held(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
