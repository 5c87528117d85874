"""The training loop, its checkpoints, and checks of models that are to be trained."""

import hashlib
import json
import math
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .. import store
from ..batch import python_index
from ..hooks import exclusive
from ..progress import progress_bar
from ..store import sha256_of_bytes

KIND, WRITER = "training", "a fit with checkpoint="
FORMAT_1 = "xinc-captum-training-1"  # an archive of torch.save, without a checksum
B = TypeVar("B")


class CheckpointError(store.StoreError):
    """A checkpoint of another run, a damaged one, or one that cannot be written."""


def digest(values: Tensor) -> str:
    """Return the sha256 of a tensor's shape and of its values as float32; it is equal on every device."""
    hasher = hashlib.sha256(repr(tuple(values.shape)).encode())
    for part in values.detach().flatten().split(1 << 24):  # numbers that are copied to the CPU in one piece
        hasher.update(part.float().cpu().numpy().tobytes())
    return hasher.hexdigest()


def architecture_digest(model: nn.Module) -> str:
    """Return a sha256 that is equal for models with equal modules, names, shapes and dtypes, whatever their values."""
    tensors = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()}
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    return sha256_of_bytes(repr((str(model), tensors, trained)).encode())


def save_run(path: str | Path, recipe: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, strings and None; :func:`load_run` compares the recipe.

    An earlier checkpoint is unchanged where the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    note = {"recipe": dict(recipe), "state": _flatten(state, tensors)}
    try:
        store.write_tensors(path, tensors, kind=KIND, metadata=note)
    except store.StoreError as error:
        more = f" The run can be resumed from it with checkpoint={str(path)!r}." if Path(path).is_file() else ""
        raise CheckpointError(f"checkpoint: {error}{more}") from error


def load_run(path: str | Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state of :func:`save_run`, or None without a file; a damaged or other run raises CheckpointError."""
    path = Path(path)
    if not path.is_file():
        return None
    remedy = "give another file, or remove it to start again."
    try:
        stored, state = _version_1(path) if _is_archive(path) else _read(path)
    except store.StoreError as error:
        raise CheckpointError(f"{error} Or {remedy}") from error
    settings = json.loads(json.dumps(dict(recipe)))  # JSON has lists for tuples
    differences = [
        f"{name} {stored.get(name)!r} instead of {value!r}"
        for name, value in settings.items()
        if stored.get(name) != value
    ]
    if differences:
        raise CheckpointError(f"{path} is of another run: it has {', '.join(differences)}; {remedy}")
    return state


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    tensors, note = store.read_tensors(path, kind=KIND, writer=WRITER)
    with store.consistent(path, WRITER):
        return note["recipe"], _restore(note["state"], tensors)


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return ``value`` for JSON: each tensor is moved to ``tensors`` and replaced by its number."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, Mapping):  # pairs: JSON turns the integer keys of optimizers into strings
        return {"dict": [[key, _flatten(one, tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_flatten(one, tensors) for one in value]}
    return python_index(value)


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _restore(one, tensors) for key, one in content}
    items = [_restore(one, tensors) for one in content]
    return tuple(items) if kind == "tuple" else items


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.read(9)
    return first.startswith(b"PK") and first[8:] != b"{"


def _version_1(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint of an earlier version of this package, which has no checksum."""
    try:
        archive = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise store.StoreError(f"{path} is not a complete checkpoint ({reason}).") from error
    mark = archive.get("format") if isinstance(archive, dict) else None
    if mark != FORMAT_1:
        raise store.StoreError(f"{path} is marked {mark!r}; expected a file written by {WRITER}.")
    warnings.warn(
        f"{path} is a checkpoint of an earlier version without a checksum; damaged values cannot be detected.",
        stacklevel=3,
    )
    recipe = json.loads(json.dumps(archive["recipe"]))
    return recipe, archive["state"]


def check_at_least_one(**numbers: int | None) -> None:
    """Check that all numbers are at least 1, except those that are None."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1.")


class Validation:
    """What :func:`train` measures every few steps. This base class only shows the loss of the last step."""

    stop = False  # True ends the run

    def measure(self, step: int, losses: Tensor) -> str:
        """Measure the model after ``step`` steps, without gradients; return the text of the progress bar."""
        return f"{decibels(losses[step - 1].item()):.2f} dB"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores besides the model, the optimizer, the schedule and the losses."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict` from the content of a checkpoint, which has other entries too."""


def train(
    model: nn.Module,
    loss_of: Callable[[B, int], Tensor | tuple[Tensor, Tensor]],
    batches: Iterator[B],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    losses: Tensor,
    *,
    validation: Validation,
    every: int,
    checkpoint: str | Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    key: str = "model",
    show_progress: bool = True,
) -> tuple[int, int]:
    """Train ``model`` in place; return the number of steps taken, and how many of them a checkpoint already had.

    ``loss_of`` maps (batch, steps taken) to a scalar loss, or to (loss, record). The loss or the record is stored in
    ``losses``, zeros of shape (steps, …). ``validation`` is measured every ``every`` steps and after the last. Then a
    checkpoint is written, with the model's state under the name ``key``. A killed run continues from it: on the same
    CPU with as many threads it ends with bit-identical parameters. A finished run is not repeated. ``recipe`` has the
    settings that determine the result; a checkpoint with another recipe raises a CheckpointError. The gradients of the
    parameters are restored at the end, also after an exception.
    """
    steps, resumed_at = len(losses), 0
    recipe = {name: python_index(value) for name, value in (recipe or {}).items()}
    if checkpoint is not None and (state := load_run(checkpoint, recipe)) is not None:
        model.load_state_dict(state[key])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        validation.load_state_dict(state)
        losses.copy_(state["losses"])
        resumed_at = int(state["step"])
        for _ in range(resumed_at):
            next(batches)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters]
    step, last = resumed_at, resumed_at if validation.stop else steps
    bar = progress_bar(range(resumed_at + 1, last + 1), "fit", show=show_progress, total=steps, initial=resumed_at)
    try:
        with torch.enable_grad():
            for step in bar:
                batch = next(batches)
                with exclusive():
                    value = loss_of(batch, step - 1)
                    loss, record = value if isinstance(value, tuple) else (value, value)
                    optimizer.zero_grad()
                    loss.backward(inputs=parameters)
                    optimizer.step()
                schedule.step()
                losses[step - 1] = record.detach()
                if step % every and step != steps:
                    continue
                with torch.no_grad():
                    bar.set_postfix_str(validation.measure(step, losses))
                if checkpoint is not None:
                    state = {key: model.state_dict(), "optimizer": optimizer.state_dict()}
                    state |= {"schedule": schedule.state_dict(), "losses": losses, "step": step}
                    save_run(checkpoint, recipe, state | validation.state_dict())
                if validation.stop:
                    break
    finally:
        with exclusive():
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
    return step, resumed_at


def epoch_batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of indices below ``count``: each index once before any comes again, in a new order each round.

    The generator is on the CPU, so that every device gets the same batches.
    """
    remaining = torch.empty(0, dtype=torch.long)
    while True:
        if len(remaining) < size:
            remaining = torch.cat([remaining, torch.randperm(count, generator=generator)])
        yield remaining[:size]
        remaining = remaining[size:]


def decibels(error: float) -> float:
    """Return the PSNR of a mean squared error of values in [0, 1]; infinite for an error of 0."""
    return math.inf if error == 0 else -10 * math.log10(error)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes, after checks that it can change them."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    kind = type(model).__name__
    if not parameters:
        raise ValueError(f"no parameter of this {kind} requires a gradient; call requires_grad_() on those to train.")
    if any(p.is_inference() for p in parameters):
        raise ValueError(f"this {kind} was made under torch.inference_mode(), so it has no gradients; make it outside.")
    if any(p.dtype == torch.float16 for p in parameters):
        # Adam divides by the root of a mean square plus 1e-8; both round to 0 in float16.
        raise ValueError(f"this {kind} is torch.float16, in which steps of Adam are NaN; fit it in float32.")
    check_finite(model)
    return parameters


def check_finite(model: nn.Module, without: Collection[nn.Parameter] = ()) -> None:
    """Check that the parameters of a model, ``without`` some, are finite, by one transfer from the device."""
    skipped = {id(parameter) for parameter in without}
    named = {name: p for name, p in model.named_parameters() if id(p) not in skipped and p.is_floating_point()}
    kind = type(model).__name__
    if any(p.is_meta for p in named.values()):
        raise ValueError(
            f"this {kind} is on the meta device, where parameters have no values; load it or build it again."
        )
    if not named:
        return
    finite = torch.stack([p.detach().isfinite().all().to(next(iter(named.values())).device) for p in named.values()])
    bad = [name for name, ok in zip(named, finite.tolist(), strict=True) if not ok]
    if bad:
        raise ValueError(
            f"the parameter {bad[0]} of this {kind} holds NaN or infinite values ({len(bad)} of {len(named)} "
            "parameters do). Every result would be NaN; load the model again, or train with a smaller lr."
        )
