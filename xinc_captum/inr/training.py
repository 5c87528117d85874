"""Resumable training."""

import hashlib
import json
import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import store

KIND, WRITER = "training", "a fit with checkpoint="
FORMAT_1 = "xinc-captum-training-1"  # an archive of torch.save, without a checksum
_TENSORS_AT_ONCE = 1 << 24


class CheckpointError(store.StoreError):
    """A checkpoint that belongs to another run, is damaged, or cannot be written."""


def digest(values: Tensor) -> str:
    """The sha256 of a tensor's shape, and its values as float32: the same wherever it lies.

    Example:
        >>> digest(torch.zeros(2)) == digest(torch.zeros(2, dtype=torch.float64)) != digest(torch.zeros(2, 1))
        True
    """
    seen = hashlib.sha256(repr(tuple(values.shape)).encode())
    for part in values.detach().flatten().split(_TENSORS_AT_ONCE):
        seen.update(part.float().cpu().numpy().tobytes())
    return seen.hexdigest()


def architecture_digest(model: nn.Module) -> str:
    """A sha256 that two models share if their parts, names, shapes and dtypes are the same, whatever their values.

    Example:
        >>> described(nn.Linear(2, 3)) == described(nn.Linear(2, 3)) != described(nn.Linear(3, 2))
        True
    """
    tensors = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()}
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    return hashlib.sha256(repr((str(model), tensors, trained)).encode()).hexdigest()


def save_run(path: str | Path, recipe: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write ``state`` into a file of :func:`~xinc_captum.store.write_tensors`.

    Args:
        path: the file to write or replace.
        recipe: what decides how the run ends: sizes, rates, seeds, hashes. :func:`load_run` compares it.
        state: nested dicts and lists of tensors, numbers, strings and None.

    Raises:
        CheckpointError: the place cannot be written to, or is full; the checkpoint before is whole.
    """
    tensors: dict[str, Tensor] = {}
    note = {"recipe": dict(recipe), "state": _flattened(state, tensors)}
    try:
        store.write_tensors(path, tensors, kind=KIND, metadata=note)
    except store.StoreError as error:
        more = f" The run can go on from it with checkpoint={str(path)!r}." if Path(path).is_file() else ""
        raise CheckpointError(f"checkpoint: {error}{more}") from error


def load_run(path: str | Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state that :func:`save_run` wrote, or None where there is no such file.

    Raises:
        CheckpointError: damaged, not ours, or of a run with another recipe; names what differs.
    """
    path = Path(path)
    if not path.is_file():
        return None
    other = "give another file, or remove it to start anew."
    try:
        written, state = _version_1(path) if _is_archive(path) else _read(path)
    except store.StoreError as error:
        raise CheckpointError(f"{error} Or {other}") from error
    expected = json.loads(json.dumps(dict(recipe)))  # JSON has lists for tuples
    differences = [
        f"{name} {written.get(name)!r} instead of {value!r}"
        for name, value in expected.items()
        if written.get(name) != value
    ]
    if differences:
        raise CheckpointError(f"{path} is of another run: it has {', '.join(differences)}; {other}")
    return state


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    with store.consistent(path, WRITER):
        return note["recipe"], _restored(note["state"], tensors)


def _flattened(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` as JSON can hold it, with numbers in the place of tensors, which go into ``tensors``."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, Mapping):  # pairs, because JSON would make strings of the numbers that optimizers have as keys
        return {"dict": [[key, _flattened(one, tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_flattened(one, tensors) for one in value]}
    return value


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restored(one, tensors) for key, one in content}
    found = [_restored(one, tensors) for one in content]
    return tuple(found) if kind == "tuple" else found


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.read(9)
    return first.startswith(b"PK") and first[8:] != b"{"


def _version_1(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint of an earlier version of this package, whose values no checksum covers."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise store.StoreError(f"{path} is no whole checkpoint ({reason}).") from error
    seen = found.get("format") if isinstance(found, dict) else None
    if seen != FORMAT_1:
        raise store.StoreError(f"{path} is marked {seen!r}; expected a file written by {WRITER}.")
    warnings.warn(
        f"{path} is a checkpoint of an earlier version, without a checksum; damage to its values cannot be found.",
        stacklevel=3,
    )
    recipe = json.loads(json.dumps(found["recipe"]))
    return recipe, found["state"]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training will change.

    Raises:
        ValueError: none wants gradients, or they have no values, NaN or infinite ones, or too few digits to be trained
            in.

    Example:
        >>> [p.shape for p in trainable(nn.Linear(2, 3))]
        [torch.Size([3, 2]), torch.Size([3])]
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    kind = type(model).__name__
    if not parameters:
        raise ValueError(f"no parameter of this {kind} wants a gradient; call requires_grad_() on those to train.")
    if any(p.is_meta for p in parameters):
        raise ValueError(f"this {kind} is on the meta device, where nothing has values; load it or build it anew.")
    if any(p.is_inference() for p in parameters):
        raise ValueError(f"this {kind} was made under torch.inference_mode(), so it has no gradients; make it outside.")
    if any(p.dtype == torch.float16 for p in parameters):
        # Adam divides by the root of a mean square plus 1e-8, both of which are 0 in these digits.
        raise ValueError(f"this {kind} is torch.float16, in which steps of Adam are NaN; fit it in float32.")
    check_finite(model)
    return parameters


def check_finite(model: nn.Module, without: Collection[nn.Parameter] = ()) -> None:
    """Check that the parameters of a model have finite values, with one transfer from its device.

    Args:
        model: any module.
        without: parameters that may have any values.

    Raises:
        ValueError: NaN or infinite values, or no values (the meta device); names the first parameter.

    Example:
        >>> check_finite(nn.Linear(2, 3))
    """
    skipped = {id(parameter) for parameter in without}
    named = {name: p for name, p in model.named_parameters() if id(p) not in skipped and p.is_floating_point()}
    kind = type(model).__name__
    if any(p.is_meta for p in named.values()):
        raise ValueError(f"this {kind} is on the meta device, where nothing has values; load it or build it anew.")
    if not named:
        return
    fine = torch.stack([p.detach().isfinite().all().to(next(iter(named.values())).device) for p in named.values()])
    bad = [name for name, ok in zip(named, fine.tolist(), strict=True) if not ok]
    if bad:
        raise ValueError(
            f"the parameter {bad[0]} of this {kind} holds NaN or infinite values ({len(bad)} of {len(named)} "
            "parameters do). Every result would be NaN too; load the model again, or train with a smaller lr."
        )
