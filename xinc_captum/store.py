"""Result folders with a manifest, and tensor files with a checksum: written whole or not at all."""

import errno
import hashlib
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

from .tensor_files import (
    StoreError,
    TensorFile,
    check_state,
    consistent,
    read_tensors,
    replaced,
    tensor_file_bytes,
    tensors_sha256,
    write_tensors,
)

__all__ = [
    "StoreError",
    "TensorFile",
    "bundle",
    "calling",
    "check_folder",
    "check_state",
    "consistent",
    "read_tensors",
    "replaced",
    "sha256",
    "tensor_file_bytes",
    "tensors_sha256",
    "versions",
    "write_tensors",
]

MANIFEST = "manifest.json"
FORMAT = "xinc-captum-result-1"
FULL = (errno.ENOSPC, errno.EDQUOT)
TIMES = "times.json"  # what differs between equal runs; not hashed
_VERSIONS = ("xinc-captum", "torch", "torchvision", "captum", "numpy", "matplotlib", "Pillow", "safetensors")


_CALL: ContextVar[Mapping[str, Any] | None] = ContextVar("_CALL", default=None)


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_folder(path: str | Path) -> Path:
    """Make sure, before any work, that a result folder can be put there.

    Raises:
        StoreError: the place is a file, holds something that is no earlier result, or cannot be written to.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; give a folder that is new, empty, or an earlier result.")
    if path.is_dir():
        _check_earlier(path)
    nearest = path.parent
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise StoreError(f"{nearest} is a file, so no folder can be made below it; give another place.")
    try:  # asking for permissions is not enough: file systems can be read-only, full or no place for files
        Path(tempfile.mkdtemp(prefix=".xinc-probe.", dir=nearest)).rmdir()
    except OSError as error:
        raise StoreError(f"{nearest} cannot be written to ({error.strerror}); give a folder that you own.") from error
    return path


def _check_earlier(path: Path) -> None:
    """Let a folder be replaced only if it holds nothing but an earlier result."""
    inside = {str(p.relative_to(path)) for p in path.rglob("*") if not p.is_dir()}
    if not inside:
        return
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(
            f"{path} holds files but no {MANIFEST} of ours, so it is not an earlier result and is left alone; give "
            "another folder, or empty it first."
        )
    foreign = sorted(inside - {MANIFEST, TIMES, *manifest.get("outputs", {})})
    if foreign:
        raise StoreError(
            f"{path} is an earlier result, but {foreign[0]!r} in it is not ours and would be lost; move it away, or "
            "give another folder."
        )


def results_below(folder: Path) -> set[Path]:
    """Return the folders inside ``folder`` that hold results; ``folder`` itself is not among them."""
    found = set()
    for manifest in folder.rglob(MANIFEST):
        try:
            note = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if manifest.parent != folder and isinstance(note, dict) and note.get("format") == FORMAT:
            found.add(manifest.parent)
    return found


def is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a file, or a folder between it and ``folder``, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


@contextmanager
def calling(call: Mapping[str, Any]) -> Iterator[None]:
    """Let the manifests of bundles that are written meanwhile say ``call``: what to do to have them again."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


@contextmanager
def bundle(path: str | Path, note: Mapping[str, Any]) -> Iterator[Path]:
    """Write results into the yielded folder; it takes the place of ``path`` only if the block succeeds.

    Every file gets its sha256 into ``manifest.json``, beside ``note``, the command line and the versions in use.
    What differs between equal runs (times) belongs into a file named ``times.json``, which is not hashed.

    Args:
        path: the folder to make or to replace.
        note: what the caller wants recorded: seed, options, hashes of inputs.

    Raises:
        StoreError: as :func:`check_folder`, or a full disk.
    """
    path = check_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield work
        files = sorted(p.relative_to(work) for p in work.rglob("*") if p.is_file())
        outputs = {str(f): sha256(work / f) for f in files if f.name != TIMES}
        manifest = {"format": FORMAT, "command": _command(), "versions": versions(), **note, "outputs": outputs}
        if call := _CALL.get():
            manifest["call"] = dict(call)
        (work / MANIFEST).write_bytes(_to_json(manifest))
        work.chmod(0o755)  # mkdtemp and safetensors make things private
        for file in files:
            (work / file).chmod(0o644)
        _put(work, path)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise StoreError(
                f"there is no room for {path} ({error.strerror}); nothing was written, and what was there is as it was."
                " Free some, or give a folder elsewhere, and run it again."
            ) from error
        raise


def _put(work: Path, path: Path) -> None:
    """Rename a finished folder to its place; what was there is removed last, and put back on a failure."""
    if not path.is_dir():
        work.rename(path)
        return
    _check_earlier(path)  # once more: a file may have been put there since the work began
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        path.rename(aside / path.name)
        work.rename(path)
    except BaseException:
        if not path.exists() and (aside / path.name).exists():
            (aside / path.name).rename(path)
        raise
    finally:
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _to_json(manifest: Mapping[str, Any]) -> bytes:
    """UTF-8; of names of files that are not UTF-8, escapes that JSON reads back as they were."""
    try:
        text = json.dumps(manifest, indent=2, ensure_ascii=False)
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(manifest, indent=2)}\n".encode()


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def versions() -> dict[str, str]:
    """Python, the platform and every package whose version can change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
