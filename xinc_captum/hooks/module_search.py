"""Find the modules behind a forward function, without calling it."""

import contextlib
import dis
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

ForwardFunc = Callable[..., Any]


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside ``torch.compile`` and ``DataParallel`` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def modules_behind(forward_func: ForwardFunc, *, wrapped: bool = False) -> list[nn.Module]:
    """Every root module that ``forward_func`` can reach, without calling it; those that it names directly come first.

    A module is its own root. Bound methods, partials, closures, default arguments and the globals that a function names
    are followed, through lists, dicts and the attributes of objects that its code uses, so that
    ``lambda x: model(x)["rgb"]`` and ``lambda x: wrapper.nets[0](x)`` find their models. A module inside another root
    that is at least as near is not listed. ``wrapped`` leaves wrappers, such as DataParallel, around the roots.
    """
    return [module for module, _ in modules_with_distance(forward_func, wrapped)]


def modules_with_distance(forward_func: ForwardFunc, wrapped: bool = False) -> list[tuple[nn.Module, int]]:
    """The roots, and through how many containers and objects each is reached."""
    search = _Search(wrapped)
    if isinstance(forward_func, nn.Module):
        root = search.root(forward_func)
        if not _hidden_in(root):
            return [(root, 0)]
    search.start(forward_func)
    nearest: dict[int, tuple[nn.Module, int]] = {}
    for module, depth in sorted(search.found, key=lambda pair: pair[1]):
        nearest.setdefault(id(module), (module, depth))
    roots = list(nearest.values())
    if len(roots) == 1:
        return roots
    inside = [{id(m) for m in root.modules()} - {id(root)} for root, _ in roots]
    return [
        (root, depth)
        for root, depth in roots
        if not any(id(root) in below and other <= depth for below, (_, other) in zip(inside, roots, strict=True))
    ]


class _Search:
    """Follows references from a function to modules."""

    def __init__(self, wrapped: bool) -> None:
        self.root: Callable[[nn.Module], nn.Module] = (lambda module: module) if wrapped else unwrap
        self.found: list[tuple[nn.Module, int]] = []
        self.seen: dict[int, Any] = {}  # holds what was visited, so that no id is used twice

    def start(self, forward_func: Any) -> None:
        """Follow the function itself; an object that is called leads to all the modules it keeps."""
        if inspect.isroutine(forward_func) or isinstance(forward_func, nn.Module | functools.partial):
            self.visit(forward_func, 0)
        else:
            self._owner(forward_func, 0, frozenset())

    def visit(self, thing: Any, depth: int, names: frozenset[str] = frozenset()) -> None:
        """Follow one reference; ``names`` are the attributes that the code that holds it uses."""
        if id(thing) in self.seen:
            return
        self.seen[id(thing)] = thing
        if isinstance(thing, nn.Module):
            root = self.root(thing)
            self.found.append((root, depth))
            for value in _hidden_in(root):
                self.visit(value, depth + 1)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, *thing.args, *thing.keywords.values()):
                self.visit(part, depth)
        elif inspect.ismethod(thing):
            self._owner(thing.__self__, depth, _names_in(thing.__func__))
            self.visit(thing.__func__, depth)
        elif inspect.isfunction(thing):
            used = _names_in(thing)
            for value in _seen_by(thing):
                if _may_hold_models(value):
                    self.visit(value, depth + _is_indirect(value), used)
        elif isinstance(thing, list | tuple | set | frozenset | Mapping):
            values = thing.values() if isinstance(thing, Mapping) else thing
            for value in itertools.islice(values, _MOST):
                if _may_hold_models(value):
                    self.visit(value, depth + _is_indirect(value), names)
        else:
            self._attributes(thing, depth, names | {"__call__"})

    def _owner(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """An object that is called itself, or whose method is: all its modules, and what its code uses beside them."""
        if isinstance(thing, nn.Module):
            self.visit(thing, depth)
            return
        self.seen[id(thing)] = thing
        if hasattr(thing, "__dict__") and not inspect.isclass(thing) and not inspect.ismodule(thing):
            for value in list(vars(thing).values()):
                if isinstance(value, nn.Module):
                    self.visit(value, depth)
            self._attributes(thing, depth, names | {"__call__"})

    def _attributes(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """The attributes of an object that code with these names can reach, through its own methods too."""
        if not hasattr(thing, "__dict__") or inspect.isclass(thing) or inspect.ismodule(thing):
            return
        own, waiting, done = vars(thing), set(names), set[str]()
        while waiting:
            name = waiting.pop()
            done.add(name)
            if name in own:
                if _may_hold_models(own[name]):
                    self.visit(own[name], depth + _is_indirect(own[name]), names)
                continue
            member = inspect.getattr_static(type(thing), name, None)
            for inner in ("fget", "__func__", "func"):  # properties, static and class methods, cached properties
                member = getattr(member, inner, None) or member
            if inspect.isfunction(member) and _may_hold_models(member):
                waiting |= _names_in(member) - done
                self.visit(member, depth)


_MOST = 1000  # entries of a list or dict that are looked through
_OF_ANY_MODULE = frozenset(nn.Module().__dict__)
_LIBRARIES = frozenset({"torch", "torchvision", "numpy", "captum", "builtins", "PIL", "matplotlib"})


def _hidden_in(root: nn.Module) -> list[Any]:
    """Modules, and containers of them, that modules below ``root`` keep without registering them.

    torch's own layers keep none, and every call of every class runs through here: they are passed over.
    """
    found, waiting, seen = [], [root], {id(root)}
    while waiting:
        module = waiting.pop()
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)
        if not type(module).__module__.startswith("torch.nn."):
            values = [module.__dict__[name] for name in module.__dict__.keys() - _OF_ANY_MODULE]
            found += [value for value in values if isinstance(value, nn.Module) or _holds_modules(value)]
    return found


def _holds_modules(value: Any) -> bool:
    if not isinstance(value, list | tuple | set | dict) or not value:
        return False
    values = value.values() if isinstance(value, dict) else value
    return any(isinstance(one, nn.Module) for one in itertools.islice(values, _MOST))


def _is_indirect(value: Any) -> int:
    """1 for an object or a container between a function and a module, which makes the module a step further away."""
    return int(not isinstance(value, nn.Module | functools.partial) and not inspect.isroutine(value))


def _seen_by(function: types.FunctionType) -> list[Any]:
    """What a function closes over, its default arguments, and the globals it (or a function inside it) names."""
    values = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that is not filled in yet
            values.append(cell.cell_contents)
    values += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    names = sorted(_names_of_code(function.__code__)[0])
    return values + [function.__globals__[name] for name in names if name in function.__globals__]


def _names_in(function: Any) -> frozenset[str]:
    """The attributes that a Python function uses."""
    return _names_of_code(function.__code__)[1] if inspect.isfunction(function) else frozenset()


@functools.lru_cache(maxsize=4096)
def _names_of_code(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
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


def _may_hold_models(value: Any) -> bool:
    """Modules, containers, and functions and objects of the user's own; libraries keep no models in theirs."""
    if isinstance(value, nn.Module | functools.partial | list | tuple | set | frozenset | Mapping):
        return True
    if inspect.isclass(value) or inspect.ismodule(value):
        return False
    kind = value if inspect.isroutine(value) else type(value)
    return (getattr(kind, "__module__", None) or "").partition(".")[0] not in _LIBRARIES
