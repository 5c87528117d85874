"""Shared by all commands: the application, options, errors, the recorded call, and the result folder."""

import hashlib
import inspect
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import torch
import typer
from matplotlib.figure import Figure
from typer import Option

from .. import __version__, store
from ..visualizers.report import Picture

P = ParamSpec("P")

Out = Annotated[Path, Option(help="Output folder, new or empty; an earlier result in it is replaced.")]
Seed = Annotated[int, Option(help="Random seed.", min=-(2**63), max=2**63 - 1)]  # torch's range
Device = Annotated[str, Option(help="cpu, cuda, cuda:1 …; auto uses a GPU if there is one.")]

COMMANDS: dict[str, Callable[..., None]] = {}  # those of record_settings(), which xinc replay can run again
# Keys in manifests that are not the name of the command's parameter.
KEYS = {"transinr": {"images": "sources"}}
_STARTED: ContextVar[float] = ContextVar("_STARTED")

HELP = (
    "Compute the contribution of neurons and tokens to images, change photos to show what a class or unit responds to, "
    "and generate images for the units of a classifier."
)
app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(print_it: bool) -> None:
    if print_it:
        typer.echo(f"xinc-captum {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def _root(
    version: Annotated[
        bool, Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


class UsageError(ValueError):
    """An option has a value that cannot be used."""


def find_device(name: str) -> torch.device:
    """Return the device with this name; ``auto`` is a GPU if there is one. UsageError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.Generator(name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device {name!r} cannot be used here ({reason}); try --device cpu or --device auto."
        ) from error


def record_settings(name: str, *files: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Decorate a command: check its output folder, and record its call under ``name`` for ``xinc replay``.

    ``files`` are parameters of type ``str`` that may name a file or a folder; those of type ``Path`` always do.
    The command receives absolute paths, as the manifest stores them, so that a replay writes the same texts in any
    working directory.
    """

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        signature = inspect.signature(function)

        @wraps(function)
        def command(*args: P.args, **kwargs: P.kwargs) -> None:
            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            arguments = call.arguments
            for key, value in arguments.items():
                if key != "out":
                    arguments[key] = _with_absolute_paths(value, key in files)
            record = _call(name, arguments, files)
            _check_inputs_stay(Path(arguments["out"]), record["files"])
            store.check_folder(arguments["out"])
            _STARTED.set(time.perf_counter())
            with store.record_call(record):
                function(*call.args, **call.kwargs)

        COMMANDS[name] = command
        return command

    return decorate


def _seconds() -> float:
    """Return the seconds since the running command began."""
    return time.perf_counter() - _STARTED.get()


@contextmanager
def result_folder(out: Path, note: Mapping[str, Any], before: str | None = None) -> Iterator[Path]:
    """Yield a folder that replaces ``out`` at the end, with the manifest and ``times.json``; print which page to open.

    The block may add entries to ``note``, those of the manifest. ``before`` names the entry of ``times.json`` for the
    seconds before the block.
    """
    times = {} if before is None else {before: round(_seconds(), 1)}
    with store.bundle(out, note) as folder:
        yield folder
        times["all_seconds"] = round(_seconds(), 1)
        (folder / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {_seconds():.0f} s; open {out / 'index.html'}")


def save_picture(folder: Path, file: str, figure: Figure, caption: str, dpi: int = 110) -> Picture:
    """Save a figure, and return it with its caption for a page."""
    figure.savefig(folder / file, dpi=dpi, metadata={"Software": None})
    return Picture(file, caption)


def _check_inputs_stay(out: Path, files: Iterable[str]) -> None:
    """Raise a UsageError if the result would replace a file that the command reads."""
    target = out.resolve()
    for file in files:
        source = Path(file).resolve()
        if target.is_dir() and (target == source or target in source.parents):
            raise UsageError(f"--out {out} would replace {file}, which this command reads; give another folder.")


def _with_absolute_paths(value: Any, names_a_file: bool) -> Any:
    """Return an option with absolute paths: the folders above a file are resolved, a link is not followed."""
    if isinstance(value, list):
        return [_with_absolute_paths(item, names_a_file) for item in value]
    if not isinstance(value, Path) and not (names_a_file and _exists(value)):
        return value
    path = Path(value).absolute()
    return type(value)(path.resolve() if path.name in {"", ".."} else path.parent.resolve() / path.name)


def _exists(value: Any) -> bool:
    return isinstance(value, str) and Path(value).exists()


def _call(name: str, arguments: Mapping[str, Any], files: tuple[str, ...]) -> dict[str, Any]:
    digests: dict[str, str] = {}

    def plain(value: Any, names_a_file: bool) -> Any:
        if isinstance(value, list):
            return [plain(item, names_a_file) for item in value]
        if isinstance(value, Path) or (names_a_file and _exists(value)):
            if Path(value).exists():  # otherwise the command raises its own error
                digests[str(value)] = digest(Path(value))
            return str(value)
        return value.value if isinstance(value, Enum) else value

    keys = KEYS.get(name, {})
    settings = {keys.get(key, key): plain(value, key in files) for key, value in arguments.items() if key != "out"}
    if settings.get("device") == "auto":
        settings["device"] = str(find_device("auto"))
    call = {
        "command": name,
        "settings": settings,
        "files": digests,
        "threads": torch.get_num_threads(),
        "machine": machine(str(settings.get("device", "cpu"))),
    }
    if any(isinstance(value, str) and ":" in value for value in settings.values()):
        call["directory"] = str(Path.cwd())  # module:function is imported from there
    return call


def machine(device: str) -> str:
    """Return what rounding depends on besides threads and versions: processor, its instruction set, and the GPU."""
    parts = [_processor(), torch.backends.cpu.get_cpu_capability()]
    parts += [f"{name}={os.environ[name]}" for name in ("ONEDNN_MAX_CPU_ISA", "MKL_CBWR") if name in os.environ]
    if device.startswith("cuda") and torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name(torch.device(device)))
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of a folder's files.

    Of a result folder only the outputs count. In a folder of photos hidden files and result folders do not count,
    because commands do not read them.
    """
    if path.is_file():
        return store.sha256(path)
    total = hashlib.sha256()
    for file in _files(path):
        total.update(f"{file}\0{store.sha256(path / file)}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _files(folder: Path) -> list[str]:
    try:
        outputs = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))["outputs"]
        return sorted(name for name in outputs if (folder / name).is_file())
    except (OSError, ValueError, KeyError, TypeError):
        results = store.results_below(folder)
        files = [p for p in folder.rglob("*") if p.is_file() and not results & set(p.parents)]
        return sorted(str(p.relative_to(folder)) for p in files if not store.is_hidden(p, folder))
