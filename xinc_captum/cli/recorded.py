"""What a command was asked, kept in its manifest, so that ``xinc replay`` can ask it again."""

import hashlib
import inspect
import json
import os
import platform
from collections.abc import Callable, Mapping
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import torch

from .. import store
from .device import device_called

P = ParamSpec("P")


def recorded(name: str, *files: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Let a command's manifest say ``call``: its name, settings, the files it reads, its threads and machine.

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
            with store.calling(_call(name, given.arguments, files)):
                function(*args, **kwargs)

        return command

    return around


def _call(name: str, given: Mapping[str, Any], files: tuple[str, ...]) -> dict[str, Any]:
    read: dict[str, str] = {}

    def plain(value: Any, names_a_file: bool) -> Any:
        if isinstance(value, list):
            return [plain(one, names_a_file) for one in value]
        if isinstance(value, Path) or (names_a_file and isinstance(value, str) and Path(value).exists()):
            path = Path(value).resolve()
            if path.exists():  # else the command says so in its own words
                read[str(path)] = digest(path)
            return str(path)
        return value.value if isinstance(value, Enum) else value

    settings = {key: plain(value, key in files) for key, value in given.items() if key != "out"}
    if settings.get("device") == "auto":
        settings["device"] = str(device_called("auto"))
    return {
        "command": name,
        "settings": settings,
        "files": read,
        "threads": torch.get_num_threads(),
        "machine": machine(str(settings.get("device", "cpu"))),
    }


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
    """Hex digest of a file, or of the names and contents of a folder's files (of an earlier result: of its outputs)."""
    if path.is_file():
        return store.sha256(path)
    found = hashlib.sha256()
    for file in _files(path):
        found.update(f"{file}\0{store.sha256(path / file)}\n".encode())
    return found.hexdigest()


def _files(folder: Path) -> list[str]:
    try:
        outputs = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))["outputs"]
        return sorted(name for name in outputs if (folder / name).is_file())
    except (OSError, ValueError, KeyError, TypeError):
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
