"""Find the modules behind a forward function, and a layer among them by module or dotted name."""

import contextlib
import difflib
import dis
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

ForwardFunc = Callable[..., Any]


class LayerError(ValueError):
    """A layer that is not in the model, never runs, runs twice, or cannot be explained as asked."""


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside ``torch.compile`` and ``DataParallel`` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_scripted(module: nn.Module) -> bool:
    """Whether a module takes no hooks, as those of ``torch.jit.script``; traced modules take some."""
    return isinstance(module, torch.jit.ScriptModule) and type(module).__name__ == "RecursiveScriptModule"


def modules_behind(forward_func: ForwardFunc) -> list[nn.Module]:
    """Every root module that ``forward_func`` can reach, without calling it.

    A module is its own root; bound methods, partials, closures and the globals that a function names are
    followed, so that ``lambda x: model(x)["rgb"]`` finds ``model``.
    """
    found: list[nn.Module] = []
    seen: set[int] = set()

    def visit(thing: Any) -> None:
        if id(thing) in seen:
            return
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            found.append(unwrap(thing))
        elif isinstance(thing, functools.partial):
            for part in (thing.func, *thing.args, *thing.keywords.values()):
                visit(part)
        elif inspect.ismethod(thing):
            visit(thing.__self__)
            visit(thing.__func__)
        elif inspect.isfunction(thing):
            for value in _seen_by(thing):
                if isinstance(value, nn.Module | functools.partial) or _may_hold_models(value):
                    visit(value)
        elif hasattr(thing, "__dict__") and not inspect.isclass(thing) and not inspect.ismodule(thing):
            for value in vars(thing).values():
                if isinstance(value, nn.Module):
                    visit(value)

    visit(forward_func)
    return list({id(module): module for module in found}.values())


def _seen_by(function: types.FunctionType) -> list[Any]:
    """What a function closes over, and the globals it (or a function inside it) loads by name."""
    values = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that is not filled in yet
            values.append(cell.cell_contents)
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
        values += [function.__globals__[name] for name in sorted(names) if name in function.__globals__]
    return values


def _may_hold_models(value: Any) -> bool:
    """Functions and methods of the user's own; libraries keep no models in their globals."""
    library = (getattr(value, "__module__", None) or "").partition(".")[0]
    return inspect.isroutine(value) and library not in {"torch", "torchvision", "numpy", "captum", "builtins"}


def layer_name(forward_func: ForwardFunc, layer: nn.Module) -> str:
    """The dotted name of ``layer`` for messages, or its class when it belongs to no known model."""
    for root in modules_behind(forward_func):
        holds = getattr(type(root), "holds_roots", False)  # a wrapper of ours: the user's modules are inside
        for mine in root.roots.children() if holds else [root]:  # type: ignore[union-attr]
            for name, module in mine.named_modules():
                if module is layer:
                    return repr(name) if name else type(mine).__name__
    return f"{type(layer).__name__} module"


def find_layer(forward_func: ForwardFunc, layer: nn.Module | str) -> nn.Module:
    """Resolve ``layer`` (a module, or a dotted name as in ``named_modules()``) to the module itself.

    Raises:
        LayerError: the name is not in the model (the nearest valid names are listed), the module is not
            part of the model behind ``forward_func``, or no model can be seen behind it.
        TypeError: ``layer`` is neither a module nor a string.
    """
    roots = modules_behind(forward_func)
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
        owners = [root for root in roots if candidate in dict(root.named_modules())]
        if len({id(root.get_submodule(candidate)) for root in owners}) > 1:
            raise LayerError(
                f"layer {layer!r} is in several models behind this function ({_names_of(owners)}); give the layer as a "
                "module instead of a name."
            )
        if owners:
            return unwrap(owners[0].get_submodule(candidate))
    near = difflib.get_close_matches(wanted, named, n=5, cutoff=0.3) or list(named)[:5]
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "the model has no submodules."
    raise LayerError(f"layer {layer!r} is not in the model {_names_of(roots)}; {hint}")


def _names_of(roots: list[nn.Module]) -> str:
    return " or ".join(type(root).__name__ for root in roots)
