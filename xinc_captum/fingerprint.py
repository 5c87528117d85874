"""sha256 of files, tensors and the weights of models: the one place that hashes them."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .hooks import ForwardFunc, exclusive, modules_behind


def sha256(path: str | Path) -> str:
    """Return the hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(*pieces: bytes | memoryview) -> str:
    """Return the hex digest of pieces of bytes, one after the other.

    Example:
        >>> sha256_of_bytes(b"ab", b"c") == sha256_of_bytes(b"abc")
        True
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex digest of names, dtypes, shapes and bytes, in the order of the names.

    Example:
        >>> tensors_sha256({"a": torch.zeros(2)})[:8]
        'da53f451'
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        _update(digest, name, tensor)
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    dense = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    digest.update(dense.reshape(-1).view(torch.uint8).numpy().data)


def model_sha256(model: ForwardFunc | object) -> str | None:
    """Return the sha256 of names, shapes and bytes of all weights behind a model; None where no module is found.

    Example:
        >>> model_sha256(torch.nn.Linear(2, 2)) == model_sha256(torch.nn.Linear(2, 2))
        False
    """
    return _fingerprint_modules(modules_behind(model))  # type: ignore[arg-type]


def models_with_other_weights(manifest: Mapping[str, Any], model: ForwardFunc | object, generator: object) -> list[str]:
    """Return which of "network" and "generator" have other weights than the manifest of a link records.

    A model that the manifest does not record, or behind which no module is found, is not listed. A function around
    several models matches where one of them does. All weights are read once.

    Example:
        >>> net, generator = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> manifest = {"model_sha256": model_sha256(net), "generator_sha256": model_sha256(net)}
        >>> models_with_other_weights(manifest, net, generator)
        ['generator']
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
    """Issue the warning of :func:`other_weights`, if there is one, for the caller's caller."""
    text = other_weights(manifest, model, generator)
    if text:
        warnings.warn(text, UserWarning, stacklevel=3)


def _may_be(stored: Any, thing: Any) -> bool:
    roots = modules_behind(thing)
    if not isinstance(stored, str) or not roots or _fingerprint_modules(roots) == stored:
        return True
    return len(roots) > 1 and any(_fingerprint_modules([root]) == stored for root in roots)


@exclusive()  # a call in another thread may replace these weights for its duration
def _fingerprint_modules(roots: list[nn.Module]) -> str | None:
    """Return one digest for several modules, in their order; None for no modules."""
    if not roots:
        return None
    digest = hashlib.sha256()
    for root in roots:
        for name, value in root.state_dict().items():
            if isinstance(value, Tensor):
                _update(digest, name, value)
    return digest.hexdigest()
