"""The network that a person names: a classifier of the zoo, or what a function of theirs returns."""

import difflib
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from .. import zoo
from ..zoo.named import CLASSIFIERS
from .failures import UsageError


class Network(NamedTuple):
    """A classifier, and the side of the square that it looks at (None: as large as the photo)."""

    classifier: zoo.Classifier
    size: int | None


def network_called(name: str, photo: Tensor, device: torch.device, drawn_by: str | None = None) -> Network:
    """The network of that name, in eval mode, on ``device``.

    Args:
        name: of the zoo, or ``module:function``, where the function takes nothing and returns a ``torch.nn.Module``
            for images in [0, 1], or a :class:`xinc_captum.zoo.Classifier`.
        photo: (3, H, W), shown once to a module without labels, to count its answers.
        device: where it shall compute.
        drawn_by: the generator that drew the photo, where one did.

    Raises:
        UsageError: there is no such network, or it cannot be used.
        AssetError: a package of the zoo is missing.
    """
    if ":" not in name:
        try:
            found: Any = zoo.classifier(name)
        except ValueError as error:
            raise UsageError(
                f"model {name!r} is no classifier of the zoo; wanted one of {', '.join(CLASSIFIERS)}, or a function of "
                "your own as module:function."
            ) from error
    else:
        found = made(name)
    if isinstance(found, zoo.Classifier):
        found.model.eval().to(device)
        return Network(found, found.size)
    if isinstance(found, nn.Module):
        return Network(_labelled(name, found.eval().to(device), photo.to(device), drawn_by), None)
    raise UsageError(
        f"{name} returned a {type(found).__name__}; wanted a torch.nn.Module that takes images in [0, 1], or a "
        "xinc_captum.zoo.Classifier."
    )


def made(name: str, option: str = "--model") -> Any:
    """What the function ``module:function`` returns.

    Raises:
        UsageError: no such module or function.
    """
    module_name, _, function_name = name.partition(":")
    module = _imported(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        near = difflib.get_close_matches(function_name, [n for n in vars(module) if callable(getattr(module, n))])
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "give the name of a function in it."
        raise UsageError(f"module {module_name!r} has no function {function_name!r}; {hint}")
    try:
        return function()
    except Exception as error:
        error.add_note(f"This was the function {name} of {option}.")
        raise


def _imported(name: str) -> ModuleType:
    """A module of the current folder or an installed one, as ``python -m`` finds it."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (ModuleNotFoundError, ValueError) as error:
        raise UsageError(
            f"module {name!r} cannot be imported ({error}); wanted module:function, where the module is installed or "
            "lies in the current folder."
        ) from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _labelled(name: str, model: nn.Module, photo: Tensor, drawn_by: str | None) -> zoo.Classifier:
    """A plain module as a classifier whose classes have numbers for names."""
    bare = zoo.Classifier(name, model, _as_it_is, min(photo.shape[-2:]), ())
    try:
        with torch.no_grad():
            answer = bare(photo[None])
    except RuntimeError as error:
        shown = "the photo" if drawn_by is None else f"what {drawn_by} draws"
        other = "--size" if drawn_by is None else "--generator"
        raise UsageError(
            f"{name} cannot be run on {shown}, {tuple(photo[None].shape)} in [0, 1] ({str(error).splitlines()[0]}); "
            f"return a xinc_captum.zoo.Classifier that says size and preprocess, or give another {other}."
        ) from error
    typer.echo(
        f"{name} gets photos as they are, in [0, 1]; if its normalisation is not inside it, return a "
        "xinc_captum.zoo.Classifier, which has preprocess",
        err=True,
    )
    flat = isinstance(answer, Tensor) and answer.dim() == 2
    return replace(bare, labels=tuple(f"class {i}" for i in range(answer.shape[1])) if flat else ())


def _as_it_is(images: Tensor) -> Tensor:
    return images
