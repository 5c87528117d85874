"""``xinc replay``: compute a result again and compare it."""

import csv
import inspect
import io
import json
import math
import re
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext, redirect_stdout
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
import typer
from safetensors import safe_open
from torch import Tensor
from typer import Argument

from .. import store
from .._optional import require
from .command import COMMANDS, KEYS, UsageError, digest, machine

Values = Tensor | tuple[str, ...]
SAME_BITS, SAME_TEXT = "bit-identical", "same text"


class ArrayComparison(NamedTuple):
    """Comparison of one array of two results."""

    name: str  # of its file, and in the file
    same: bool  # dtype, shape and bits are equal, or the values are within the tolerance
    text: str  # the difference


def compare_folders(before: Path, after: Path, tolerance: float = 0.0) -> Iterator[ArrayComparison]:
    """Compare the arrays of two folders: tensors of ``.safetensors``, arrays of ``.zarr``, columns of ``.csv``.

    Images and pages are made from these and are not compared. Floats may differ by ``tolerance``, a share of the
    largest magnitude in their array, and rounded floats (int8, uint8, uint16) then by 1; with 0, arrays must be
    bit-identical.
    """
    one, two = _arrays(before), _arrays(after)
    for name in [*one, *(name for name in two if name not in one)]:
        if name not in one or name not in two:
            yield ArrayComparison(name, False, "only in the bundle" if name in one else "only in the replay")
        else:
            yield _compare(name, one[name](), two[name](), tolerance)


def _compare(name: str, a: Values, b: Values, tolerance: float) -> ArrayComparison:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return ArrayComparison(name, a == b, SAME_TEXT if a == b else "other text")
    if a.dtype != b.dtype or a.shape != b.shape:
        return ArrayComparison(name, False, f"{a.dtype} {tuple(a.shape)} before, {b.dtype} {tuple(b.shape)} now")
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    if torch.equal(*bits):
        return ArrayComparison(name, True, SAME_BITS)
    wide = torch.complex128 if a.is_complex() else torch.float64
    u, v = a.to(wide), b.to(wide)
    alike = (u == v) | (u.isnan() & v.isnan())
    if alike.all():
        return ArrayComparison(name, tolerance > 0, "equal except for signs of zeros or kinds of NaN")
    far = float(torch.where(alike, 0.0, (u - v).abs()).max())
    text = f"differs by up to {far:.3g} in {int((~alike).sum()):,} of {a.numel():,} places"
    if a.is_floating_point() or a.is_complex():
        most = tolerance * float(a.abs().double().nan_to_num(0.0, 0.0, 0.0).max())  # of the largest finite magnitude
    else:
        most = 1.0 if a.dtype in (torch.int8, torch.uint8, torch.uint16) else 0.0  # rounded floats
    return ArrayComparison(name, tolerance > 0 and far <= most, text)


def _arrays(folder: Path) -> dict[str, Callable[[], Values]]:
    """Return a function that reads each array of a folder, sorted by name."""
    readers: dict[str, Callable[[], Values]] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            names = sorted(opened.keys())
        readers |= {f"{file.relative_to(folder)}: {key}": partial(_tensor, file, key) for key in names}
    for file in sorted(folder.rglob("*.csv")):
        with file.open(newline="", encoding="utf-8") as text:
            head = next(csv.reader(text), [])
        readers |= {f"{file.relative_to(folder)}: {key}": partial(_column, file, i) for i, key in enumerate(head)}
    for group in sorted(folder.rglob("*.zarr")):
        zarr = require("zarr", purpose="reading the canvas of the result", extra="store")
        for key, node in sorted(zarr.open_group(group, mode="r").members(max_depth=None)):
            if isinstance(node, zarr.Array):
                readers[f"{group.relative_to(folder)}: {key}"] = partial(_zarr_values, node)
    return readers


def _tensor(file: Path, key: str) -> Tensor:
    with safe_open(file, "pt") as opened:
        tensor: Tensor = opened.get_tensor(key)
    return tensor


def _column(file: Path, index: int) -> Values:
    with file.open(newline="", encoding="utf-8") as text:
        cells = tuple(row[index] if index < len(row) else "" for row in list(csv.reader(text))[1:])
    try:
        return torch.tensor([float(cell) for cell in cells], dtype=torch.float64)
    except ValueError:
        return cells


def _zarr_values(node: "np.typing.ArrayLike") -> Values:
    array = np.asarray(node)
    if array.dtype.kind in "OSUT":
        return tuple(str(one) for one in array.ravel())
    return torch.from_numpy(np.ascontiguousarray(array))


ABOUT_THE_RUN = {"command", "versions", "outputs", "call"}  # entries that describe the run, not the result
ADDED = {"weights": None}  # options that earlier results do not record, with their defaults
PLACES = {"link.folder"}  # paths of inputs, whose digests are compared instead


def differences(before: Any, after: Any, name: str = "", tolerance: float = 0.0) -> Iterator[str]:
    """Yield every entry of two manifests that differs, with its position: "units[0].rho: 0.5 before, 0.4 now".

    With a ``tolerance``, floats may differ by it (times the larger of them and 1), and hashes, which may be of floats,
    are not compared.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(key for key in after if key not in before)]
        for key in names if name else [key for key in names if key not in ABOUT_THE_RUN]:
            inside = f"{name}.{key}" if name else str(key)
            yield from differences(before.get(key), after.get(key), inside, tolerance)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{name}[{i}]", tolerance)
    elif name not in PLACES and not _alike(before, after, tolerance):
        yield f"{name}: {before!r} before, {after!r} now"


def _alike(before: Any, after: Any, tolerance: float) -> bool:
    if before == after or before != before:  # both are NaN
        return True
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=tolerance, abs_tol=tolerance)
    hashes = [isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in (before, after)]
    return tolerance > 0 and all(hashes)


SELF = "xinc-captum"
_AGAIN = "Restore it from a backup, or run the command again."
# On another machine, of the largest value of an array: three times the change by other kernels in our tests.
TOLERANCE = 1e-3


def replay_command(
    folder: Annotated[Path, Argument(metavar="RESULT", help="Result folder of an xinc command.", show_default=False)],
) -> None:
    """Compute a result again and compare it array by array; exit status 1 if one differs.

    On the machine that made it, with the same versions, arrays must be bit-identical. On another machine, floats
    may differ by 0.001 of the largest value of their array.
    """
    if not replay(folder):
        raise typer.Exit(1)


def replay(folder: Path) -> bool:
    """Compute a result again; return whether all arrays and all entries of the manifest are the same.

    With the processor, GPU, threads and versions of the manifest, arrays must be bit-identical. With others, whose
    kernels round differently, floats may differ by ``TOLERANCE`` of the largest value of their array, numbers of the
    manifest as much, and hashes are not compared. After a fit of many steps differences can be larger, and samples
    selected by hashes of floats, such as a link's reservoir, differ; the printed lines list these arrays.
    """
    note = read_manifest(folder)
    command, settings = resolve_call(folder, note)
    elsewhere = _other_rounding(note)
    for line in elsewhere:
        typer.echo(line)
    tolerance = TOLERANCE if elsewhere else 0.0
    typer.echo(f"computing {folder} again, with the settings in its manifest …")
    with tempfile.TemporaryDirectory(prefix="xinc-replay.") as temporary:
        again = Path(temporary) / folder.resolve().name
        with _environment(note["call"]), redirect_stdout(io.StringIO()):  # it names the temporary folder
            command(**settings, out=again)
        comparisons = list(compare_folders(folder, again, tolerance))
        changes = list(differences(note, read_manifest(again), tolerance=tolerance))
    for one in comparisons:
        typer.echo(f"  {one.name}: {one.text}")
    for line in changes:
        typer.echo(f"  {store.MANIFEST}: {line}")
    same = sum(one.text in (SAME_BITS, SAME_TEXT) for one in comparisons)
    near = sum(one.same for one in comparisons) - same
    close = f", {near} more within {TOLERANCE:g} of their largest value" if near else ""
    count = f"{len(changes)} entr{'y' if len(changes) == 1 else 'ies'}"
    rest = f"its manifest differs in {count}" if changes else "its manifest is equal"
    typer.echo(
        f"{same} of {len(comparisons)} arrays of {folder} are bit-identical{close}, and {rest}; images are not compared"
    )
    return same + near == len(comparisons) and not changes


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a result and check the sha256 of every file."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; expected a result folder of an xinc command.")
    try:
        note: dict[str, Any] = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} has no readable {store.MANIFEST}; expected a result folder of an xinc command."
        ) from error
    made = note.get("format") if isinstance(note, dict) else None
    if made != store.FORMAT:
        raise UsageError(f"{folder} has the format {made!r}; this version reads {store.FORMAT!r}.")
    outputs = note.get("outputs", {})
    if not isinstance(outputs, dict):
        raise UsageError(f"{folder} is damaged: {store.MANIFEST} does not list its files. {_AGAIN}")
    for name, written in outputs.items():
        file = folder / name
        if not file.is_file() or store.sha256(file) != written:
            how = "has changed since it was written" if file.is_file() else "is missing"
            raise UsageError(f"{folder} is damaged: {name} {how}. {_AGAIN}")
    return note


def resolve_call(folder: Path, note: dict[str, Any]) -> tuple[Callable[..., None], dict[str, Any]]:
    """Return the command that wrote a result, and its settings, after a check of the files that it reads."""
    made, mine = note.get("versions", {}).get(SELF), store.versions()[SELF]
    if made != mine:
        raise UsageError(f"{folder} was made by {SELF} {made}, and this is {mine}; replay it with that version.")
    call = note.get("call")
    if not isinstance(call, dict) or call.get("command") not in COMMANDS:
        raise UsageError(
            f"{folder} has no recorded call of a command, because it was saved from Python. Only results of these "
            f"commands can be replayed: {', '.join(sorted(COMMANDS.keys() - {'video'}))}."
        )
    if not all(isinstance(call.get(part), dict) for part in ("settings", "files")):
        raise UsageError(f"{folder} is damaged: {store.MANIFEST} has no settings of its command. {_AGAIN}")
    for name, sha256 in call["files"].items():
        if not Path(name).exists():
            raise FileNotFoundError(f"{name}, an input of {folder}, is missing; restore it and try again.")
        if digest(Path(name)) != sha256:
            raise UsageError(f"{name} has changed since {folder} was made from it; restore it and try again.")
    command = COMMANDS[call["command"]]
    hints = get_type_hints(command)
    keys = KEYS.get(call["command"], {})
    parameters = {keys.get(name, name): name for name in inspect.signature(command).parameters if name != "out"}
    recorded = {key: default for key, default in ADDED.items() if key in parameters} | call["settings"]
    if recorded.keys() != parameters.keys():
        odd = sorted(recorded.keys() ^ parameters.keys())
        raise UsageError(f"the settings in {folder} do not fit xinc {call['command']}: {', '.join(odd)}.")
    settings = {parameters[key]: value for key, value in recorded.items()}
    try:
        return command, {name: _convert(value, hints[name]) for name, value in settings.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"the settings in {folder} cannot be read: {error}.") from error


def _convert(value: Any, hint: Any) -> Any:
    """Convert a value of a manifest to the type of the command's annotation: Path, Enum, or a list of these."""
    if value is None:
        return None
    if get_origin(hint) is types.UnionType:
        hint = next(one for one in get_args(hint) if one is not types.NoneType)
    if get_origin(hint) is list:
        return [_convert(one, get_args(hint)[0]) for one in value]
    if isinstance(hint, type) and issubclass(hint, Path | Enum):
        return hint(value)
    if not isinstance(value, (int, float) if hint is float else hint):
        raise TypeError(f"{value!r} is a {type(value).__name__}; expected {hint.__name__}")
    return value


def _other_rounding(note: dict[str, Any]) -> list[str]:
    """Return the versions and the machine that are not those of the result, as text."""
    now, call = store.versions(), note["call"]
    pairs = [(name, then, now.get(name)) for name, then in note["versions"].items()]
    pairs.append(("machine", call.get("machine", "not recorded"), machine(str(call["settings"].get("device", "cpu")))))
    changes = [(name, then, here) for name, then, here in pairs if then != here]
    return [f"{name}: {then} before, {here} now; arrays may differ in their last bits" for name, then, here in changes]


@contextmanager
def _environment(call: dict[str, Any]) -> Iterator[None]:
    """Run the block in the working directory of a call and with its number of threads.

    Modules are imported from the directory, if it still exists; the number of threads decides the order of sums.
    """
    folder, count, before = call.get("directory"), call.get("threads"), torch.get_num_threads()
    torch.set_num_threads(count if isinstance(count, int) and count > 0 else before)
    try:
        with chdir(folder) if isinstance(folder, str) and Path(folder).is_dir() else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)
