"""What a command was asked, kept in its manifest, so that ``xinc replay`` can ask it again."""

import hashlib
import inspect
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import torch

from .. import store
from .errors import UsageError, device_called

P = ParamSpec("P")


def recorded(name: str, *files: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Let a command's manifest say ``call``: its name, settings, the files it reads, its threads and machine.

    The command gets its paths in the form in which the manifest keeps them, :func:`located`. What it writes of them is
    then the same in a replay, whatever the working directory was and however the paths were given.

    Args:
        name: of the command, as :mod:`.replay` knows it.
        files: parameters of type ``str`` that may name a file or a folder; those of type ``Path`` always do.
    """

    def around(function: Callable[P, None]) -> Callable[P, None]:
        signature = inspect.signature(function)

        @wraps(function)
        def command(*args: P.args, **kwargs: P.kwargs) -> None:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            for key, value in given.arguments.items():
                if key != "out":
                    given.arguments[key] = _located(value, key in files)
            call = _call(name, given.arguments, files)
            _check_inputs_stay(Path(given.arguments["out"]), call["files"])
            with store.record_call(call):
                function(*given.args, **given.kwargs)

        return command

    return around


def _check_inputs_stay(out: Path, files: Iterable[str]) -> None:
    """Raise a UsageError where the result would take the place of what the command reads."""
    place = out.resolve()
    for file in files:
        read = Path(file).resolve()
        if place.is_dir() and (place == read or place in read.parents):
            raise UsageError(f"--out {out} would replace {file}, which this command reads; give another folder.")


def located(path: Path) -> Path:
    """Return an absolute path with the name that was given: folders above it are resolved, a link is not followed."""
    path = path.absolute()
    return path.resolve() if path.name in {"", ".."} else path.parent.resolve() / path.name


def _located(value: Any, names_a_file: bool) -> Any:
    if isinstance(value, list):
        return [_located(one, names_a_file) for one in value]
    if isinstance(value, Path):
        return located(value)
    return str(located(Path(value))) if names_a_file and isinstance(value, str) and Path(value).exists() else value


def _call(name: str, given: Mapping[str, Any], files: tuple[str, ...]) -> dict[str, Any]:
    read: dict[str, str] = {}

    def plain(value: Any, names_a_file: bool) -> Any:
        if isinstance(value, list):
            return [plain(one, names_a_file) for one in value]
        if isinstance(value, Path) or (names_a_file and isinstance(value, str) and Path(value).exists()):
            if Path(value).exists():  # else the command says so in its own words
                read[str(value)] = digest(Path(value))
            return str(value)
        return value.value if isinstance(value, Enum) else value

    settings = {key: plain(value, key in files) for key, value in given.items() if key != "out"}
    if settings.get("device") == "auto":
        settings["device"] = str(device_called("auto"))
    found = {
        "command": name,
        "settings": settings,
        "files": read,
        "threads": torch.get_num_threads(),
        "machine": machine(str(settings.get("device", "cpu"))),
    }
    if any(isinstance(value, str) and ":" in value for value in settings.values()):
        found["directory"] = str(Path.cwd())  # where module:function was looked for
    return found


def machine(device: str) -> str:
    """What rounding depends on besides threads and versions: processor, its kernels in use, and the GPU computed on.

    Args:
        device: as the command got it, such as "cpu" or "cuda:0".
    """
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
    """Hex digest of a file, or of the names and contents of a folder's files (of an earlier result: of its outputs).

    In a folder of photos hidden files and earlier results do not count; commands do not read them.
    """
    if path.is_file():
        return store.sha256(path)
    found = hashlib.sha256()
    for file in _files(path):
        found.update(f"{file}\0{store.sha256(path / file)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _files(folder: Path) -> list[str]:
    try:
        outputs = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))["outputs"]
        return sorted(name for name in outputs if (folder / name).is_file())
    except (OSError, ValueError, KeyError, TypeError):
        results = store.results_below(folder)
        files = [p for p in folder.rglob("*") if p.is_file() and not results & set(p.parents)]
        return sorted(str(p.relative_to(folder)) for p in files if not store.is_hidden(p, folder))
