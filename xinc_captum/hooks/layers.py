"""Find the modules behind a function, and resolve layers by their dotted names."""

import contextlib
import difflib
import dis
import functools
import inspect
import itertools
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

Names = frozenset[str]

MOST = 1000  # entries of a list or dict that are searched
CACHE = type(functools.lru_cache(len))  # the type of cached functions
_REFERENCES = (nn.Module, functools.partial, weakref.ReferenceType, CACHE)
_CONTAINERS = (list, tuple, set, frozenset, Mapping)
_LIBRARIES = frozenset({"torch", "torchvision", "numpy", "captum", "builtins", "PIL", "matplotlib"})
# Functions of these packages hold no models of the user; objects of their classes may.
_FUNCTIONS = sys.stdlib_module_names.union("scipy sklearn skimage cv2 pandas einops timm transformers".split())
_PLAIN = frozenset({int, float, bool, str, type(None), Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device})
_OF_ANY_MODULE = frozenset(nn.Module().__dict__)  # attributes that every module has


def may_hold_models(value: Any) -> bool:
    """Return whether a value can lead to modules of the user; functions of libraries hold none."""
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
    """Return 1 for an object or a container, which adds one to the distance of the modules behind it; else 0."""
    return int(not isinstance(value, _REFERENCES) and not inspect.isroutine(value))


def items_of(value: Any) -> list[Any] | None:
    """Return the first 1000 entries of a container; None for everything else."""
    if not isinstance(value, _CONTAINERS):
        return None
    return list(itertools.islice(value.values() if isinstance(value, Mapping) else value, MOST))


def attributes_of(thing: Any) -> Mapping[str, Any]:
    """Return the attributes of an object, from its ``__dict__`` or its slots; for a class, those of its bases too."""
    if inspect.isclass(thing):
        return {name: value for kind in reversed(thing.__mro__) for name, value in vars(kind).items()}
    attributes: dict[str, Any] = getattr(thing, "__dict__", {})
    slots = [vars(kind).get("__slots__", ()) for kind in type(thing).__mro__]
    names = [name for some in slots for name in ((some,) if isinstance(some, str) else some)]
    return attributes | {name: getattr(thing, name) for name in names if hasattr(thing, name)} if names else attributes


def references_of(function: types.FunctionType) -> list[Any]:
    """Return a function's closure, its default arguments, and the globals that it (or a function inside it) names."""
    values = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a variable without a value yet
            values.append(cell.cell_contents)
    values += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    names = sorted(_names_of_code(function.__code__)[0])
    return values + [function.__globals__[name] for name in names if name in function.__globals__]


def names_in(function: Any) -> Names:
    """Return the names of the attributes that a Python function uses."""
    return _names_of_code(function.__code__)[1] if inspect.isfunction(function) else frozenset()


@functools.lru_cache(maxsize=4096)
def _names_of_code(code: types.CodeType) -> tuple[Names, Names]:
    """Return the names of the globals and the attributes that code, and the functions inside it, use."""
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
    """Return unregistered values below ``root`` that can lead to further modules, with the names that forward uses.

    For speed, only the hooks of torch's own layers are searched, and a forward function set on the instance.
    """
    hidden: list[tuple[Any, Names]] = []
    waiting, visited = [root], {id(root)}
    used, done = dict[type, Names](), set[tuple[type, int]]()
    while waiting:
        module = waiting.pop()
        for child in module._modules.values():
            if child is not None and id(child) not in visited:
                visited.add(id(child))
                waiting.append(child)
        attributes, kind = module.__dict__, type(module)
        for hooks in (attributes.get("_forward_hooks"), attributes.get("_forward_pre_hooks")):
            hidden += [(hook, frozenset()) for hook in hooks.values() if not _is_ours(hook)] if hooks else []
        if kind.__module__.startswith("torch.nn."):
            if "forward" in attributes:
                hidden.append((attributes["forward"], frozenset()))
            continue
        values = [v for name, v in attributes.items() if name not in _OF_ANY_MODULE and type(v) not in _PLAIN]
        if kind not in used:
            used[kind] = names_in(getattr(kind, "forward", None))  # a weakref.proxy has none
            kinds = [k for k in kind.__mro__ if not _of_library(k.__module__, False)]  # class attributes
            values += [v for k in kinds for v in vars(k).values() if isinstance(v, (nn.Module, list, tuple, dict))]
        for value in values:
            if (kind, id(value)) not in done:  # layers of a class often share a configuration or a function
                done.add((kind, id(value)))
                if _leads_on(value, 3):
                    hidden.append((value, used[kind]))
    return hidden


def _is_ours(hook: Any) -> bool:
    """Return whether this package registered a hook, for the duration of a call."""
    return (getattr(hook, "__module__", None) or "").partition(".")[0] == __name__.partition(".")[0]


def _leads_on(value: Any, levels: int) -> bool:
    """Return :func:`may_hold_models` of a value or of any entry of a container, down to ``levels`` nested ones."""
    if type(value) in _PLAIN:
        return False
    items = value if isinstance(value, (list, tuple)) and len(value) <= MOST else items_of(value)
    if items is None:
        return may_hold_models(value)
    return levels > 0 and any(_leads_on(item, levels - 1) for item in items)


ForwardFunc = Callable[..., Any]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside ``torch.compile`` and ``DataParallel`` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def modules_behind(forward_func: ForwardFunc, *, wrapped: bool = False) -> list[nn.Module]:
    """Return every root module that ``forward_func`` can reach, nearest first, without calling it.

    A module is its own root. The search follows bound methods, partials, caches, closures, default arguments and the
    globals that a function names, through lists, dicts, weak references and the attributes of objects, classes and
    Python modules that its code uses, such as ``lambda x: wrapper.nets[0](x)``. Unregistered members of modules
    (modules in lists, objects, functions, hooks) are followed in the same way. A module inside another root is not
    listed, unless it is nearer (by containers and objects on the way). ``wrapped`` keeps wrappers, as DataParallel.
    """
    return [module for module, _ in modules_with_distance(forward_func, wrapped)]


_SEARCHES: ContextVar[dict[tuple[int, bool], tuple[ForwardFunc, list[tuple[nn.Module, int]]]] | None] = ContextVar(
    "searches", default=None
)


@contextlib.contextmanager
def search_once() -> Iterator[None]:
    """Inside the block, search the modules behind a function once; the block must not change what it refers to."""
    token = _SEARCHES.set({})
    try:
        yield
    finally:
        _SEARCHES.reset(token)


def modules_with_distance(forward_func: ForwardFunc, wrapped: bool = False) -> list[tuple[nn.Module, int]]:
    """Return the roots, each with the number of containers and objects on the way to it."""
    known = _SEARCHES.get()
    if known is None:
        return _modules_with_distance(forward_func, wrapped)
    key = (id(forward_func), wrapped)  # the function is kept, so that no other one gets its id
    if key not in known:
        known[key] = forward_func, _modules_with_distance(forward_func, wrapped)
    return list(known[key][1])


def _modules_with_distance(forward_func: ForwardFunc, wrapped: bool) -> list[tuple[nn.Module, int]]:
    search = _Search(wrapped)
    search.start(forward_func)
    nearest: dict[int, tuple[nn.Module, int]] = {}
    for module, depth in sorted(search.roots, key=lambda pair: pair[1]):
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
        self.unwrap: Callable[[nn.Module], nn.Module] = (lambda module: module) if wrapped else unwrap
        self.roots: list[tuple[nn.Module, int]] = []
        self.visited: dict[int, Any] = {}  # by id; keeps the objects alive, so that no id is reused

    def start(self, forward_func: Any) -> None:
        """Follow the function itself; a callable object leads to all modules among its attributes."""
        if inspect.isroutine(forward_func) or not is_indirect(forward_func):
            self.visit(forward_func, 0)
        else:
            self._owner(forward_func, 0, frozenset())

    def visit(self, thing: Any, depth: int, names: frozenset[str] = frozenset()) -> None:
        """Follow one reference; ``names`` are the attributes that the referring code uses."""
        if id(thing) in self.visited:
            return
        self.visited[id(thing)] = thing
        items = items_of(thing)
        if isinstance(thing, nn.Module):
            root = self.unwrap(thing)
            self.roots.append((root, depth))
            for value, used in hidden_in(root):
                if is_indirect(value) and items_of(value) is None and id(value) not in self.visited:
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
            for value in references_of(thing):
                if may_hold_models(value):
                    self.visit(value, depth + is_indirect(value), used)
        elif items is not None:
            for value in items:
                if may_hold_models(value):
                    self.visit(value, depth + is_indirect(value), names)
        else:
            self._attributes(thing, depth, names | {"__call__"})

    def _owner(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """Follow an object that is called, or has a called method: its modules, and attributes its code uses."""
        if isinstance(thing, nn.Module):
            self.visit(thing, depth)
            return
        self.visited[id(thing)] = thing
        if not inspect.isclass(thing) and not inspect.ismodule(thing):
            for value in list(attributes_of(thing).values()):
                if isinstance(value, nn.Module):
                    self.visit(value, depth)
        self._attributes(thing, depth, names | {"__call__"})

    def _attributes(self, thing: Any, depth: int, names: frozenset[str]) -> None:
        """Follow the attributes of an object that code with these names can reach, also through its own methods."""
        attributes, kind = attributes_of(thing), type(thing)
        waiting, done = set(names), set[str]()
        if inspect.isfunction(inspect.getattr_static(kind, "__getattr__", None)):  # may return members of other objects
            waiting |= attributes.keys()
        while waiting:
            name = waiting.pop()
            done.add(name)
            member = attributes[name] if name in attributes else inspect.getattr_static(kind, name, None)
            if name not in attributes or inspect.isclass(thing):
                for inner in ("fget", "__func__", "func"):  # properties, static and class methods, cached properties
                    member = getattr(member, inner, None) or member
                if inspect.isfunction(member) and may_hold_models(member):
                    waiting |= names_in(member) - done
            if may_hold_models(member):
                self.visit(member, depth + is_indirect(member), names)


class LayerError(ValueError):
    """A layer that is not in the model, never runs, runs twice, or cannot be explained with the given options."""


def is_scripted(module: nn.Module) -> bool:
    """Return whether a module is one of ``torch.jit.script``, which supports no hooks; traced modules support some."""
    return isinstance(module, torch.jit.ScriptModule) and type(module).__name__ == "RecursiveScriptModule"


def is_sharded(roots: Iterable[nn.Module]) -> bool:
    """Return whether FSDP splits weights between processes (``fully_shard`` or ``FullyShardedDataParallel``)."""
    if "torch.distributed.fsdp" not in sys.modules:  # nothing was sharded; importing it is slow
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(m, FSDPModule | FullyShardedDataParallel) for root in roots for m in root.modules())


def refuse_sharded(roots: Iterable[nn.Module], what: str) -> None:
    """Raise :class:`LayerError` for sharded weights before anything runs, so that all ranks raise it and none waits."""
    if is_sharded(roots):
        raise LayerError(
            f"the model is sharded (torch.distributed.fsdp), and {what} needs whole weights in each process. Load the "
            "full state dict into a model that is not sharded, and explain that one "
            "(torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True)."
        )


def modules_below(roots: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the roots and all their submodules, each once."""
    return list({id(module): module for root in roots for module in root.modules()}.values())


def layer_name(forward_func: ForwardFunc, layer: nn.Module) -> str:
    """Return the dotted name of ``layer`` for messages, or its class if it belongs to no known model."""
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            if module is layer:
                return repr(name) if name else type(root).__name__
    return f"{type(layer).__name__} module"


def find_layer(forward_func: ForwardFunc, layer: nn.Module | str) -> nn.Module:
    """Return the module that ``layer`` means: a module, or any of its dotted names in ``named_modules()``.

    If several models behind the function have such a layer, that of the nearest model is used.

    Raises:
        LayerError: the name is not in the model (the nearest valid names are listed) or in several equally near models,
            the module is not part of the model behind ``forward_func``, or no model is found behind it.
        TypeError: ``layer`` is neither a module nor a string.
    """
    reachable = modules_with_distance(forward_func)
    roots = [root for root, _ in reachable]
    if isinstance(layer, nn.Module):
        layer = unwrap(layer)
        if roots and not any(module is layer for root in roots for module in root.modules()):
            raise LayerError(
                f"layer {type(layer).__name__} is not part of the model {_names_of(roots)}; give one of that model's "
                "own submodules, or its dotted name."
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
            f"layer {layer!r} cannot be looked up: no torch.nn.Module is visible behind {forward_func!r}; give the "
            "layer as a module instead of a name."
        )
    plain_name = layer.removeprefix("_orig_mod.")
    named = {name: module for root in roots for name, module in root.named_modules() if name}
    for candidate in (plain_name, plain_name.removeprefix("module.")):
        pairs = [(root, _submodule(root, candidate), depth) for root, depth in reachable]
        owners = [(root, module, depth) for root, module, depth in pairs if module is not None]
        nearest = [(root, module) for root, module, depth in owners if depth == owners[0][2]]
        if len({id(module) for _, module in nearest}) > 1:
            several = _names_of([root for root, _ in nearest])
            raise LayerError(
                f"layer {layer!r} is in several models behind this function ({several}); give the layer as a module "
                "instead of a name."
            )
        if nearest:
            return unwrap(nearest[0][1])
    near = difflib.get_close_matches(plain_name, named, n=5, cutoff=0.3) or list(named)[:5]
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else "the model has no submodules."
    raise LayerError(f"layer {layer!r} is not in the model {_names_of(roots)}; {hint}")


def _submodule(root: nn.Module, name: str) -> nn.Module | None:
    """Return the module of this name, also if it is another name of a shared module."""
    with contextlib.suppress(AttributeError):
        return root.get_submodule(name)
    return None


def _names_of(roots: list[nn.Module]) -> str:
    return " or ".join(type(root).__name__ for root in roots)
