"""Read files of weights, and load them into a model with errors that name the keys that differ."""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

State = dict[str, Tensor]
NESTS = ("state_dict", "model_state_dict", "model_state", "model")  # of training loops
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile and Lightning
# Buffers that some versions of a library save and others compute.
_COMPUTED = re.compile(r"(num_batches_tracked|position_ids|relative_position_index|attn_mask|total_ops|total_params)$")
_MAX_LISTED = 3


class ModelError(ValueError):
    """A model that cannot be resolved by its name, or weights that do not fit it."""


def read_weights(path: str | Path) -> State:
    """Return the tensors of a .safetensors file or of a saved state dict, without the nestings of training loops.

    Other files are read by ``torch.load(weights_only=True)``, which runs no code of the file.

    Raises:
        ModelError: no such file, a file that cannot be read, a pickle of other objects, or no tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(
            f"weights={str(path)!r} is not a file; expected the path of a .safetensors file or of a saved state dict, "
            "'DEFAULT' or 'random'."
        )
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is a pickle that holds more than tensors, and loading it could run code, so it is not loaded. "
            "If you trust it: torch.save(torch.load(path, weights_only=False).state_dict(), new_path) for a saved "
            "model, and give the new file."
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} cannot be read as weights ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "expected a .safetensors file, or a state dict saved by torch.save."
        ) from error
    return _unwrap(loaded, path)


def _unwrap(loaded: Any, path: Path) -> State:
    while isinstance(loaded, Mapping):
        nested = next((loaded[key] for key in NESTS if isinstance(loaded.get(key), Mapping)), None)
        if nested is None:
            break
        loaded = nested
    items = loaded.items() if isinstance(loaded, Mapping) else ()
    state = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        kind = f"keys {list(loaded)[:_MAX_LISTED]}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise ModelError(
            f"{path} holds {kind} and no tensors by name; expected a state dict, {{name: tensor}}, or one below "
            f"{', '.join(map(repr, NESTS))}."
        )
    return state


def without_prefixes(state: State, expected: Mapping[str, Any]) -> State:
    """Return the weights without a prefix that all of them share and that no key of the model has."""
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in state) and not any(key.startswith(prefix) for key in expected):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


class Mismatch(NamedTuple):
    """Keys in which weights differ from those of a model."""

    missing: list[str]
    unexpected: list[str]
    shapes: list[str]

    @classmethod
    def of(cls, state: State, expected: Mapping[str, Tensor]) -> "Mismatch":
        """Compare keys and shapes."""
        missing = [key for key in expected if key not in state and not _COMPUTED.search(key)]
        unexpected = [key for key in state if key not in expected and not _COMPUTED.search(key)]
        return cls(missing, unexpected, [k for k in state if k in expected and state[k].shape != expected[k].shape])

    def text(self, state: State, expected: Mapping[str, Tensor]) -> str:
        """Return the counts and the first keys of each kind."""
        parts = [
            (self.missing, "missing", lambda key: f"{key} {tuple(expected[key].shape)}"),
            (self.unexpected, "unexpected", lambda key: f"{key} {tuple(state[key].shape)}"),
            (
                self.shapes,
                "of another shape",
                lambda key: f"{key} {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}",
            ),
        ]
        return "; ".join(f"{len(keys)} {what} ({_first(keys, show)})" for keys, what, show in parts if keys)


def _first(keys: Sequence[str], show: Callable[[str], str]) -> str:
    return ", ".join(map(show, keys[:_MAX_LISTED])) + (" …" if len(keys) > _MAX_LISTED else "")


def number_of_classes(state: State, expected: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of the weights if they differ from the model in their last layer alone, else None.

    Either that layer has another number of rows, or the model has none and the weights have a single further layer.
    """
    missing, unexpected, shapes = Mismatch.of(state, expected)
    if not missing and not shapes and len({key.rpartition(".")[0] for key in unexpected}) == 1:
        weights = [state[key] for key in unexpected if key.endswith(".weight") and state[key].dim() == 2]
        return weights[0].shape[0] if weights else None
    differ = [(state[key].shape, expected[key].shape) for key in shapes]
    rows = {(here[0], there[0]) if here[1:] == there[1:] and len(here) else None for here, there in differ}
    modules = {key.rpartition(".")[0] for key in shapes}
    pair = rows.pop() if len(rows) == len(modules) == 1 else None
    return None if missing or unexpected or pair is None else pair[0]


def load_weights(model: nn.Module, state: State, path: str | Path, name: str) -> None:
    """Load weights into a model; ModelError if keys or shapes differ."""
    expected = model.state_dict()
    mismatch = Mismatch.of(state, expected)
    if any(mismatch):
        raise ModelError(
            f"the weights in {path} do not fit {name}. Keys: {mismatch.text(state, expected)}. Give weights of this "
            "architecture, or the name of the architecture that they belong to."
        )
    model.load_state_dict(state, strict=False)
