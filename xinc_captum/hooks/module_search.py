"""Find the modules behind a forward function, without calling it."""

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

from torch import nn

from .references import CACHE, hidden_in, is_indirect, items_of, may_hold_models, names_in, own_values, seen_by

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

    A module is its own root. Bound methods, partials, caches, closures, default arguments and the globals that a
    function names are followed, through lists, dicts, weak references and the attributes of objects, classes and Python
    modules that its code uses, so that ``lambda x: model(x)["rgb"]`` and ``lambda x: wrapper.nets[0](x)`` find their
    models. What a module keeps without registering it (modules in lists, objects, functions, hooks) is followed in the
    same way. A module inside another root that is at least as near is not listed. ``wrapped`` leaves wrappers, such as
    DataParallel, around the roots.
    """
    return [module for module, _ in modules_with_distance(forward_func, wrapped)]


def modules_with_distance(forward_func: ForwardFunc, wrapped: bool = False) -> list[tuple[nn.Module, int]]:
    """The roots, and through how many containers and objects each is reached."""
    search = _Search(wrapped)
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
        if inspect.isroutine(forward_func) or not is_indirect(forward_func):
            self.visit(forward_func, 0)
        else:
            self._owner(forward_func, 0, frozenset())

    def visit(self, thing: Any, depth: int, names: frozenset[str] = frozenset()) -> None:
        """Follow one reference; ``names`` are the attributes that the code that holds it uses."""
        if id(thing) in self.seen:
            return
        self.seen[id(thing)] = thing
        items = items_of(thing)
        if isinstance(thing, nn.Module):
            root = self.root(thing)
            self.found.append((root, depth))
            for value, used in hidden_in(root):
                if is_indirect(value) and items_of(value) is None and id(value) not in self.seen:
                    self._owner(value, depth + 1, used)
                self.visit(value, depth + 1, used)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, *thing.args, *thing.keywords.values()):
                self.visit(part, depth)
        elif isinstance(thing, CACHE):
            self.visit(thing.__wrapped__, depth)
        elif isinstance(thing, weakref.ReferenceType):
            self.visit(thing(), depth, names)
        elif inspect.ismethod(thing):
            self._owner(thing.__self__, depth, names_in(thing.__func__))
            self.visit(thing.__func__, depth)
        elif inspect.isfunction(thing):
            used = names_in(thing)
            for value in seen_by(thing):
                if may_hold_models(value):
                    self.visit(value, depth + is_indirect(value), used)
        elif items is not None:
            for value in items:
                if may_hold_models(value):
                    self.visit(value, depth + is_indirect(value), names)
        else:
            self._attributes(thing, depth, names | {"__call__"})

    def _owner(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """An object that is called itself, or whose method is: all its modules, and what its code uses beside them."""
        if isinstance(thing, nn.Module):
            self.visit(thing, depth)
            return
        self.seen[id(thing)] = thing
        if not inspect.isclass(thing) and not inspect.ismodule(thing):
            for value in list(own_values(thing).values()):
                if isinstance(value, nn.Module):
                    self.visit(value, depth)
        self._attributes(thing, depth, names | {"__call__"})

    def _attributes(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """The attributes of an object that code with these names can reach, through its own methods too."""
        own, kind = own_values(thing), type(thing)
        waiting, done = set(names), set[str]()
        if inspect.isfunction(inspect.getattr_static(kind, "__getattr__", None)):  # hands on what other objects keep
            waiting |= own.keys()
        while waiting:
            name = waiting.pop()
            done.add(name)
            member = own[name] if name in own else inspect.getattr_static(kind, name, None)
            if name not in own or inspect.isclass(thing):
                for inner in ("fget", "__func__", "func"):  # properties, static and class methods, cached properties
                    member = getattr(member, inner, None) or member
                if inspect.isfunction(member) and may_hold_models(member):
                    waiting |= names_in(member) - done
            if may_hold_models(member):
                self.visit(member, depth + is_indirect(member), names)
