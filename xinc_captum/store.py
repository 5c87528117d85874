"""Result folders and tensor files, and the sha256 of files, tensors and the weights of models."""

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .hooks import ForwardFunc, exclusive, modules_behind

PREFIX = "xinc-captum-"  # the format of a file is this, its kind, and a version
VERSION = 2  # since 2, each file holds a sha256 of all its bytes
KEY = "xinc_captum"  # one metadata entry, because safetensors writes several in random order
# Version 1: for each kind, its metadata entry, and whether that has a sha256 of the tensors.
_VERSION_1 = {
    "inr": ("network", False),
    "trans-inr": ("network", False),
    "nern": ("nern", False),
    "style-generator": ("generator", True),
    "link": ("link", True),
}
_PICKLES = (b"\x80", b"PK\x03\x04", b"\x1f\x8b")  # a pickle, an archive of torch.save, a compressed pickle
_UNKNOWN = {"torch.complex128", "torch.float8_e8m0fnu"}  # dtypes that safetensors cannot write or cannot read
_NO_DIGEST = b"0" * 64  # placeholder for the sha256 while it is computed


class StoreError(ValueError):
    """A result folder or file that cannot be written, or a file with unexpected content."""


class TensorFile(NamedTuple):
    """The content of a file of :func:`write_tensors`."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write tensors and metadata into one safetensors file with a sha256 of all its bytes, and return its path.

    The file is written atomically: under a temporary name in the same folder, then renamed. If writing fails, an
    existing file is unchanged. A missing folder is created. Equal contents give equal bytes. Tensors that share memory
    are written separately. ``kind`` names what the file holds, and metadata are values that JSON can hold.

    Raises:
        StoreError: the path is a folder, a device or a pipe, or the file cannot be written.
        TypeError: metadata that JSON cannot hold, or a tensor that the format cannot: sparse, quantised, complex128.

    Example:
        >>> import tempfile
        >>> path = write_tensors(Path(tempfile.mkdtemp()) / "new" / "a", {"a": torch.ones(2)}, kind="demo")
        >>> read_tensors(path, kind="demo", writer="write_tensors()")
        TensorFile(tensors={'a': tensor([1., 1.])}, metadata={})
    """
    content, at = _pack(tensors, kind, metadata or {})
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(content[:at])
        file.write(sha256_of_bytes(content).encode())
        file.write(memoryview(content)[at + len(_NO_DIGEST) :])
    return Path(path)


def tensor_file_bytes(tensors: Mapping[str, Tensor], *, kind: str, metadata: Mapping[str, Any] | None = None) -> int:
    """Return the size of the file that :func:`write_tensors` writes, in bytes."""
    return len(_pack(tensors, kind, metadata or {})[0])


def read_tensors(path: str | Path, *, kind: str | None, writer: str) -> TensorFile:
    """Read a file of :func:`write_tensors` to the CPU, and check its kind, its version and its sha256.

    Files of version 1 are read with a warning: those of the kinds "link" and "style-generator" have a sha256 of their
    tensors but not of their metadata; those of the kinds "inr", "trans-inr" and "nern" have none. The kind None accepts
    files of every kind, also safetensors files of other programs, which have no sha256 to check. ``writer`` is the
    function that writes such files, for the texts of errors.

    Raises:
        FileNotFoundError: no such file.
        StoreError: a pickle, an incomplete or changed file, or one of another kind or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; expected a file written by {writer}.")
    again = f"copy the file again, or write it again with {writer}."
    try:
        data = path.read_bytes()  # once: another process may replace the file meanwhile
        if data.startswith(_PICKLES) and data[8:9] != b"{":  # safetensors: 8 bytes of length, then JSON
            raise StoreError(
                f"{path} is a pickle or an archive of torch.save(). Reading one runs any code that its author put in, "
                f"so it is not opened. Expected a safetensors file written by {writer}."
            )
        # Not safe_open, which leaks 56 bytes per tensor. Cloned, because rounding depends on memory alignment.
        tensors = {name: tensor.clone() for name, tensor in load(data).items()}
        entries = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    except StoreError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise StoreError(f"{path} is not a complete safetensors file ({error}); {again}") from error
    if kind is None and KEY not in entries:
        return TensorFile(tensors, {})
    note, mark, version = _check_format(path, entries, kind, writer)
    stored = note.pop("sha256", None)
    if version >= VERSION and stored != _sha256_of(data, str(stored)):
        raise StoreError(f"{path} was changed after it was written (its sha256 differs); {again}")
    if version == 1:
        if _VERSION_1[mark][1] and stored != tensors_sha256(tensors):
            raise StoreError(f"the tensors of {path} were changed after it was written (their sha256 differs); {again}")
        unchecked = "its settings" if _VERSION_1[mark][1] else "the values of its tensors and its settings"
        warnings.warn(
            f"{path} has format version 1, in which no sha256 covers {unchecked}; damage there cannot be detected. "
            "Load it and save it again to add one.",
            stacklevel=3,
        )
    return TensorFile(tensors, note if version == 1 else note["metadata"])


def check_state(path: str | Path, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raise StoreError, with the first five faults, unless a file's tensors have the names and shapes of a state."""
    faults = [
        *(f"{name} is missing" for name in state if name not in tensors),
        *(f"{name} is left over" for name in tensors if name not in state),
        *(
            f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
            for name, value in state.items()
            if name in tensors and tensors[name].shape != value.shape
        ),
    ]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise StoreError(f"the tensors of {path} do not fit: {'; '.join(faults[:5])}{more}.")


@contextmanager
def consistent(path: str | Path, writer: str) -> Iterator[None]:
    """Raise StoreError in place of the errors that wrong content of a file causes in the block."""
    try:
        yield
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
        raise StoreError(
            f"{path} has content that does not fit together ({type(error).__name__}: {error}); copy the file again, or "
            f"write it again with {writer}."
        ) from error


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename the file that the block writes there to ``path``.

    A missing folder is created. If the block fails, the temporary file is removed and ``path`` is unchanged. A path
    that cannot be written raises StoreError.
    """
    try:
        final = Path(path).resolve()  # the target of a symbolic link is replaced, not the link
        other = final.exists() and not final.is_file()
    except (OSError, RuntimeError) as error:  # a name that is too long, links that lead to each other
        raise StoreError(f"{path} cannot be written ({error}); give another path.") from error
    if other:  # else root could replace /dev/null
        raise StoreError(f"{path} is a {'folder' if final.is_dir() else 'device or pipe'}; give the path of a file.")
    start = f".{final.name[:50]}.{platform.node()}-"
    temporary = final.with_name(f"{start}{os.getpid()}-{threading.get_ident()}.part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final.parent, start)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        before = "The file that was there is unchanged." if final.is_file() else "Nothing was written."
        raise StoreError(
            f"{path} cannot be written ({error.strerror or error}). {before} Give a path in a folder that you can "
            "write to, on a disk with free space."
        ) from error


def _remove_leftovers(folder: Path, start: str) -> None:
    """Remove temporary files of processes of this machine that were killed while they wrote."""
    if os.name != "posix":  # on Windows, os.kill does not test whether a process exists
        return
    for path in folder.glob(f"{glob.escape(start)}*.part"):
        try:
            os.kill(int(path.name.removeprefix(start).partition("-")[0]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (ValueError, OSError):
            continue


def _pack(tensors: Mapping[str, Tensor], kind: str, metadata: Mapping[str, Any]) -> tuple[bytes, int]:
    """Return the bytes of a file with a placeholder for the sha256, and the position of the placeholder."""
    dense: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors.items():
        plain = _plain(name, value)
        if plain.untyped_storage().data_ptr() in storages:  # safetensors refuses shared memory
            plain = plain.clone()
        storages.add(plain.untyped_storage().data_ptr())
        dense[name] = plain
    note = {"format": f"{PREFIX}{kind}-{VERSION}", "sha256": _NO_DIGEST.decode(), "metadata": dict(metadata)}
    content: bytes = save(dense, metadata={KEY: json.dumps(note, default=_number)})
    return content, content.index(_NO_DIGEST, content.index(b"sha256"))


def _number(value: object) -> int:
    """Return a NumPy integer as an int, for JSON."""
    if isinstance(value, np.integer):
        return int(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _plain(name: str, value: Tensor) -> Tensor:
    """Return a tensor in the form that the file stores; TypeError if the format cannot store it."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized or str(value.dtype) in _UNKNOWN:
        received = f"{name!r} is a tensor of {value.dtype}, {value.layout}, on {value.device}"
        raise TypeError(f"{received}; a safetensors file holds dense tensors of other dtypes. Convert it first.")
    return _to_host(value)


def _check_format(
    path: Path, entries: Mapping[str, str], kind: str | None, writer: str
) -> tuple[dict[str, Any], str, int]:
    """Check the format of a file, and return its metadata without the format, its kind and its version."""
    old = _VERSION_1[kind][0] if kind in _VERSION_1 else None
    text = entries.get(KEY, entries.get(old or "", "{}"))
    try:
        note = json.loads(text)
        mark = str(note.pop("format", "nothing"))
    except (ValueError, AttributeError, TypeError, RecursionError):
        note, mark = {}, "nothing"
    stored_kind, _, number = mark.removeprefix(PREFIX).rpartition("-")
    if not mark.startswith(PREFIX) or not number.isdecimal() or stored_kind != (kind or stored_kind):
        raise StoreError(
            f"{path} is marked {mark!r}; expected {f'{PREFIX}{kind}-{VERSION}'!r}, a file written by {writer}."
        )
    if int(number) > VERSION:
        raise StoreError(
            f"{path} has version {number} of the format {PREFIX}{stored_kind}, and this version of xinc-captum reads "
            f"up to {VERSION}; update xinc-captum."
        )
    if int(number) != (VERSION if KEY in entries else 1):  # each version has its own metadata entry
        raise StoreError(f"{path} is damaged: {mark!r} is not a format of this package; copy the file again.")
    return note, stored_kind, int(number)


def _sha256_of(content: bytes, stored: str) -> str:
    """Return the sha256 of a file's bytes with the placeholder instead of the sha256 that it stores."""
    end = 8 + int.from_bytes(content[:8], "little")
    return sha256_of_bytes(content[:end].replace(stored.encode(), _NO_DIGEST, 1), memoryview(content)[end:])


MANIFEST = "manifest.json"
FORMAT = "xinc-captum-result-1"
FULL = (errno.ENOSPC, errno.EDQUOT)
TIMES = "times.json"  # wall times, which differ between equal runs; not hashed
_VERSIONS = ("xinc-captum", "torch", "torchvision", "captum", "numpy", "matplotlib", "Pillow", "safetensors")
_CALL: ContextVar[Mapping[str, Any] | None] = ContextVar("_CALL", default=None)


def check_folder(path: str | Path) -> Path:
    """Return the absolute path of a result folder; StoreError, before any work, if it cannot be written or replaced."""
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
    try:  # permissions alone do not tell: a file system can be read-only, full or virtual
        Path(tempfile.mkdtemp(prefix=".xinc-probe.", dir=nearest)).rmdir()
    except OSError as error:
        raise StoreError(f"{nearest} cannot be written to ({error.strerror}); give a folder that you own.") from error
    return path


def _check_earlier(path: Path) -> None:
    """Raise StoreError unless the folder holds an earlier result and nothing else."""
    inside = {str(p.relative_to(path)) for p in path.rglob("*") if not p.is_dir()}
    if not inside:
        return
    manifest = _read_manifest(path)
    if manifest is None:
        raise StoreError(
            f"{path} holds files but no {MANIFEST} of xinc-captum, so it is not an earlier result and is not replaced; "
            "give another folder, or empty it first."
        )
    foreign = sorted(inside - {MANIFEST, TIMES, *manifest.get("outputs", {})})
    if foreign:
        raise StoreError(
            f"{path} is an earlier result, but {foreign[0]!r} in it is not part of that and would be lost; move it "
            "away, or give another folder."
        )


def results_below(folder: Path) -> set[Path]:
    """Return the folders inside ``folder`` that hold results; ``folder`` itself is not among them."""
    parents = {manifest.parent for manifest in folder.rglob(MANIFEST)} - {folder}
    return {parent for parent in parents if _read_manifest(parent) is not None}


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a result; None for any other folder."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a file, or a folder between it and ``folder``, has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


@contextmanager
def record_call(call: Mapping[str, Any]) -> Iterator[None]:
    """Record ``call``, the arguments that reproduce a result, in the manifests of bundles written in the block."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


@contextmanager
def bundle(path: str | Path, note: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder for results; it replaces ``path`` only if the block succeeds.

    ``manifest.json`` records the sha256 of every file, ``note`` (seed, options, hashes of inputs), the command line and
    the versions in use. Values that differ between equal runs (times) must be in ``times.json``, which is not hashed.
    Raises StoreError as :func:`check_folder`, and for a full disk.
    """
    path = check_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield work
        files = sorted(p.relative_to(work) for p in work.rglob("*") if p.is_file())
        outputs = {str(f): sha256(work / f) for f in files if f.name != TIMES}
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        manifest = {"format": FORMAT, "command": command, "versions": versions(), **note, "outputs": outputs}
        if call := _CALL.get():
            manifest["call"] = dict(call)
        (work / MANIFEST).write_bytes(_to_json(manifest))
        work.chmod(0o755)  # mkdtemp and safetensors create private files
        for file in files:
            (work / file).chmod(0o644)
        _put(work, path)
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise StoreError(
                f"there is no space for {path} ({error.strerror}); nothing was written, and an earlier result is "
                "unchanged. Free some space, or give a folder elsewhere, and run it again."
            ) from error
        raise


def _put(work: Path, path: Path) -> None:
    """Rename a finished folder to its path; an earlier result is removed last, and restored on a failure."""
    if not path.is_dir():
        work.rename(path)
        return
    _check_earlier(path)  # again: a file may have been added since the work began
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
    """Return JSON in UTF-8; names of files that are not UTF-8 are escaped, so that JSON reads them back unchanged."""
    try:
        text = json.dumps(manifest, indent=2, ensure_ascii=False)
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(manifest, indent=2)}\n".encode()


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and every package that can change a result."""
    installed = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _VERSIONS:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def sha256(path: str | Path) -> str:
    """Return the hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(*pieces: bytes | memoryview) -> str:
    """Return the hex digest of pieces of bytes, one after the other."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex digest of names, dtypes, shapes and bytes, in the order of the names."""
    return _digest(sorted(tensors.items()))


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_to_host(tensor).reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _to_host(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor on the CPU, with conjugation and sign resolved."""
    return tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()


def model_sha256(model: ForwardFunc | object) -> str | None:
    """Return the sha256 of names, dtypes, shapes and bytes of a model's weights; None if no module is found."""
    return _fingerprint_modules(modules_behind(model))  # type: ignore[arg-type]


def models_with_other_weights(manifest: Mapping[str, Any], model: ForwardFunc | object, generator: object) -> list[str]:
    """Return which of "network" and "generator" have other weights than the manifest of a link records.

    A model that the manifest does not record, or behind which no module is found, is not listed. A function around
    several models matches where one of them does.
    """
    models = {"network": ("model_sha256", model), "generator": ("generator_sha256", generator)}
    return [name for name, (key, thing) in models.items() if not _may_be(manifest.get(key), thing)]


def other_weights(manifest: Mapping[str, Any], model: ForwardFunc | object, generator: object) -> str | None:
    """Return a warning for a link that was fitted to another network or generator; None where both match."""
    names = models_with_other_weights(manifest, model, generator)
    if not names:
        return None
    both = " and ".join(names)
    return (
        f"the {both} given {'have' if len(names) > 1 else 'has'} other weights (or the same in another precision) than "
        f"the {both} that this link was fitted to, so what it shows may mean nothing; give the {both} of the link, or "
        "fit a link to these."
    )


def warn_of_other_models(manifest: Mapping[str, Any], model: ForwardFunc | object, generator: object) -> None:
    """Issue the warning of :func:`other_weights`, if there is one, located at the caller's caller."""
    text = other_weights(manifest, model, generator)
    if text:
        warnings.warn(text, UserWarning, stacklevel=3)


def _may_be(stored: Any, thing: Any) -> bool:
    """Return whether a model matches a stored sha256, or cannot be compared with it."""
    roots = modules_behind(thing)
    if not isinstance(stored, str) or not roots or _fingerprint_modules(roots) == stored:
        return True
    return len(roots) > 1 and any(_fingerprint_modules([root]) == stored for root in roots)


@exclusive()  # a call in another thread may replace these weights for its duration
def _fingerprint_modules(roots: list[nn.Module]) -> str | None:
    """Return one digest for several modules, in their order; None for no modules."""
    if not roots:
        return None
    entries = (entry for root in roots for entry in root.state_dict().items())
    return _digest((name, value) for name, value in entries if isinstance(value, Tensor))
