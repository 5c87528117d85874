"""Which values can lead to modules, and what the code of a function uses."""

import contextlib
import dis
import functools
import inspect
import itertools
import sys
import types
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Names = frozenset[str]

MOST = 1000  # entries of a list or dict that are looked through
CACHE = type(functools.lru_cache(len))
_REFERENCES = (nn.Module, functools.partial, weakref.ReferenceType, CACHE)
_CONTAINERS = (list, tuple, set, frozenset, Mapping)
_LIBRARIES = frozenset({"torch", "torchvision", "numpy", "captum", "builtins", "PIL", "matplotlib"})
# Functions of these keep no models of the user either; objects of their classes may.
_FUNCTIONS = sys.stdlib_module_names | {
    "scipy",
    "sklearn",
    "skimage",
    "cv2",
    "pandas",
    "einops",
    "timm",
    "transformers",
}
_PLAIN = frozenset({int, float, bool, str, type(None), Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device})
_OF_ANY_MODULE = frozenset(nn.Module().__dict__)


def may_hold_models(value: Any) -> bool:
    """Modules, containers, and functions, objects and classes of the user's own; libraries keep no models in theirs."""
    if isinstance(value, (*_REFERENCES, *_CONTAINERS)):
        return True
    if inspect.ismethod(value):
        return may_hold_models(value.__self__) or may_hold_models(value.__func__)
    routine = inspect.isroutine(value)
    if routine and may_hold_models(getattr(value, "__wrapped__", None)):
        return True
    if inspect.ismodule(value):
        return not _of_library(value.__name__, True)
    kind = value if routine or inspect.isclass(value) else type(value)
    module = getattr(kind, "__module__", None)
    return not _of_library(module if isinstance(module, str) else "", routine)


@functools.lru_cache(maxsize=4096)
def _of_library(module: str, function: bool) -> bool:
    package = module.partition(".")[0]
    return package in _LIBRARIES or (function and package in _FUNCTIONS)


def is_indirect(value: Any) -> int:
    """1 for an object or a container between a function and a module, which makes the module a step further away."""
    return int(not isinstance(value, _REFERENCES) and not inspect.isroutine(value))


def items_of(value: Any) -> list[Any] | None:
    """The entries of a container, the first 1000; None for everything else."""
    if not isinstance(value, _CONTAINERS):
        return None
    return list(itertools.islice(value.values() if isinstance(value, Mapping) else value, MOST))


def own_values(thing: Any) -> Mapping[str, Any]:
    """The attributes that an object keeps, in its ``__dict__`` or in slots; of a class, those of its bases too."""
    if inspect.isclass(thing):
        return {name: value for kind in reversed(thing.__mro__) for name, value in vars(kind).items()}
    own: dict[str, Any] = getattr(thing, "__dict__", {})
    slots = [vars(kind).get("__slots__", ()) for kind in type(thing).__mro__]
    names = [name for some in slots for name in ((some,) if isinstance(some, str) else some)]
    return own | {name: getattr(thing, name) for name in names if hasattr(thing, name)} if names else own


def seen_by(function: types.FunctionType) -> list[Any]:
    """What a function closes over, its default arguments, and the globals it (or a function inside it) names."""
    values = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that is not filled in yet
            values.append(cell.cell_contents)
    values += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    names = sorted(_names_of_code(function.__code__)[0])
    return values + [function.__globals__[name] for name in names if name in function.__globals__]


def names_in(function: Any) -> Names:
    """The attributes that a Python function uses."""
    return _names_of_code(function.__code__)[1] if inspect.isfunction(function) else frozenset()


@functools.lru_cache(maxsize=4096)
def _names_of_code(code: types.CodeType) -> tuple[Names, Names]:
    """The globals and the attributes that code, and the functions inside it, use."""
    named: dict[str, set[str]] = {"LOAD_GLOBAL": set(), "LOAD_ATTR": set(), "LOAD_METHOD": set()}
    codes = [code]
    while codes:
        one = codes.pop()
        codes += [constant for constant in one.co_consts if isinstance(constant, types.CodeType)]
        for step in dis.get_instructions(one):
            if step.opname in named:
                named[step.opname].add(step.argval)
    return frozenset(named["LOAD_GLOBAL"]), frozenset(named["LOAD_ATTR"] | named["LOAD_METHOD"])


def hidden_in(root: nn.Module) -> list[tuple[Any, Names]]:
    """Unregistered values of modules below ``root`` that can lead to further modules, and the names that forward uses.

    torch's own layers keep none, except hooks and a forward function that the user puts on them, and every call of
    every class runs through here: they are passed over.
    """
    found: list[tuple[Any, Names]] = []
    waiting, seen = [root], {id(root)}
    used, done = dict[type, Names](), set[tuple[type, int]]()
    while waiting:
        module = waiting.pop()
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
        own, kind = module.__dict__, type(module)
        for hooks in (own.get("_forward_hooks"), own.get("_forward_pre_hooks")):
            found += [(hook, frozenset()) for hook in hooks.values() if not _is_ours(hook)] if hooks else []
        if kind.__module__.startswith("torch.nn."):
            if "forward" in own:
                found.append((own["forward"], frozenset()))
            continue
        values = [v for name, v in own.items() if name not in _OF_ANY_MODULE and type(v) not in _PLAIN]
        if kind not in used:
            used[kind] = names_in(getattr(kind, "forward", None))  # a weakref.proxy has none
            kinds = [k for k in kind.__mro__ if not _of_library(k.__module__, False)]  # what modules of a class share
            values += [v for k in kinds for v in vars(k).values() if isinstance(v, (nn.Module, list, tuple, dict))]
        for value in values:
            if (kind, id(value)) not in done:  # layers of a kind often share a configuration or a function
                done.add((kind, id(value)))
                if _leads_on(value, 3):
                    found.append((value, used[kind]))
    return found


def _is_ours(hook: Any) -> bool:
    """Whether this package registered a hook for the length of a call."""
    return (getattr(hook, "__module__", None) or "").partition(".")[0] == __name__.partition(".")[0]


def _leads_on(value: Any, levels: int) -> bool:
    """As :func:`may_hold_models`; of a container, whether an entry does, at most so many levels down."""
    if type(value) in _PLAIN:
        return False
    items = value if isinstance(value, (list, tuple)) and len(value) <= MOST else items_of(value)
    if items is None:
        return may_hold_models(value)
    return levels > 0 and any(_leads_on(item, levels - 1) for item in items)
