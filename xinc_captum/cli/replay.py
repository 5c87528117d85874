"""``xinc replay``: compute a result again, as it was asked for, and say array by array whether it is the same."""

import inspect
import io
import json
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext, redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
import typer

from .. import store
from .accentuate import accentuate_command
from .arrays import SAME_BITS, SAME_TEXT, compared
from .canvas import canvas_command
from .failures import UsageError
from .flip import counterfactual_command
from .link import link_command
from .manifests import differences
from .nern import nern_command
from .recorded import digest, machine
from .sweep import sweep_command
from .trans_inr import trans_inr_command
from .video import video_command

COMMANDS: dict[str, Callable[..., None]] = {
    "accentuate": accentuate_command,
    "canvas": canvas_command,
    "counterfactual": counterfactual_command,
    "link": link_command,
    "nern": nern_command,
    "sweep": sweep_command,
    "transinr": trans_inr_command,
    "video": video_command,
}
SELF = "xinc-captum"
_AGAIN = "Take it from a backup, or run the command anew."
# On another machine, of an array's largest value: three times what other kernels changed in our tests.
TOLERANCE = 1e-3


def replay_command(folder: Path) -> bool:
    """Everything ``xinc replay`` does; whether all arrays are the same, and all that the manifest says.

    With the processor, GPU, threads and versions that the manifest names, arrays have to be the same bits. With
    others, whose kernels round otherwise, floats may be ``TOLERANCE`` of the largest value of their array apart,
    numbers of the manifest as far, and its hashes are not compared. A fit of many steps can lead further apart, and
    what is drawn by hashes of floats, such as a link's reservoir, differs: the lines name them.

    Raises:
        FileNotFoundError: no such folder, or a file that the command read is gone.
        UsageError: no result of ours, a damaged one, one of another version, one that does not say how it was made,
            or a file that the command read is another now.
    """
    note = manifest_of(folder)
    command, settings = asked(folder, note)
    elsewhere = list(_other_rounding(note))
    for line in elsewhere:
        typer.echo(line)
    tolerance = TOLERANCE if elsewhere else 0.0
    typer.echo(f"computing {folder} again, with the settings in its manifest …")
    with tempfile.TemporaryDirectory(prefix="xinc-replay.") as place, _threads(note["call"].get("threads")):
        again = Path(place) / folder.resolve().name
        with _directory(note["call"].get("directory")), redirect_stdout(io.StringIO()):  # which names what is gone soon
            command(**settings, out=again)
        found = list(compared(folder, again, tolerance))
        others = list(differences(note, manifest_of(again), tolerance=tolerance))
    for one in found:
        typer.echo(f"  {one.name}: {one.words}")
    for line in others:
        typer.echo(f"  {store.MANIFEST}: {line}")
    same = sum(one.words in (SAME_BITS, SAME_TEXT) for one in found)
    near = sum(one.same for one in found) - same
    close = f", {near} more within {TOLERANCE:g} of their largest value" if near else ""
    said = f"{len(others)} of its manifest's entries did not" if others else "so did all that its manifest says"
    typer.echo(
        f"{same} of {len(found)} arrays of {folder} came out as the same bits{close}, and {said}; pictures were not "
        "compared"
    )
    return same + near == len(found) and not others


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a result, every file of which is as it was written.

    Raises:
        FileNotFoundError, UsageError: as :func:`replay_command`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; wanted a result of an xinc command.")
    try:
        note: dict[str, Any] = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} has no {store.MANIFEST} that can be read; wanted a result of xinc.") from error
    made = note.get("format") if isinstance(note, dict) else None
    if made != store.FORMAT:
        raise UsageError(f"{folder} is of the format {made!r}; this version reads {store.FORMAT!r}.")
    outputs = note.get("outputs", {})
    if not isinstance(outputs, dict):
        raise UsageError(f"{folder} is damaged: {store.MANIFEST} does not list its files. {_AGAIN}")
    for name, written in outputs.items():
        file = folder / name
        if not file.is_file() or store.sha256(file) != written:
            how = "has changed since it was written" if file.is_file() else "is missing"
            raise UsageError(f"{folder} is damaged: {name} {how}. {_AGAIN}")
    return note


def asked(folder: Path, note: dict[str, Any]) -> tuple[Callable[..., None], dict[str, Any]]:
    """The command that wrote a result, and its settings.

    Raises:
        FileNotFoundError, UsageError: as :func:`replay_command`.
    """
    made, mine = note.get("versions", {}).get(SELF), store.versions()[SELF]
    if made != mine:
        raise UsageError(f"{folder} was made by {SELF} {made}, and this is {mine}; replay it with that version.")
    call = note.get("call")
    if not isinstance(call, dict) or call.get("command") not in COMMANDS:
        raise UsageError(
            f"{folder} does not say which command made it with which settings: it was saved from Python. Only results "
            f"of the commands can be replayed: {', '.join(name for name in COMMANDS if name != 'video')}."
        )
    if not all(isinstance(call.get(part), dict) for part in ("settings", "files")):
        raise UsageError(f"{folder} is damaged: {store.MANIFEST} does not hold the settings of its command. {_AGAIN}")
    for name, seen in call["files"].items():
        if not Path(name).exists():
            raise FileNotFoundError(f"{name}, which {folder} was made from, is gone; put it back there and try again.")
        if digest(Path(name)) != seen:
            raise UsageError(f"{name} is not what it was when {folder} was made from it; put that back and try again.")
    command = COMMANDS[call["command"]]
    hints = get_type_hints(command)
    wanted = set(inspect.signature(command).parameters) - {"out"}
    if set(call["settings"]) != wanted:
        odd = sorted(set(call["settings"]) ^ wanted)
        raise UsageError(f"the settings in {folder} do not fit xinc {call['command']}: {', '.join(odd)}.")
    try:
        return command, {name: _typed(value, hints[name]) for name, value in call["settings"].items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"the settings in {folder} cannot be read: {error}.") from error


def _typed(value: Any, hint: Any) -> Any:
    """A value of a manifest as the command's annotation wants it: a Path, one of an Enum, or lists of such."""
    if value is None:
        return None
    if get_origin(hint) is types.UnionType:
        hint = next(one for one in get_args(hint) if one is not types.NoneType)
    if get_origin(hint) is list:
        return [_typed(one, get_args(hint)[0]) for one in value]
    if isinstance(hint, type) and issubclass(hint, Path | Enum):
        return hint(value)
    if not isinstance(value, (int, float) if hint is float else hint):
        raise TypeError(f"{value!r} is a {type(value).__name__}; wanted {hint.__name__}")
    return value


def _other_rounding(note: dict[str, Any]) -> Iterator[str]:
    now = store.versions()
    for name, then in note["versions"].items():
        if now.get(name) != then:
            yield f"{name}: {then} then, {now.get(name)} now; the last bits of arrays may differ"
    here, there = (
        machine(str(note["call"]["settings"].get("device", "cpu"))),
        note["call"].get("machine", "not recorded"),
    )
    if here != there:
        yield f"machine: {there} then, {here} now; the last bits of arrays may differ"


@contextmanager
def _directory(name: object) -> Iterator[None]:
    """The working directory that the command had, where it still is: its own modules are imported from there."""
    with chdir(name) if isinstance(name, str) and Path(name).is_dir() else nullcontext():
        yield


@contextmanager
def _threads(count: object) -> Iterator[None]:
    """As many threads as the command had: sums are taken in another order with more or fewer."""
    found = torch.get_num_threads()
    torch.set_num_threads(count if isinstance(count, int) and count > 0 else found)
    try:
        yield
    finally:
        torch.set_num_threads(found)
