"""Keep a training run in one file, so that it goes on where it was killed, and ends as if it never had been."""

import hashlib
import io
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FORMAT = "xinc-captum-training-1"
_TENSORS_AT_ONCE = 1 << 24


class CheckpointError(ValueError):
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


def described(model: nn.Module) -> str:
    """A sha256 that two models share if their parts, names, shapes and dtypes are the same, whatever their values.

    Example:
        >>> described(nn.Linear(2, 3)) == described(nn.Linear(2, 3)) != described(nn.Linear(3, 2))
        True
    """
    tensors = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()}
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    return hashlib.sha256(repr((str(model), tensors, trained)).encode()).hexdigest()


def save_run(path: str | Path, recipe: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write ``state`` under ``path``, whole or not at all: what was there stays until the new file is complete.

    Args:
        path: the file to write or replace.
        recipe: what decides how the run ends: sizes, rates, seeds, hashes. :func:`load_run` compares it.
        state: nested dicts and lists of tensors and numbers.

    Raises:
        CheckpointError: the place cannot be written to, or is full; the checkpoint before is whole.
    """
    path = Path(path)
    content = io.BytesIO()
    torch.save({"format": FORMAT, "recipe": dict(recipe), "state": dict(state)}, content)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with _no_matter_what():
            temporary.unlink()
        kept = f"The one before is whole, and the run goes on from it with checkpoint={str(path)!r}."
        raise CheckpointError(
            f"the checkpoint {path} cannot be written ({error.strerror}); wanted room for {content.tell():,} bytes "
            f"in a folder that you own. {kept if path.is_file() else 'Nothing was left behind.'}"
        ) from error


@contextmanager
def _no_matter_what() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def load_run(path: str | Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state that :func:`save_run` wrote, or None where there is no such file.

    Raises:
        CheckpointError: damaged, not ours, or of a run with another recipe; names what differs.
    """
    path = Path(path)
    if not path.is_file():
        return None
    other = "give another file, or remove it to start anew."
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is no whole checkpoint ({reason}); {other}") from error
    seen = found.get("format") if isinstance(found, dict) else None
    if seen != FORMAT:
        raise CheckpointError(f"{path} is marked {seen!r}; wanted {FORMAT!r}, as fits with checkpoint= write; {other}")
    differences = [
        f"{name} {found['recipe'].get(name)!r} instead of {wanted!r}"
        for name, wanted in recipe.items()
        if found["recipe"].get(name) != wanted
    ]
    if differences:
        raise CheckpointError(f"{path} is of another run: it has {', '.join(differences)}; {other}")
    state: dict[str, Any] = found["state"]
    return state
