"""A name for the weights of a model, to tell whether a link belongs to it."""

import hashlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .hooks import ForwardFunc, exclusive, modules_behind


def model_sha256(model: ForwardFunc | object) -> str | None:
    """sha256 of names, shapes and bytes of all weights behind a model, or None where no module is to be seen.

    Example:
        >>> model_sha256(torch.nn.Linear(2, 2)) == model_sha256(torch.nn.Linear(2, 2))
        False
    """
    return _hashed(modules_behind(model))  # type: ignore[arg-type]


def models_with_other_weights(manifest: Mapping[str, Any], model: ForwardFunc | object, generator: object) -> list[str]:
    """Which of the two, "network" and "generator", has other weights than a link's manifest names.

    What the manifest does not name, or what no module is to be seen behind, is not told. A function that reaches
    several models is taken for the link's where one of them is. All weights are read once.

    Example:
        >>> net, paint = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> differing({"model_sha256": model_sha256(net), "generator_sha256": model_sha256(net)}, net, paint)
        ['generator']
    """
    given = {"network": ("model_sha256", model), "generator": ("generator_sha256", generator)}
    return [name for name, (key, thing) in given.items() if not _may_be(manifest.get(key), thing)]


def other_weights(manifest: Mapping[str, Any], model: ForwardFunc | object, generator: object) -> str | None:
    """What to tell a person whose link is of another network or generator; None where there is nothing to tell."""
    found = models_with_other_weights(manifest, model, generator)
    if not found:
        return None
    both = " and ".join(found)
    return (
        f"the {both} given {'have' if len(found) > 1 else 'has'} other weights (or the same in another precision) than "
        f"the {both} that this link was fitted to, so what it shows may mean nothing; give the {both} of the link, or "
        "fit a link to these ends."
    )


def warn_of_other_models(manifest: Mapping[str, Any], model: ForwardFunc | object, generator: object) -> None:
    """Warn a caller's caller where :func:`other_weights` has something to tell."""
    said = other_weights(manifest, model, generator)
    if said:
        warnings.warn(said, UserWarning, stacklevel=3)


def _may_be(expected: Any, thing: Any) -> bool:
    roots = modules_behind(thing)
    if not isinstance(expected, str) or not roots or _hashed(roots) == expected:
        return True
    return len(roots) > 1 and any(_hashed([root]) == expected for root in roots)


@exclusive()  # a call in another thread may have other weights in the places of these
def _hashed(roots: list[nn.Module]) -> str | None:
    """One name for several modules, in their order."""
    if not roots:
        return None
    total = hashlib.sha256()
    for root in roots:
        for name, value in root.state_dict().items():
            if not isinstance(value, torch.Tensor):
                continue
            total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
