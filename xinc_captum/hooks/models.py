"""Find a layer of a forward function by module or dotted name."""

import contextlib
import difflib

import torch
from torch import nn

from .module_search import ForwardFunc, modules_behind, modules_with_distance, unwrap

__all__ = ["ForwardFunc", "LayerError", "find_layer", "layer_name", "modules_behind", "unwrap"]


class LayerError(ValueError):
    """A layer that is not in the model, never runs, runs twice, or cannot be explained as asked."""


def is_scripted(module: nn.Module) -> bool:
    """Whether a module takes no hooks, as those of ``torch.jit.script``; traced modules take some."""
    return isinstance(module, torch.jit.ScriptModule) and type(module).__name__ == "RecursiveScriptModule"


def layer_name(forward_func: ForwardFunc, layer: nn.Module) -> str:
    """The dotted name of ``layer`` for messages, or its class when it belongs to no known model."""
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            if module is layer:
                return repr(name) if name else type(root).__name__
    return f"{type(layer).__name__} module"


def find_layer(forward_func: ForwardFunc, layer: nn.Module | str) -> nn.Module:
    """Resolve ``layer`` (a module, or a dotted name as in ``named_modules()``) to the module itself.

    A module that is registered under several names is found under each of them. Where the name is in several models
    behind the function, the one that the function names directly is meant.

    Raises:
        LayerError: the name is not in the model (the nearest valid names are listed), the module is not
            part of the model behind ``forward_func``, or no model can be seen behind it.
        TypeError: ``layer`` is neither a module nor a string.
    """
    found = modules_with_distance(forward_func)
    roots = [root for root, _ in found]
    if isinstance(layer, nn.Module):
        layer = unwrap(layer)
        if roots and not any(module is layer for root in roots for module in root.modules()):
            raise LayerError(
                f"layer {type(layer).__name__} is not part of the model {_names_of(roots)}; "
                "give one of that model's own submodules, or its dotted name."
            )
        return layer
    if not isinstance(layer, str):
        raise TypeError(f"layer must be a torch.nn.Module or a dotted name, got {type(layer).__name__}.")
    if any(map(is_scripted, roots)):
        raise LayerError(
            f"layer {layer!r} cannot be read: the model is scripted (torch.jit.script), and scripted modules run no "
            "Python hooks. Give the original torch.nn.Module."
        )
    if not roots:
        raise LayerError(
            f"layer {layer!r} cannot be looked up: no torch.nn.Module is visible behind {forward_func!r}; "
            "give the layer as a module instead of a name."
        )
    wanted = layer.removeprefix("_orig_mod.")
    named = {name: module for root in roots for name, module in root.named_modules() if name}
    for candidate in (wanted, wanted.removeprefix("module.")):
        owners = [(root, module, depth) for root, depth in found if (module := _submodule(root, candidate)) is not None]
        nearest = [(root, module) for root, module, depth in owners if depth == owners[0][2]]
        if len({id(module) for _, module in nearest}) > 1:
            several = _names_of([root for root, _ in nearest])
            raise LayerError(
                f"layer {layer!r} is in several models behind this function ({several}); "
                "give the layer as a module instead of a name."
            )
        if nearest:
            return unwrap(nearest[0][1])
    near = difflib.get_close_matches(wanted, named, n=5, cutoff=0.3) or list(named)[:5]
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "the model has no submodules."
    raise LayerError(f"layer {layer!r} is not in the model {_names_of(roots)}; {hint}")


def _submodule(root: nn.Module, name: str) -> nn.Module | None:
    """The module of this name, also where it is another name of a shared module."""
    with contextlib.suppress(AttributeError):
        return root.get_submodule(name)
    return None


def _names_of(roots: list[nn.Module]) -> str:
    return " or ".join(type(root).__name__ for root in roots)
