"""Find modules behind a function; dotted names; LayerError."""

import contextlib
import difflib
import dis
import functools
import inspect
import itertools
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def preprocesses(model: Any) -> bool:
    """Whether a model holds a network and its own ``preprocess``, as :class:`xinc_captum.zoo.Classifier` does."""
    return callable(getattr(model, "preprocess", None)) and isinstance(getattr(model, "model", None), nn.Module)


def check_preprocess(model: Any, preprocess: Callable[..., Any] | None) -> None:
    """Refuse to normalise images twice.

    Raises:
        ValueError: ``preprocess`` is given beside a model that has its own.
    """
    if preprocess is not None and preprocesses(model):
        name = getattr(model, "name", type(model).__name__)
        raise ValueError(
            f"preprocess is given, and {name} preprocesses its images itself, so they would be normalised twice. Give "
            "its .model with preprocess=, or the object alone."
        )


Span = tuple[int, int]


def crop_of(preprocess: Callable[[Tensor], Any], images: Tensor) -> tuple[Span, Span] | None:
    """The first and last row, and the first and last column, that a cropping ``preprocess`` uses; None without a crop.

    None, too, where the result has no gradient to the images, so that this cannot be found out. One image is run.

    Args:
        preprocess: from images in [0, 1] to a model's inputs.
        images: (N, C, H, W), for shape, dtype and device.

    Example:
        >>> crop_of(lambda x: x[..., 4:-4, :], torch.rand(1, 3, 20, 10))
        ((4, 15), (0, 9))
    """
    generator = torch.Generator().manual_seed(0)
    probe = (
        (0.25 + torch.rand(images[:1].shape, generator=generator) / 2).to(images.device, images.dtype).requires_grad_()
    )
    output = preprocess(probe.clone())
    if not isinstance(output, Tensor) or output.dim() != 4 or output.grad_fn is None:
        return None
    weights = torch.rand(output.shape, generator=generator).to(output)
    # Zeros where preprocessing with weights of its own cuts the photo off from the graph.
    (slope,) = torch.autograd.grad((output * weights).sum(), probe, allow_unused=True, materialize_grads=True)
    used = slope[0].ne(0).any(0)
    spans = [_span(used.any(1 - axis), used.shape[axis] / output.shape[2 + axis]) for axis in (0, 1)]
    if not any(spans):
        return None
    rows, columns = (span or (0, side - 1) for span, side in zip(spans, used.shape, strict=True))
    return rows, columns


def warn_of_crop(preprocess: Callable[[Tensor], Any] | None, images: Tensor) -> None:
    """Warn where ``preprocess`` leaves edges of the images out."""
    if preprocess is None:
        return
    try:
        crop = crop_of(preprocess, images)
    except Exception:  # the first pass of the model raises the error that says what fails
        return
    if crop is not None:
        (first_row, last_row), (first_column, last_column) = crop
        height, width = images.shape[-2:]
        warnings.warn(
            f"preprocess looks at rows {first_row} to {last_row} and columns {first_column} to {last_column} of images "
            f"of {width} x {height} pixels only. The images and masks are right; maps of what preprocess leaves (a "
            "Grad-CAM beside them) have to be placed there. Crop the images first (xinc_captum.images.centre_crop) to "
            "compare.",
            stacklevel=6,
        )


def _span(used: Tensor, scale: float) -> Span | None:
    """The first and the last place that is used, where the margins are wider than what a coarser grid skips."""
    places = used.nonzero().flatten().tolist()
    if not places:
        return None
    first, last = places[0], places[-1]
    return (first, last) if max(first, len(used) - 1 - last) > max(2.0, 1.5 * scale) else None


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


def attributes_of(thing: Any) -> Mapping[str, Any]:
    """The attributes that an object keeps, in its ``__dict__`` or in slots; of a class, those of its bases too."""
    if inspect.isclass(thing):
        return {name: value for kind in reversed(thing.__mro__) for name, value in vars(kind).items()}
    attributes: dict[str, Any] = getattr(thing, "__dict__", {})
    slots = [vars(kind).get("__slots__", ()) for kind in type(thing).__mro__]
    names = [name for some in slots for name in ((some,) if isinstance(some, str) else some)]
    return attributes | {name: getattr(thing, name) for name in names if hasattr(thing, name)} if names else attributes


def references_of(function: types.FunctionType) -> list[Any]:
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
            kinds = [k for k in kind.__mro__ if not _of_library(k.__module__, False)]  # what modules of a class share
            values += [v for k in kinds for v in vars(k).values() if isinstance(v, (nn.Module, list, tuple, dict))]
        for value in values:
            if (kind, id(value)) not in done:  # layers of a kind often share a configuration or a function
                done.add((kind, id(value)))
                if _leads_on(value, 3):
                    hidden.append((value, used[kind]))
    return hidden


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
        self.visited: dict[int, Any] = {}  # holds what was visited, so that no id is used twice

    def start(self, forward_func: Any) -> None:
        """Follow the function itself; an object that is called leads to all the modules it keeps."""
        if inspect.isroutine(forward_func) or not is_indirect(forward_func):
            self.visit(forward_func, 0)
        else:
            self._owner(forward_func, 0, frozenset())

    def visit(self, thing: Any, depth: int, names: frozenset[str] = frozenset()) -> None:
        """Follow one reference; ``names`` are the attributes that the code that holds it uses."""
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
        """An object that is called itself, or whose method is: all its modules, and what its code uses beside them."""
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
        """The attributes of an object that code with these names can reach, through its own methods too."""
        attributes, kind = attributes_of(thing), type(thing)
        waiting, done = set(names), set[str]()
        if inspect.isfunction(inspect.getattr_static(kind, "__getattr__", None)):  # hands on what other objects keep
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
        owners = [
            (root, module, depth) for root, depth in reachable if (module := _submodule(root, candidate)) is not None
        ]
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
    """The module of this name, also where it is another name of a shared module."""
    with contextlib.suppress(AttributeError):
        return root.get_submodule(name)
    return None


def _names_of(roots: list[nn.Module]) -> str:
    return " or ".join(type(root).__name__ for root in roots)
